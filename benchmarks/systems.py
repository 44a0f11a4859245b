"""Measure one other system with the same work; run by :mod:`benchmarks.baselines`, in a process of its own.

The other systems are loaded by name when they are asked for: none of them is a dependency.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from ipmpi.bench.farm import count_for
from ipmpi.bench.figures import Figure, from_times
from ipmpi.bench.timing import sample
from ipmpi.bench.workloads import doubles, nothing

TRIAL: Final = 1_000


class System(ABC):
    """What is measured of each system; its nearest equivalent where it lacks something."""

    @abstractmethod
    def run_one(self) -> object:
        """Do nothing on one engine, and wait."""

    @abstractmethod
    def run_all(self) -> object:
        """Do nothing on all engines, and wait."""

    @abstractmethod
    def push_all(self, array: Any) -> object:
        """Bring an array to all engines, and wait."""

    @abstractmethod
    def prepare_pull(self, size: int) -> None:
        """Make an array of ``size`` bytes on one engine."""

    @abstractmethod
    def pull_one(self) -> Any:
        """Fetch that array."""

    @abstractmethod
    def map(self, count: int) -> object:
        """Run so many no-op tasks, one per item, and wait for all results."""


class Dask(System):
    """dask.distributed: a local cluster of processes with one thread each."""

    def __init__(self, engines: int) -> None:
        distributed = importlib.import_module("distributed")
        self._cluster = distributed.LocalCluster(
            n_workers=engines, threads_per_worker=1, processes=True, dashboard_address=None
        )
        self._client = distributed.Client(self._cluster)
        self._client.wait_for_workers(engines)
        self._first = sorted(self._client.scheduler_info(n_workers=-1)["workers"])[0]
        self._array: Any = None

    def run_one(self) -> object:  # noqa: D102 - see System
        return self._client.submit(nothing, pure=False, workers=[self._first]).result()

    def run_all(self) -> object:  # noqa: D102 - see System
        return self._client.run(nothing)

    def push_all(self, array: Any) -> object:  # noqa: D102 - see System
        return self._client.scatter(array, broadcast=True, hash=False)

    def prepare_pull(self, size: int) -> None:  # noqa: D102 - see System
        self._array = self._client.submit(doubles, size, pure=False, workers=[self._first])
        importlib.import_module("distributed").wait(self._array)

    def pull_one(self) -> Any:  # noqa: D102 - see System
        return self._array.result()

    def map(self, count: int) -> object:  # noqa: D102 - see System
        return self._client.gather(self._client.map(nothing, range(count), pure=False))

    def close(self) -> None:
        """End the cluster."""
        self._client.close()
        self._cluster.close()


class IPyParallel(System):
    """ipyparallel: a local cluster, direct view and load-balanced view."""

    def __init__(self, engines: int) -> None:
        ipyparallel = importlib.import_module("ipyparallel")
        self._cluster = ipyparallel.Cluster(n=engines)
        self._client = self._cluster.start_and_connect_sync()
        self._all, self._first = self._client[:], self._client[0]
        self._balanced = self._client.load_balanced_view()

    def run_one(self) -> object:  # noqa: D102 - see System
        return self._first.execute("pass", block=True)

    def run_all(self) -> object:  # noqa: D102 - see System
        return self._all.execute("pass", block=True)

    def push_all(self, array: Any) -> object:  # noqa: D102 - see System
        return self._all.push({"bench_a": array}, block=True)

    def prepare_pull(self, size: int) -> None:  # noqa: D102 - see System
        self._first.push({"bench_p": doubles(size)}, block=True)

    def pull_one(self) -> Any:  # noqa: D102 - see System
        return self._first.pull("bench_p", block=True)

    def map(self, count: int) -> object:  # noqa: D102 - see System
        return self._balanced.map_sync(nothing, range(count), chunksize=1)

    def close(self) -> None:
        """End the cluster."""
        self._cluster.stop_cluster_sync()
        self._client.close()


class Mpi4pyFutures(System):
    """mpi4py.futures under ``mpiexec``. It has no names on engines: a push is one call with the array for each."""

    def __init__(self, engines: int) -> None:
        futures = importlib.import_module("mpi4py.futures")
        self._pool = futures.MPIPoolExecutor(max_workers=engines)
        self._pool.bootup(wait=True)
        self._engines = engines
        self._size = 0

    def run_one(self) -> object:  # noqa: D102 - see System
        return self._pool.submit(nothing).result()

    def run_all(self) -> object:  # noqa: D102 - see System
        return [future.result() for future in [self._pool.submit(nothing) for _ in range(self._engines)]]

    def push_all(self, array: Any) -> object:  # noqa: D102 - see System
        calls = [self._pool.submit(nothing, array) for _ in range(self._engines)]
        return [future.result() for future in calls]

    def prepare_pull(self, size: int) -> None:  # noqa: D102 - see System
        self._size = size

    def pull_one(self) -> Any:  # noqa: D102 - see System
        return self._pool.submit(doubles, self._size).result()

    def map(self, count: int) -> object:  # noqa: D102 - see System
        return list(self._pool.map(nothing, range(count)))

    def close(self) -> None:
        """End the pool."""
        self._pool.shutdown()


SYSTEMS: Final[dict[str, Callable[[int], Any]]] = {
    "dask.distributed": Dask,
    "ipyparallel": IPyParallel,
    "mpi4py.futures": Mpi4pyFutures,
}


def measure(system: System, parts: list[str], size: int, repeat: int) -> Iterator[Figure]:
    """The same work as the parts of the same names do with ours; keys and units are the same, too."""

    def latency(key: str, name: str, call: Callable[[], object]) -> Figure:
        return from_times(key, name, "ms", sample(call, 100 * repeat, warm=5, budget=3.0))

    if "steer" in parts:
        yield latency("execute_one", "execute on one engine", system.run_one)
        yield latency("execute_all", "execute on all", system.run_all)
    if "bulk" in parts:
        array = doubles(size)
        text = f"{array.nbytes / 1e6:g} MB"
        times = sample(lambda: system.push_all(array), repeat, budget=6.0)
        yield from_times("push_all", f"push {text} to all", "s", times)
        system.prepare_pull(size)
        times = sample(system.pull_one, repeat, budget=6.0)
        yield from_times("pull_one", f"pull {text} from one engine", "GB/s", times, array.nbytes)
    if "farm" in parts:
        count = count_for(min(sample(lambda: system.map(TRIAL), 1)))
        times = sample(lambda: system.map(count), min(repeat, 3), warm=0, budget=8.0)
        yield from_times("tasks", f"map, {count:,} no-op tasks", "tasks/s", times, count)
        yield latency("submit_result", "one task, submit to result", system.run_one)


def main() -> None:
    """Measure, and write the figures to the file of ``--json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.systems", description="Measure one other system.")
    parser.add_argument("system", choices=list(SYSTEMS))
    parser.add_argument("parts", nargs="+")
    parser.add_argument("-n", type=int, default=4)
    parser.add_argument("--size", type=int, default=100_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    with contextlib.closing(SYSTEMS[options.system](options.n)) as system:
        figures = list(measure(system, options.parts, options.size, options.repeat))
        # Written before the end: some systems take long, or fail, to end.
        temporary = options.json.with_suffix(".part")
        temporary.write_text(json.dumps([{**figure._asdict(), "goal": None} for figure in figures]))
        os.replace(temporary, options.json)


if __name__ == "__main__":
    main()
