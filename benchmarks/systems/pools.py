"""Pools of processes to which functions are submitted: all that have the interface of concurrent.futures."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import os
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from typing import Any, ClassVar

import numpy

from .calls import meet, nothing, part
from .system import System


class Pool(System):
    """A pool.

    It keeps nothing on its engines, and cannot choose which of them gets a call. So a push is one call for each
    engine with the array, a pull is a call that returns one which its process has.
    """

    calls: ClassVar[Mapping[str, str]] = {
        "execute_one": "submit(f).result()",
        "execute_all": "submit(f) once for each engine, result() of each",
        "push_all": "submit(f, array) once for each engine, result() of each",
        "pull_one": "submit(f).result() of an f that returns the array",
        "scatter": "submit(f, part) once for each engine, result() of each",
        "gather": "numpy.concatenate of submit(f, number) once for each engine",
        "submit_result": "submit(f).result()",
        "tasks_map": "list(map(f, items))",
        "tasks_submit": "submit(f, item), result() of each",
    }

    def __init__(self, engines: int) -> None:
        self._engines, self._size = engines, 0
        self._running = contextlib.ExitStack()
        self._pool: Executor = self._running.enter_context(self.pool(engines))
        folder = self._running.enter_context(tempfile.TemporaryDirectory(prefix="ipmpi-benchmark-"))
        for call in [self._pool.submit(meet, folder, engines) for _ in range(engines)]:
            call.result()

    @staticmethod
    @abstractmethod
    def pool(engines: int) -> contextlib.AbstractContextManager[Executor]:
        """The pool, which ends with the context."""

    def close(self) -> None:  # noqa: D102 - see System
        self._running.close()

    def execute_one(self) -> object:  # noqa: D102 - see System
        return self.submit_result()

    def execute_all(self) -> object:  # noqa: D102 - see System
        return self._each([()] * self._engines)

    def push_all(self, array: Any) -> object:  # noqa: D102 - see System
        return self._each([(array,)] * self._engines)

    def prepare_pull(self, size: int) -> None:  # noqa: D102 - see System
        self._size = size

    def pull_one(self) -> Any:  # noqa: D102 - see System
        return self._pool.submit(part, 0, 1, self._size).result()

    def scatter(self, array: Any) -> object:  # noqa: D102 - see System
        self._size = array.nbytes
        return self._each([(piece,) for piece in numpy.array_split(array, self._engines)])

    def gather(self) -> Any:  # noqa: D102 - see System
        calls = [self._pool.submit(part, number, self._engines, self._size) for number in range(self._engines)]
        return numpy.concatenate([call.result() for call in calls])

    def submit_result(self) -> object:  # noqa: D102 - see System
        return self._pool.submit(nothing).result()

    def tasks_map(self, count: int) -> object:  # noqa: D102 - see System
        return list(self._pool.map(nothing, range(count)))

    def tasks_submit(self, count: int) -> object:  # noqa: D102 - see System
        return self._each([(item,) for item in range(count)])

    def _each(self, arguments: list[tuple[Any, ...]]) -> list[Any]:
        return [call.result() for call in [self._pool.submit(nothing, *each) for each in arguments]]


class ConcurrentFutures(Pool):
    """The pool of processes of Python itself."""

    @staticmethod
    def pool(engines: int) -> contextlib.AbstractContextManager[Executor]:  # noqa: D102 - see Pool
        return concurrent.futures.ProcessPoolExecutor(engines)


class Mpi4pyFutures(Pool):
    """mpi4py.futures; this process is the first rank of its program."""

    @staticmethod
    @contextlib.contextmanager
    def pool(engines: int) -> Iterator[Executor]:  # noqa: D102 - see Pool
        with importlib.import_module("mpi4py.futures").MPIPoolExecutor(max_workers=engines) as pool:
            pool.bootup(wait=True)
            yield pool


class Executorlib(Pool):
    """The executor of executorlib for one machine, with workers that stay."""

    @staticmethod
    def pool(engines: int) -> contextlib.AbstractContextManager[Executor]:  # noqa: D102 - see Pool
        library = importlib.import_module("executorlib")
        found: contextlib.AbstractContextManager[Executor] = library.SingleNodeExecutor(
            max_workers=engines, block_allocation=True, hostname_localhost=True
        )
        return found


class Parsl(Pool):
    """The pool of Parsl over its high-throughput executor, with one block of workers on this machine."""

    @staticmethod
    @contextlib.contextmanager
    def pool(engines: int) -> Iterator[Executor]:  # noqa: D102 - see Pool
        # It starts programs by their names, which stand beside this Python.
        os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
        library = importlib.import_module("parsl")
        provider = importlib.import_module("parsl.providers").LocalProvider(init_blocks=1, max_blocks=1)
        executor = importlib.import_module("parsl.executors").HighThroughputExecutor(
            address="127.0.0.1", loopback_address="127.0.0.1", max_workers_per_node=engines, provider=provider,
            cores_per_worker=1e-3,
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="ipmpi-benchmark-") as folder:
            config = library.Config(executors=[executor], run_dir=folder, usage_tracking=0)
            with importlib.import_module("parsl.concurrent").ParslPoolExecutor(config) as pool:
                yield pool
