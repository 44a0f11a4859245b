"""Objects that map functions over sequences on engines: mappers and parallel functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from ..session.targets import Targets


class RawMap(Protocol):
    """What a mapper needs: a client or view."""

    def raw_map(
        self,
        func: Callable[..., Any] | str,
        seq: Sequence[Iterable[Any]],
        dist: str = "b",
        targets: Targets | None = None,
        block: bool | None = None,
    ) -> Any:
        """Map over the engines."""


class MultiEngineMapper:
    """Maps functions over sequences with fixed settings; created by :meth:`MultiEngineClient.mapper`.

    Attributes:
        multiengine: the client or view that runs the calls.
        dist: how items are partitioned, ``'b'`` (blocks) or ``'r'`` (round robin).
        targets: the engines that share the work.
        block: whether :meth:`map` waits.
    """

    def __init__(self, multiengine: RawMap, dist: str = "b", targets: Targets = "all", block: bool = True) -> None:
        self.multiengine = multiengine
        self.dist = dist
        self.targets = targets
        self.block = block

    def __repr__(self) -> str:
        return f"MultiEngineMapper(dist={self.dist!r}, targets={self.targets!r}, block={self.block})"

    def map(self, func: Callable[..., Any] | str, *sequences: Iterable[Any]) -> Any:
        """Compute ``list(map(func, *sequences))`` on the engines, each on its part of the items.

        Args:
            func: a callable, or a str: an expression that gives a function in the engines' namespaces.
            *sequences: one for each parameter of ``func``, of equal length.

        Returns:
            The list of results, in the order of the items. With ``block=False``, a :class:`PendingResult` of it.

        Raises:
            TypeError: ``func`` is not callable, or there is no sequence.
            ValueError: the sequences differ in length.
            CompositeError: ``func`` raised on at least one engine.
        """
        return self.multiengine.raw_map(func, sequences, self.dist, self.targets, self.block)


class ParallelFunction:
    """A decorator: calling the decorated function with sequences maps it over the engines.

    >>> @mec.parallel()                                 # doctest: +SKIP
    ... def square(x): return x * x
    >>> square(range(4))                                # doctest: +SKIP
    [0, 1, 4, 9]
    """

    def __init__(self, mapper: MultiEngineMapper) -> None:
        self.mapper = mapper

    def __call__(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that maps ``func`` over its arguments, as :meth:`MultiEngineMapper.map`."""

        @functools.wraps(func)
        def call_function(*sequences: Iterable[Any]) -> Any:
            return self.mapper.map(func, *sequences)

        return call_function
