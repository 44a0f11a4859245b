"""Objects that map a function over sequences on engines: the mapper, and the parallel function."""

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
    """A ``map`` with its distribution, targets and block kept; made by :meth:`MultiEngineClient.mapper`."""

    def __init__(self, multiengine: RawMap, dist: str = "b", targets: Targets = "all", block: bool = True) -> None:
        self.multiengine = multiengine
        self.dist = dist
        self.targets = targets
        self.block = block

    def __repr__(self) -> str:
        return f"MultiEngineMapper(dist={self.dist!r}, targets={self.targets!r}, block={self.block})"

    def map(self, func: Callable[..., Any] | str, *sequences: Iterable[Any]) -> Any:
        """``list(map(func, *sequences))``, computed on the engines, each on its share of the sequences.

        Args:
            func: any callable, or the name of a function (an expression) on the engines.
            sequences: of equal length.

        Returns:
            The list of results, or a PendingResult of it.

        Raises:
            TypeError: ``func`` is not callable, or there is no sequence.
            ValueError: the sequences differ in length.
            CompositeError: ``func`` raised on engines.
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
        """The parallel form of ``func``."""

        @functools.wraps(func)
        def call_function(*sequences: Iterable[Any]) -> Any:
            return self.mapper.map(func, *sequences)

        return call_function
