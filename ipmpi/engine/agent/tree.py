"""The tree of agents of an engine set (no I/O).

The ranks of a node are connected to its agent by Unix sockets. A node is identified by its *leader*, the lowest
rank on it. Agents form a tree over TCP in which each has up to :data:`ARITY` others below it, so the time to reach
N nodes grows as log N. The agent of rank 0's node is the root.
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
    """Return the position of the agent of ``rank`` in the tree.

    Args:
        rank: any rank of its node.
        leaders: the leader of each rank, by rank.
        one_tree: False if nodes cannot reach each other: then each agent is a root.
    """
    if not one_tree:
        return TreePosition(None, [])
    order = sorted(set(leaders))
    index = order.index(leaders[rank])
    below = order[index * ARITY + 1 : index * ARITY + 1 + ARITY]
    return TreePosition(None if index == 0 else order[(index - 1) // ARITY], below)
