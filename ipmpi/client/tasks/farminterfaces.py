"""The interfaces of a task client that need no task ids: iterators, and those of other libraries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

from ..session.session import Session
from ..session.waiting import T
from .cachedcalls import CachedCall, CachedFunction, CacheInfo, CacheOfClient, P, R, map_cached, plain
from .caller import TaskCaller
from .futures import TaskFuture, gather
from .mapresults import MapResults
from .resuming import NamedTasks, Resumed, Resuming
from .taskmap import columns_of
from .tasktypes import Condition
from .taskview import TaskView
from .terms import TaskSettings

if TYPE_CHECKING:
    from ..pools.executor import Executor
    from ..pools.pool import Pool


class FarmInterfaces(TaskCaller):
    """Base of :class:`~ipmpi.client.TaskClient`.

    Args:
        cache: where results of calls with ``cache=True`` are.
        where, session, how: how to reach the controller, and what is opened; see :class:`TaskCaller`.
    """

    def __init__(self, cache: CacheOfClient, where: Any, session: Session | None, how: dict[str, Any]) -> None:
        self._cache = cache
        super().__init__(where, session=session, **how)

    _resuming: Resuming

    def imap(
        self,
        f: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        timeout: float | None = None,
        retries: int = 0,
        priority: int = 0,
        expected: float | None = None,
        depend: Condition | None = None,
        ranks: int = 1,
        same_node: bool = False,
        name: str = "",
        detach: bool | None = None,
    ) -> MapResults[T]:
        """Call ``f`` on the items of the iterables, one task per item; stops at the end of the shortest.

        All tasks are submitted before this returns. There is no future per item, so it is suited for millions.

        Args:
            f: a function, lambda or other callable.
            *iterables: one for each positional parameter of ``f``.
            ordered: whether results come in the order of the items, otherwise in the order of completion.
            timeout: seconds that each call may run, as for :meth:`TaskClient.submit`. (To limit the wait for
                a result use :meth:`MapResults.next`.)
            retries: as for :meth:`TaskClient.submit`, and so are the arguments that follow.
            priority: see there.
            expected: see there.
            depend: see there.
            ranks: see there.
            same_node: see there.
            name: see there. Tasks with a name are not cancelled when the returned object is closed or dropped.
            detach: see there.

        Returns:
            A :class:`MapResults`, an iterator over the results. For an item whose call failed it raises the
            exception of the call. If it is closed or dropped, tasks that have not started are cancelled.

        Raises:
            SerializationError: the function or an item cannot be pickled.
            TypeError, ValueError: an option is wrong, or there is no iterable.
        """
        settings = TaskSettings(retries, priority, timeout, expected, ranks, same_node, name=name, detach=detach)
        return self.call_each(f, iterables, settings, depend, ordered)

    def call_each(
        self,
        f: Callable[..., Any],
        iterables: Sequence[Iterable[Any]],
        settings: TaskSettings,
        depend: Condition | None = None,
        ordered: bool = True,
    ) -> MapResults:
        """Submit one call per item of the iterables; :meth:`imap` and views of :meth:`options` use this."""
        if not callable(f):
            raise TypeError("a task function must be a FunctionType or another callable")
        if not iterables:
            raise TypeError("imap() needs a function and at least one iterable")
        return self.stream(self._submitter.define(f), zip(*iterables, strict=False), settings, depend, ordered)

    def gather(self, futures: Iterable[TaskFuture[T]], progress: bool | None = None) -> list[T]:
        """Wait for futures and return their results in order; see :func:`ipmpi.client.tasks.futures.gather`."""
        return gather(futures, progress)

    # --- tasks of clients that are gone ------------------------------------------------------------------

    def history(self) -> list[NamedTasks]:
        """Return what there is of the tasks of all who hold the same furl, in the order of submission.

        Tasks that were submitted without a name are together, one :class:`~ipmpi.client.NamedTasks` for each
        client, as long as there are any.
        """
        return self._resuming.history()

    def resume(self, name: str) -> Resumed:
        """Return results of tasks that were submitted before, by any client that holds the same furl.

        What has ended is there at once, the rest as it ends. If not all tasks have ended yet, a client gets the
        same object when it resumes them twice.

        Args:
            name: that of the tasks, see :meth:`history`.

        Returns:
            A :class:`MapResults` if all tasks were submitted by :meth:`map` or :meth:`imap`; otherwise a list of a
            :class:`TaskFuture` for each task. Both in the order of submission.

        Raises:
            ClientError: there are no such tasks, or they have no name and their client is there.
            TypeError, ValueError: it is no name.
        """
        return self._resuming.resume(name)

    def forget(self, name: str) -> int:
        """Cancel those of the tasks that have not ended, and have their results dropped.

        Args:
            name: that of the tasks, see :meth:`history`.

        Returns:
            How many tasks there were.

        Raises:
            ClientError: there are no such tasks.
            TypeError, ValueError: it is no name.
        """
        return self._resuming.forget(name)

    # --- results that are kept -------------------------------------------------------------------------------

    def _cached(self, f: Callable[..., Any], settings: TaskSettings) -> CachedCall:
        if not callable(f):
            raise TypeError("a task function must be a FunctionType or another callable")
        return CachedCall(self._cache.opened(), f, settings.checked().ranks, self._submitter.opener)

    def map_cached(
        self,
        func: Callable[..., Any],
        sequences: Sequence[Iterable[Any]],
        settings: TaskSettings,
        depend: Condition | None = None,
        progress: bool | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """As :meth:`TaskClient.map` with ``cache=True``; that, and views of :meth:`options`, use this."""
        if not sequences:
            raise TypeError("map() needs a function and at least one sequence")
        rows = list(zip(*columns_of(sequences), strict=True))
        if not callable(func):
            raise TypeError("a task function must be a FunctionType or another callable")
        settings = settings.checked()
        return map_cached(
            self, self._cache.opened(), plain(func)[0], rows, settings, depend, self._submitter.opener,
            lambda results: results.collect(progress, return_exceptions),
        )  # fmt: skip

    @overload
    def cached(self, f: Callable[P, R], /, **options: Any) -> CachedFunction[P, R]: ...
    @overload
    def cached(self, /, **options: Any) -> Callable[[Callable[P, R]], CachedFunction[P, R]]: ...
    def cached(self, f: Any = None, /, **options: Any) -> Any:
        """Return a function whose calls are made on engines, and only once: a decorator.

        >>> @tc.cached                                  # doctest: +SKIP
        ... def energy(volume): ...
        >>> energy(3.0)                                 # doctest: +SKIP
        >>> energy.map(volumes)                         # doctest: +SKIP

        It is the same as :meth:`submit` and :meth:`map` with ``cache=True``: see there, and :doc:`/howto/cache`.

        Args:
            f: a function.
            **options: options of all its calls, as for :meth:`options`: ``@tc.cached(ranks=4)``.

        Raises:
            TypeError, ValueError: ``f`` is no function, or an option is unknown or wrong.
        """
        self.options(**options)  # wrong ones are refused here, not when the function is defined
        if f is None:
            return lambda function: CachedFunction(self, function, options)
        return CachedFunction(self, f, options)

    @abstractmethod
    def options(self, **options: Any) -> TaskView:
        """See :meth:`TaskClient.options`."""

    def cache_info(self) -> CacheInfo:
        """Return what the cache of this client has, and how many calls of this client were found in it.

        Raises:
            SecurityError, ClientError: the cache cannot be used.
        """
        return self._cache.opened().info()

    def cache_clear(self) -> int:
        """Forget all results in the cache, also those of other clients with the same folder.

        Returns:
            How many there were.

        Raises:
            SecurityError, ClientError: the cache cannot be used.
        """
        return self._cache.opened().clear()

    def close(self) -> None:
        """Close the connection to the controller; results of tasks that have not ended are lost."""
        super().close()
        self._cache.close()

    # --- for programs that know other farms --------------------------------------------------------------

    def executor(self, **options: Any) -> Executor:
        """Return a :class:`concurrent.futures.Executor` that uses this client, and leaves it open.

        Args:
            **options: options for all its calls: ``priority``, ``timeout``, ``expected``, ``retries``, ``depend``,
                ``ranks``, ``same_node``, as for :meth:`TaskClient.submit`; also ``initializer`` and ``initargs``.
        """
        from ..pools.executor import Executor

        return Executor(client=self, **options)

    def pool(self, **options: Any) -> Pool:
        """Return an object like :class:`multiprocessing.pool.Pool` that uses this client, and leaves it open.

        Args:
            **options: see :meth:`executor`.
        """
        from ..pools.pool import Pool

        return Pool(client=self, **options)
