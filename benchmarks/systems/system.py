"""What is measured of each system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar


class System(ABC):
    """One system that runs, with a client in this process.

    A system has the rows of :mod:`benchmarks.rows` that are in ``calls``; of other methods of the same names,
    none is called. ``start`` is measured of all: from nothing until this object is there, which means that each
    engine has answered.

    Attributes:
        calls: key of a row -> the call that does it, as a user types it.
    """

    calls: ClassVar[Mapping[str, str]]

    @abstractmethod
    def close(self) -> None:
        """End the system, with all its processes."""

    def execute_one(self) -> object:
        """Do nothing on one engine, and wait."""
        raise NotImplementedError

    def execute_all(self) -> object:
        """Do nothing on all engines, and wait."""
        raise NotImplementedError

    def push_all(self, array: Any) -> object:
        """Bring an array to all engines, and wait."""
        raise NotImplementedError

    def prepare_pull(self, size: int) -> None:
        """Have an array of ``size`` bytes on one engine: see :func:`benchmarks.systems.calls.part`."""
        raise NotImplementedError

    def pull_one(self) -> Any:
        """Fetch that array."""
        raise NotImplementedError

    def scatter(self, array: Any) -> object:
        """Bring a part of an array to each engine, and wait."""
        raise NotImplementedError

    def gather(self) -> Any:
        """Fetch the parts from all engines, as one array."""
        raise NotImplementedError

    def submit_result(self) -> object:
        """Run one task that does nothing on any engine, and wait."""
        raise NotImplementedError

    def tasks_map(self, count: int) -> object:
        """Map a function that does nothing over so many items, one task for each, and wait for all results."""
        raise NotImplementedError

    def tasks_submit(self, count: int) -> object:
        """Submit so many tasks that do nothing, each with a future of its own, and wait for all."""
        raise NotImplementedError
