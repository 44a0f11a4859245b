"""Part ``steer``: how long small commands take, there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ipmpi.client import MultiEngineClient

from .figures import Figure, from_times
from .timing import sample
from .workloads import nothing


def measure(mec: MultiEngineClient, repeat: int) -> Iterator[Figure]:
    """Round trips of execute, apply, push and pull of an int; ``100 * repeat`` of each."""
    first, *others = mec.get_ids()

    def figure(key: str, name: str, call: Callable[[], object]) -> Figure:
        return from_times(key, name, "ms", sample(call, 100 * repeat, warm=20))

    yield figure("execute_one", f"execute on engine {first}", lambda: mec.execute("pass", targets=first))
    if others:
        last = others[-1]
        yield figure("execute_other", f"execute on engine {last}", lambda: mec.execute("pass", targets=last))
    yield figure("execute_all", f"execute on all {1 + len(others)}", lambda: mec.execute("pass"))
    yield figure("apply_one", f"apply on engine {first}", lambda: mec[first].apply(nothing, 1))
    yield figure("apply_all", f"apply on all {1 + len(others)}", lambda: mec.apply(nothing, 1))
    yield figure("push_small", f"push an int to engine {first}", lambda: mec.push({"bench_n": 1}, targets=first))
    yield figure("pull_small", f"pull an int from engine {first}", lambda: mec.pull("bench_n", targets=first))
    yield figure("status", "queue_status", mec.queue_status)
