"""ipmpi: a local cluster with MPI, as ``python -m ipmpi.bench`` measures it, or a running one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ipmpi.bench.cluster import Target, foreign, mpi_or_none, own_cluster
from ipmpi.client import MultiEngineClient, TaskClient

from .calls import nothing, part
from .system import System


class Ipmpi(System):
    """A local cluster of ``engines``.

    Raises:
        LauncherError: it could not be started.
    """

    calls: ClassVar[Mapping[str, str]] = {
        "execute_one": "mec.execute('pass', targets=0)",
        "execute_all": "mec.execute('pass')",
        "push_all": "mec.push({'a': array})",
        "pull_one": "mec.pull('a', targets=0)",
        "scatter": "mec.scatter('a', array)",
        "gather": "mec.gather('a')",
        "submit_result": "tc.submit(f).result()",
        "tasks_map": "tc.map(f, items)",
        "tasks_submit": "tc.submit(f, item), result() of each",
    }

    def __init__(self, engines: int) -> None:
        self._running = contextlib.ExitStack()
        mpi, _ = mpi_or_none()
        self._connect(self._running.enter_context(own_cluster(engines, mpi)))

    def _connect(self, target: Target) -> None:
        self._mec = self._running.enter_context(MultiEngineClient(str(target.mec_furl)))
        self._tc = self._running.enter_context(TaskClient(str(target.tc_furl)))
        self._mec.execute("pass")

    def close(self) -> None:  # noqa: D102 - see System
        self._running.close()

    def execute_one(self) -> object:  # noqa: D102 - see System
        return self._mec.execute("pass", targets=0)

    def execute_all(self) -> object:  # noqa: D102 - see System
        return self._mec.execute("pass")

    def push_all(self, array: Any) -> object:  # noqa: D102 - see System
        return self._mec.push({"bench_a": array})

    def prepare_pull(self, size: int) -> None:  # noqa: D102 - see System
        self._mec.push({"bench_p": part(0, 1, size)}, targets=0)

    def pull_one(self) -> Any:  # noqa: D102 - see System
        return self._mec.pull("bench_p", targets=0)[0]

    def scatter(self, array: Any) -> object:  # noqa: D102 - see System
        return self._mec.scatter("bench_s", array)

    def gather(self) -> Any:  # noqa: D102 - see System
        return self._mec.gather("bench_s")

    def submit_result(self) -> object:  # noqa: D102 - see System
        return self._tc.submit(nothing).result()

    def tasks_map(self, count: int) -> object:  # noqa: D102 - see System
        return self._tc.map(nothing, range(count))

    def tasks_submit(self, count: int) -> object:  # noqa: D102 - see System
        return [future.result() for future in [self._tc.submit(nothing, item) for item in range(count)]]


class Elsewhere(Ipmpi):
    """Clients of a cluster that runs already.

    Args:
        told: ``furl_file`` is the one for MultiEngineClient; that for TaskClient is beside it.
    """

    def __init__(self, told: Mapping[str, str]) -> None:
        self._running = contextlib.ExitStack()
        self._connect(foreign(Path(told["furl_file"])))
