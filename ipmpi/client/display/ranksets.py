"""Sets of ranks that have done the same."""

from __future__ import annotations

from collections.abc import Iterable

from ...ranges import label as label


class RankSet(tuple[int, ...]):
    """The ids of some engines, ascending; shown as ``[0-62, 64]``. It can be the key of a dict."""

    __slots__ = ()

    def __new__(cls, ids: Iterable[int] = ()) -> RankSet:
        """Sort the ids, each once."""
        return super().__new__(cls, sorted(set(ids)))

    def __repr__(self) -> str:
        return label(self)
