"""A joblib backend that runs jobs on engines; scikit-learn can use it, too.

::

    from ipmpi.client.pools import register_joblib

    register_joblib()
    with joblib.parallel_backend("ipmpi"):
        results = joblib.Parallel()(joblib.delayed(pow)(2, n) for n in range(100))
"""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

from ..session.functions import OfThisProgram
from ..session.waiting import forks
from ..tasks.caller import TaskCaller
from ..tasks.calloptions import checked_options, settings_of
from ..tasks.futures import TaskFuture, cancel_all
from .inflight import Client

log = logging.getLogger(__name__)

Batch = concurrent.futures.Future[Any]
Callback = Callable[[Batch], object]

_JOBLIBS_OWN: Final = frozenset(
    {"max_nbytes", "temp_folder", "mmap_mode", "prefer", "require", "verbose", "context", "inner_max_num_threads"}
)
"""Arguments that ``Parallel`` passes to every backend, but that apply to process pools only."""


def register_joblib(client: Client | None = None) -> None:
    """Register the joblib backend ``'ipmpi'``.

    ``joblib.parallel_backend('ipmpi', ...)`` accepts ``client=`` and the options of :meth:`TaskClient.executor`;
    ``joblib.Parallel(backend='ipmpi', ...)`` accepts these options. Others raise TypeError. The jobs of one call
    are sent to the engines in batches. Nested calls of ``Parallel`` use threads on the engine. If a job fails, the
    others are cancelled or interrupted. joblib must be installed on the engines, too. May be called from any
    thread.

    Args:
        client: the :class:`~ipmpi.client.TaskClient` to use. By default the backend connects to the default
            cluster when it is first used, and stays connected.

    Raises:
        ImportError: joblib is not installed.
    """
    from joblib import register_parallel_backend

    register_parallel_backend("ipmpi", functools.partial(_new_backend, _Connection(client)))


class _Connection:
    """The default client of backends; connects when it is first used.

    Each process has its own: joblib backends that fork use it in their workers.
    """

    def __init__(self, client: Client | None) -> None:
        self._client = client
        self._is_given = client is not None
        self._born = forks()
        self._lock = threading.Lock()

    def client(self) -> Client:
        with self._lock:
            if self._client is None or (self._born != forks() and not self._is_given):
                self._client, self._born = TaskCaller(), forks()
            return self._client


class _Batches:
    """The batches of jobs that one backend has submitted.

    Their callbacks read the user's iterable and pickle its items, so they run in a thread of their own: the
    session's thread must not be blocked.
    """

    def __init__(self, client: Client, options: dict[str, Any]) -> None:
        self._client = client
        self._options = options
        self._lock = threading.Lock()
        self._open: set[TaskFuture] = set()
        self._ended: queue.SimpleQueue[tuple[Batch, Callback] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, batch: Callable[[], Any], callback: Callback | None) -> Batch:
        future = self._submit(batch)
        if callback is not None:
            self._start()
            notify = callback
            future.add_done_callback(lambda ended: self._ended.put((future, notify)))
        return future

    def _submit(self, batch: Callable[[], Any]) -> Batch:
        try:
            # The batch is an argument: a function would be sent to all engines and kept there.
            task = self._client.call(
                OfThisProgram(_CALL), (batch,), {}, settings_of(self._options), self._options.get("depend")
            )
        except Exception as error:
            # Joblib waits for this batch already, and an exception raised for a later one would be lost.
            failed: Batch = concurrent.futures.Future()
            failed.set_exception(error)
            return failed
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        return task

    def cancel(self) -> None:
        """Cancel the batches that have not started, and interrupt the running ones."""
        cancel_all(list(self._open), running=True)

    def stop(self) -> None:
        """Call no more callbacks."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._ended.put(None)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_deliver, args=(self._ended,), name="ipmpi-joblib", daemon=True
                )
                self._thread.start()


def _deliver(ended: queue.SimpleQueue[tuple[Batch, Callback] | None]) -> None:
    while (each := ended.get()) is not None:
        future, callback = each
        try:
            callback(future)
        except Exception:  # the callbacks of the other batches must still be called
            log.exception("a callback of joblib has failed")
        del each, future, callback  # results may be large


def _calling() -> Callable[[Callable[[], Any]], Any]:
    # A nested function is pickled by value: engines need not import the client.
    def call(batch: Callable[[], Any]) -> Any:
        return batch()

    return call


_CALL = _calling()


def _new_backend(connection: _Connection, client: Client | None = None, **arguments: Any) -> Any:
    return _backend_class()(connection, client, **arguments)


@functools.cache
def _backend_class() -> Any:
    """Return the backend class. It is created on first use, since its base classes are joblib's."""
    from joblib._parallel_backends import FallbackToBackend, SequentialBackend
    from joblib.parallel import AutoBatchingMixin, ParallelBackendBase

    class IpmpiBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
        default_n_jobs = -1
        supports_retrieve_callback = True

        def __init__(
            self, connection: _Connection, client: Client | None, nesting_level: int | None = None, **options: Any
        ) -> None:
            super().__init__(nesting_level=nesting_level)
            self._connection = connection if client is None else _Connection(client)
            self._options = checked_options(options)
            self._batches: _Batches | None = None
            self.parallel: Any = None

        def effective_n_jobs(self, n_jobs: int | None) -> int:
            if n_jobs == 0:
                raise ValueError("n_jobs == 0 in Parallel has no meaning")
            if n_jobs is None:
                return 1
            if n_jobs > 0:
                return n_jobs
            # With 1, joblib would run the jobs in this process.
            return max(2, len(self._connection.client().get_ids()) + 1 + n_jobs)

        def configure(self, n_jobs: int = 1, parallel: Any = None, **given: Any) -> int:
            own = {name: value for name, value in given.items() if name not in _JOBLIBS_OWN}
            options = checked_options({**self._options, **own})
            jobs = self.effective_n_jobs(n_jobs)
            if jobs == 1:
                raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
            self.parallel = parallel
            self._batches = _Batches(self._connection.client(), options)
            return jobs

        def submit(self, func: Callable[[], Any], callback: Callback | None = None) -> Batch:
            assert self._batches is not None, "configure() comes first"
            return self._batches.submit(func, callback)

        def retrieve_result_callback(self, out: Batch) -> Any:
            return out.result()

        def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: ARG002 - joblib calls it so
            if self._batches is not None:
                self._batches.cancel()

        def terminate(self) -> None:
            batches, self._batches = self._batches, None
            if batches is not None:
                batches.stop()
            self.reset_batch_stats()

    return IpmpiBackend
