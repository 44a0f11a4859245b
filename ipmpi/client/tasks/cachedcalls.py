"""Calls whose results are kept, and found again: ``cache=True`` of ``submit`` and ``map``, and ``tc.cached``."""

from __future__ import annotations

import copy
import functools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeVar

from ... import furl, limits
from ...protocol.packed import unpack
from ..cache.callkey import CallKeys
from ..cache.resultcache import BYTES, CacheInfo, ResultCache
from ..session import given
from ..session.functions import Definition, OfThisProgram
from ..session.opening import Opener
from .futures import TaskFuture
from .mapresults import MapResults
from .payloads import Payload, is_openable, value_of
from .resulthandlers import ResultBatch
from .tasktypes import Condition
from .terms import TaskSettings

CACHE_BYTES: Final = BYTES
"""See ``cache_bytes`` of :class:`~ipmpi.client.TaskClient`."""

P = ParamSpec("P")
R = TypeVar("R")
_MISSING: Final = object()


class CacheOfClient:
    """The cache of a client, which is opened when it is first needed.

    Args:
        folder: where it is; None: in the folder of IPython, for all clusters.
        most: the bytes that its results may have.

    Raises:
        TypeError, ValueError: an argument is wrong.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, most: int) -> None:
        self._folder = None if folder is None else Path(given.path(folder, "cache_folder")).expanduser().absolute()
        self._most = given.whole_number(most, "cache_bytes", 1, limits.TASK_NUMBER << 20)
        self._lock = threading.Lock()
        self._opened: ResultCache | None = None

    def opened(self) -> ResultCache:
        """Return the cache.

        Raises:
            SecurityError, ClientError: it cannot be used; the message says why, and what to do.
        """
        with self._lock:
            if self._opened is None:
                folder = furl.ipython_dir() / "cache" if self._folder is None else self._folder
                self._opened = ResultCache(folder, self._most)
            return self._opened

    def close(self) -> None:
        """Wait until all results are written."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()


class CachedCall:
    """One call to be looked up, and to be kept.

    Args:
        cache: where.
        function: what is called, as it is now.
        ranks: on how many ranks together.
        opener: opens what is found.

    Raises:
        TypeError: nothing tells whether two calls of the function are equal.
    """

    def __init__(self, cache: ResultCache, function: Callable[..., Any], ranks: int, opener: Opener) -> None:
        self._cache = cache
        self._keys = CallKeys(function, ranks, not opener.is_open)
        self._opener = opener

    def look(self, future: TaskFuture, args: tuple[Any, ...], kwargs: dict[str, Any], again: bool = False) -> bool:
        """Complete a future with the result of an equal call; otherwise have it keep its own result.

        Args:
            future: not submitted yet.
            args: its positional arguments.
            kwargs: its keyword arguments.
            again: whether this call was looked for before.

        Returns:
            Whether there was one.

        Raises:
            TypeError: nothing tells whether two calls with such arguments are equal.
        """
        key = self._keys.of(args, kwargs)
        found = self._cache.find([key])
        if key in found:
            value = _opened(self._cache, key, found[key], self._opener)
            if value is not _MISSING:
                self._cache.count(1, 0)
                future.found(value)
                return True
        if not again:
            self._cache.count(0, 1)
        future.keep = functools.partial(self._keep, key)
        return False

    def _keep(self, key: bytes, payload: Payload) -> None:
        self._cache.keep_one(key, own_copy(payload), functools.partial(is_openable, opener=self._opener))


class KeptResults:
    """The results of a map that are to be kept, by number.

    Args:
        cache: where.
        keys: of the calls.
        again: the numbers of calls that occur more than once in the map.
        opener: what it refuses to open is not kept.

    Attributes:
        payloads: the results of these.
    """

    def __init__(self, cache: ResultCache, keys: Sequence[bytes], again: frozenset[int], opener: Opener) -> None:
        self._cache = cache
        self._keys = keys
        self._again = again
        self._is_kept = functools.partial(is_openable, opener=opener)
        self.payloads: dict[int, Payload] = {}

    def batch(self, batch: ResultBatch) -> None:
        """Results have come; in the session's thread."""
        self._cache.keep(len(batch.body), lambda: self._entries(batch))
        if self._again:
            self.payloads.update(item for item in _results(batch) if item[0] in self._again)

    def _entries(self, batch: ResultBatch) -> list[tuple[bytes, Payload]]:
        return [(self._keys[number], payload) for number, payload in _results(batch) if self._is_kept(payload)]

    def large(self, number: int, payload: Payload) -> None:
        """A large result has come; in the session's thread."""
        kept = own_copy(payload)
        self._cache.keep_one(self._keys[number], kept, self._is_kept)
        if number in self._again:
            self.payloads[number] = kept


def _results(batch: ResultBatch) -> Iterable[tuple[int, bytes]]:
    base, message, body = batch
    failed = set(unpack(message.failed)) if message.failed else ()
    start = 0
    for position, (index, length) in enumerate(zip(unpack(message.indices), unpack(message.lengths), strict=True)):
        if position not in failed:
            yield base + index, body[start : start + length]
        start += length


def own_copy(payload: Payload) -> Payload:
    """A copy of what arrays of the user might share memory with: they may change before it is written."""
    return payload if isinstance(payload, bytes) else [bytes(segment) for segment in payload]


def _opened(cache: ResultCache, key: bytes, payload: Payload, opener: Opener) -> Any:
    """The object of a payload; ``_MISSING`` if it cannot be opened any more, for instance without its class."""
    try:
        return value_of(payload, opener)
    except Exception:
        if opener.is_open:  # else another client may open it
            cache.remove([key])
        return _MISSING


class Caller(Protocol):
    """The part of a task client that a map with a cache needs."""

    def define(self, function: Callable[..., Any]) -> Definition:
        """Pickle a function."""

    def stream(
        self,
        definition: Definition,
        rows: Iterable[tuple[Any, ...]],
        settings: TaskSettings,
        depend: Condition | None = None,
        ordered: bool = True,
        keep: KeptResults | None = None,
    ) -> MapResults:
        """Submit a call for each row of arguments."""


def map_cached(
    caller: Caller,
    cache: ResultCache,
    function: Callable[..., Any],
    rows: Sequence[tuple[Any, ...]],
    settings: TaskSettings,
    depend: Condition | None,
    opener: Opener,
    collect: Callable[[MapResults], list[Any]],
) -> list[Any]:
    """Call a function on rows of arguments, each of which is computed once, by anyone.

    Args:
        caller: submits what is missing.
        cache: where results are.
        function: what is called.
        rows: the arguments.
        settings: the options of the calls.
        depend: a condition.
        opener: opens what is found.
        collect: waits for what is missing, and returns it.

    Returns:
        The results, in the order of the rows. What was computed is in the cache by then, also if a call fails.
    """
    keys = CallKeys(function, settings.ranks, not opener.is_open).of_rows(rows)
    cache.flush()
    found = cache.find(list(dict.fromkeys(keys)))
    values: list[Any] = [_opened(cache, key, found[key], opener) if key in found else _MISSING for key in keys]
    places: dict[bytes, list[int]] = {}
    for place, key in enumerate(keys):
        if values[place] is _MISSING:
            places.setdefault(key, []).append(place)
    cache.count(len(keys) - sum(map(len, places.values())), len(places))
    if not places:
        return values
    again = frozenset(number for number, same in enumerate(places.values()) if len(same) > 1)
    keep = KeptResults(cache, list(places), again, opener)
    missing = [rows[same[0]] for same in places.values()]
    results = caller.stream(caller.define(OfThisProgram(function)), missing, settings, depend, True, keep)
    try:
        collected = collect(results)
    finally:
        cache.flush()
    for number, (value, same) in enumerate(zip(collected, places.values(), strict=True)):
        values[same[0]] = value
        for place in same[1:]:  # each has an object of its own
            payload = keep.payloads.get(number)
            values[place] = copy.copy(value) if payload is None else value_of(payload, opener)
    return values


class CachingClient(Protocol):
    """The part of a task client that a cached function uses."""

    def options(self, **options: Any) -> Any:
        """Return a view with these options."""


class CachedFunction(Generic[P, R]):
    """A function whose calls are made on engines, once: created by :meth:`TaskClient.cached`.

    ``f(3)`` waits for the result, ``f.submit(3)`` returns a future, and ``f.map([1, 2, 3])`` the list of results.
    In a function that is sent to engines it is the plain function.

    Attributes:
        function: the plain function.
    """

    def __init__(self, client: CachingClient, function: Callable[P, R], options: dict[str, Any]) -> None:
        given.function(function, "a cached function")
        functools.update_wrapper(self, function)
        self.function = function
        self._calls = client.options(**options, cache=True)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the result of the call, which is made on an engine if none has made it before."""
        return self.submit(*args, **kwargs).result()

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Begin the call; returns at once."""
        future: TaskFuture[R] = self._calls.submit(self.function, *args, **kwargs)
        return future

    def map(
        self, *sequences: Iterable[Any], progress: bool | None = None, return_exceptions: bool = False
    ) -> list[R]:
        """As :meth:`TaskClient.map`."""
        results: list[R] = self._calls.map(
            self.function, *sequences, progress=progress, return_exceptions=return_exceptions
        )
        return results

    def __reduce__(self) -> tuple[Any, ...]:
        return itself, (self.function,)


def itself(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function, which a :class:`CachedFunction` is on engines."""
    return function


def plain(function: Callable[..., Any]) -> tuple[Callable[..., Any], bool]:
    """Return a function, and whether its calls are always cached."""
    if isinstance(function, CachedFunction):
        return function.function, True
    return function, False


__all__ = ["CACHE_BYTES", "CacheInfo", "CacheOfClient", "CachedCall", "CachedFunction", "map_cached", "plain"]
