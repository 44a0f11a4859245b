"""Ray: an actor for each engine, and tasks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it is imported
import numpy
import ray

from .calls import Kept, nothing
from .system import System

STORE_BYTES = 2_000_000_000


class Ray(System):
    """A cluster of this machine alone."""

    calls: ClassVar[Mapping[str, str]] = {
        "execute_one": "ray.get(actor.f.remote())",
        "execute_all": "ray.get([actor.f.remote() for actor in actors])",
        "push_all": "ray.put(array), its reference to a method of each actor",
        "pull_one": "ray.get(actor.kept.remote())",
        "scatter": "a part of the array to a method of each actor",
        "gather": "numpy.concatenate(ray.get([actor.kept.remote() for actor in actors]))",
        "submit_result": "ray.get(f.remote())",
        "tasks_submit": "f.remote(item), ray.get(references)",
    }

    def __init__(self, engines: int) -> None:
        ray.init(
            num_cpus=engines, include_dashboard=False, log_to_driver=False, object_store_memory=STORE_BYTES,
            _node_ip_address="127.0.0.1",
        )  # fmt: skip
        # Actors reserve no cores, so that tasks have as many workers as there are engines.
        self._actors = [ray.remote(num_cpus=0)(Kept).remote() for _ in range(engines)]
        self._task = ray.remote(nothing)
        self.execute_all()
        ray.get([self._task.remote(item) for item in range(engines)])

    def close(self) -> None:  # noqa: D102 - see System
        ray.shutdown()

    def execute_one(self) -> object:  # noqa: D102 - see System
        return ray.get(self._actors[0].keep.remote(None))

    def execute_all(self) -> object:  # noqa: D102 - see System
        return ray.get([actor.keep.remote(None) for actor in self._actors])

    def push_all(self, array: Any) -> object:  # noqa: D102 - see System
        there = ray.put(array)
        return ray.get([actor.keep.remote(there) for actor in self._actors])

    def prepare_pull(self, size: int) -> None:  # noqa: D102 - see System
        ray.get(self._actors[0].make.remote(size))

    def pull_one(self) -> Any:  # noqa: D102 - see System
        return ray.get(self._actors[0].kept.remote())

    def scatter(self, array: Any) -> object:  # noqa: D102 - see System
        parts = numpy.array_split(array, len(self._actors))
        return ray.get([actor.keep.remote(part) for actor, part in zip(self._actors, parts, strict=True)])

    def gather(self) -> Any:  # noqa: D102 - see System
        return numpy.concatenate(ray.get([actor.kept.remote() for actor in self._actors]))

    def submit_result(self) -> object:  # noqa: D102 - see System
        return ray.get(self._task.remote())

    def tasks_submit(self, count: int) -> object:  # noqa: D102 - see System
        return ray.get([self._task.remote(item) for item in range(count)])
