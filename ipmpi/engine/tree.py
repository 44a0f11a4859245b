"""How commands travel inside an engine set (layer L2, pure).

Ranks on one node hang on their *leader*, the lowest of them, by Unix sockets. Leaders form a tree over TCP in
which each has up to :data:`ARITY` others below it, so the time to reach N nodes grows as log N. Rank 0 is the
leader of its node and the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ARITY = 8


class Place(NamedTuple):
    """A rank's neighbours: the rank above it (None at the top), those below on its node, and other leaders."""

    above: int | None
    above_is_local: bool
    local: list[int]
    remote: list[int]


def place(rank: int, leaders: Sequence[int], *, one_tree: bool = True) -> Place:
    """Where ``rank`` stands.

    Args:
        rank: the rank asked about.
        leaders: the leader of each rank, by rank.
        one_tree: False where nodes cannot reach each other: each leader is a root then.
    """
    leader = leaders[rank]
    if rank != leader:
        return Place(leader, True, [], [])
    local = [other for other, its_leader in enumerate(leaders) if its_leader == rank and other != rank]
    if not one_tree:
        return Place(None, False, local, [])
    order = sorted(set(leaders))
    index = order.index(rank)
    remote = order[index * ARITY + 1 : index * ARITY + 1 + ARITY]
    return Place(None if index == 0 else order[(index - 1) // ARITY], False, local, remote)
