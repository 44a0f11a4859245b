"""Which ranks run a gang task (no I/O).

A communicator is reused by the same ranks, and never freed: after a failure it may still contain messages. MPI has
a limited number of them. So ranks that already share one are preferred, then *blocks* (a set of 8 runs tasks of 3
on ranks 0-2 and 3-5), which will recur; other combinations are used only while their ranks have plenty of
communicators left.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator

from ... import limits

Ranks = tuple[int, ...]

_LOOKED_AT = 256
"""Number of recently used communicators to consider for a task."""

_WORTH = 0.010
"""Seconds to wait for ranks that share a communicator, rather than create one."""


class CommunicatorSerials:
    """The numbers of the communicators that ranks have made."""

    def __init__(self) -> None:
        self._nodes: dict[int, int] = {}
        self._members: dict[int, list[int]] = {}
        self._widest_node = 0
        self._numbers: dict[int, dict[Ranks, int]] = {}
        self._made: Counter[int] = Counter()
        self._next = itertools.count(1)
        self._blocks: dict[tuple[int, bool], list[Ranks]] = {}
        self._is_tight = False

    def set_ranks(self, nodes: dict[int, int]) -> None:
        """Set the ranks of the set, and the node of each."""
        self._nodes = nodes
        self._members = {}
        for rank in sorted(nodes):
            self._members.setdefault(nodes[rank], []).append(rank)
        self._widest_node = max((len(ranks) for ranks in self._members.values()), default=0)
        self._blocks.clear()
        for numbers in self._numbers.values():
            for ranks in [ranks for ranks in numbers if not nodes.keys() >= set(ranks)]:
                del numbers[ranks]

    def widest(self, same_node: bool) -> int:
        """Return the number of ranks, in all or on the largest node."""
        return self._widest_node if same_node else len(self._nodes)

    # --- what has been made ----------------------------------------------------------------------------------

    def number(self, ranks: Ranks) -> int:
        """Return the number of these ranks' communicator; each of them must create one for a new number."""
        numbers = self._numbers.setdefault(len(ranks), {})
        number = numbers.pop(ranks, None)
        if number is None:
            number = next(self._next)
            self._made.update(ranks)
            self._is_tight = self._is_tight or not all(map(self._has_room, ranks))
        numbers[ranks] = number  # at the end: used last
        return number

    def spoil(self, ranks: Ranks) -> None:
        """Do not reuse the communicator of a task that failed."""
        self._numbers.get(len(ranks), {}).pop(ranks, None)

    def _has_room(self, rank: int) -> bool:
        return self._made[rank] < limits.MAX_ABANDONED_COMMUNICATORS

    def _has_plenty(self, rank: int) -> bool:
        return self._made[rank] < limits.MAX_ABANDONED_COMMUNICATORS // 2

    def are_used_up(self, width: int, same_node: bool) -> bool:
        """Return whether no ranks have, or can still create, a communicator of this width."""
        if not self._is_tight or any(True for _ in self._known(width, same_node, None)):
            return False
        return self._composed(filter(self._has_room, self._nodes), width, same_node) is None

    # --- choosing ranks --------------------------------------------------------------------------------------

    def _known(self, width: int, same_node: bool, most: int | None = _LOOKED_AT) -> Iterator[Ranks]:
        for ranks in itertools.islice(reversed(self._numbers.get(width, {})), most):
            if not same_node or len({self._nodes[rank] for rank in ranks}) == 1:
                yield ranks

    def _blocks_of(self, width: int, same_node: bool) -> list[Ranks]:
        blocks = self._blocks.get((width, same_node))
        if blocks is None:
            lists = list(self._members.values())
            if not same_node and width > self._widest_node:
                lists = [list(itertools.chain.from_iterable(lists))]
            blocks = [
                tuple(sorted(ranks[start : start + width]))
                for ranks in lists
                for start in range(0, len(ranks) - width + 1, width)
            ]
            self._blocks[width, same_node] = blocks
        return blocks

    def _preferred(self, width: int, same_node: bool) -> Iterator[Ranks]:
        yield from self._known(width, same_node)
        for ranks in self._blocks_of(width, same_node):
            if all(map(self._has_room, ranks)):
                yield ranks

    def _composed(self, ranks: Iterable[int], width: int, same_node: bool) -> Ranks | None:
        """Return any ranks of ``ranks``, preferably on one node, or if required."""
        by_node: dict[int, list[int]] = {}
        for rank in ranks:
            by_node.setdefault(self._nodes[rank], []).append(rank)
        nodes = sorted(by_node.values(), key=len)
        fitting = next((members for members in nodes if len(members) >= width), None)
        if fitting is not None:
            return tuple(sorted(fitting)[:width])
        if same_node:
            return None
        fullest = itertools.chain.from_iterable(reversed(nodes))
        chosen = tuple(sorted(itertools.islice(fullest, width)))
        return chosen if len(chosen) == width else None

    def _may_compose(self, width: int, same_node: bool) -> Callable[[int], bool]:
        """Return a filter of ranks that may be combined freely: if there is no better choice, any that can."""
        if self._is_tight and next(self._preferred(width, same_node), None) is None:
            return self._has_room
        return self._has_plenty

    def pick(self, width: int, same_node: bool, idle: Collection[int]) -> Ranks | None:
        """Return idle ranks that can run a task together now."""
        if len(idle) < width:
            return None
        is_idle = frozenset(idle).issuperset
        for ranks in self._preferred(width, same_node):
            if is_idle(ranks):
                return ranks
        return self._composed(filter(self._may_compose(width, same_node), idle), width, same_node)

    def reserve(self, width: int, same_node: bool, until: dict[int, float]) -> Ranks | None:
        """Return the ranks that will be idle together first, if each becomes idle at its time in ``until``."""

        def ready(ranks: Iterable[int]) -> float:
            return max(until[rank] for rank in ranks)

        is_there = until.keys()
        candidates = [ranks for ranks in self._preferred(width, same_node) if is_there >= set(ranks)]
        best = min(candidates, key=ready, default=None)
        free = self._first_free(width, same_node, until, self._may_compose(width, same_node))
        if free is not None and (best is None or ready(free) + _WORTH < ready(best)):
            return free
        return best

    def _first_free(
        self, width: int, same_node: bool, until: dict[int, float], may: Callable[[int], bool]
    ) -> Ranks | None:
        by_node: dict[int, list[int]] = {}
        for rank in sorted(filter(may, until), key=lambda rank: (until[rank], rank)):
            by_node.setdefault(self._nodes[rank] if same_node else 0, []).append(rank)
        groups = [ranks[:width] for ranks in by_node.values() if len(ranks) >= width]
        best = min(groups, key=lambda ranks: until[ranks[-1]], default=None)
        return None if best is None else tuple(sorted(best))


def without(ranks: Iterable[int], held: Container[int]) -> list[int]:
    """Return those of ``ranks`` that are not held."""
    return [rank for rank in ranks if rank not in held]
