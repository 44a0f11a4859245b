"""ipyparallel: a local cluster with its direct, load-balanced and broadcast views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import ipyparallel

from .calls import nothing, part
from .system import System


class Direct(System):
    """The direct view; tasks by the load-balanced one."""

    calls: ClassVar[Mapping[str, str]] = {
        "execute_one": "client[0].execute('pass', block=True)",
        "execute_all": "client[:].execute('pass', block=True)",
        "push_all": "client[:].push({'a': array}, block=True)",
        "pull_one": "client[0].pull('a', block=True)",
        "scatter": "client[:].scatter('a', array, block=True)",
        "gather": "client[:].gather('a', block=True)",
        "submit_result": "balanced.apply_sync(f)",
        "tasks_map": "balanced.map_sync(f, items, chunksize=1)",
        "tasks_submit": "balanced.apply_async(f, item), get() of each",
    }

    def __init__(self, engines: int) -> None:
        self._cluster = ipyparallel.Cluster(n=engines, controller_ip="127.0.0.1", log_level=40)
        self._client = self._cluster.start_and_connect_sync()
        self._all, self._first = self._client[:], self._client[0]
        self._balanced = self._client.load_balanced_view()
        self._all.execute("pass", block=True)

    def close(self) -> None:  # noqa: D102 - see System
        self._cluster.stop_cluster_sync()
        self._client.close()

    def execute_one(self) -> object:  # noqa: D102 - see System
        return self._first.execute("pass", block=True)

    def execute_all(self) -> object:  # noqa: D102 - see System
        return self._all.execute("pass", block=True)

    def push_all(self, array: Any) -> object:  # noqa: D102 - see System
        return self._all.push({"bench_a": array}, block=True)

    def prepare_pull(self, size: int) -> None:  # noqa: D102 - see System
        self._first.push({"bench_p": part(0, 1, size)}, block=True)

    def pull_one(self) -> Any:  # noqa: D102 - see System
        return self._first.pull("bench_p", block=True)

    def scatter(self, array: Any) -> object:  # noqa: D102 - see System
        return self._all.scatter("bench_s", array, block=True)

    def gather(self) -> Any:  # noqa: D102 - see System
        return self._all.gather("bench_s", block=True)

    def submit_result(self) -> object:  # noqa: D102 - see System
        return self._balanced.apply_sync(nothing)

    def tasks_map(self, count: int) -> object:  # noqa: D102 - see System
        return self._balanced.map_sync(nothing, range(count), chunksize=1)

    def tasks_submit(self, count: int) -> object:  # noqa: D102 - see System
        return [result.get() for result in [self._balanced.apply_async(nothing, item) for item in range(count)]]


class Broadcast(Direct):
    """The broadcast view: what all engines get goes through a tree of schedulers."""

    calls: ClassVar[Mapping[str, str]] = {
        "execute_all": "client.broadcast_view().execute('pass', block=True)",
        "push_all": "client.broadcast_view().push({'a': array}, block=True)",
    }

    def __init__(self, engines: int) -> None:
        super().__init__(engines)
        self._broadcast = self._client.broadcast_view()

    def execute_all(self) -> object:  # noqa: D102 - see System
        return self._broadcast.execute("pass", block=True)

    def push_all(self, array: Any) -> object:  # noqa: D102 - see System
        return self._broadcast.push({"bench_a": array}, block=True)
