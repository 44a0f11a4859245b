"""How commands travel inside an engine set (no I/O).

The ranks of a node hang on its agent by Unix sockets. A node is named by its *leader*, the lowest rank on it.
Agents form a tree over TCP in which each has up to :data:`ARITY` others below it, so the time to reach N nodes
grows as log N. The agent of rank 0's node is the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ARITY = 8


class TreePosition(NamedTuple):
    """An agent's neighbours, by their leaders: the one above it (None at the top), and those below."""

    above: int | None
    below: list[int]


def place(rank: int, leaders: Sequence[int], *, one_tree: bool = True) -> TreePosition:
    """Where the agent of ``rank`` stands.

    Args:
        rank: any rank of its node.
        leaders: the leader of each rank, by rank.
        one_tree: False where nodes cannot reach each other: each agent is a root then.
    """
    if not one_tree:
        return TreePosition(None, [])
    order = sorted(set(leaders))
    index = order.index(leaders[rank])
    below = order[index * ARITY + 1 : index * ARITY + 1 + ARITY]
    return TreePosition(None if index == 0 else order[(index - 1) // ARITY], below)
