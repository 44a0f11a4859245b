"""The tree of an engine set: every rank is reached exactly once, in few steps."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from ipmpi.engine.tree import ARITY, place


def reach(leaders: Sequence[int], *, root: int = 0, one_tree: bool = True) -> dict[int, int]:
    """Depth of each rank below ``root``; fails if one is reached twice or does not know its way up."""
    depth = {root: 0}
    front = [root]
    while front:
        rank = front.pop()
        here = place(rank, leaders, one_tree=one_tree)
        for below in [*here.local, *here.remote]:
            assert below not in depth, f"rank {below} is reached twice"
            depth[below] = depth[rank] + 1
            there = place(below, leaders, one_tree=one_tree)
            assert there.above == rank
            assert there.above_is_local == (below in here.local)
            if there.local or there.remote:
                front.append(below)
    return depth


LAYOUTS = {
    "alone": [0],
    "one node": [0] * 64,
    "two nodes": [0, 0, 2, 2],
    "round robin": [rank % 7 for rank in range(100)],
    "one rank a node": list(range(600)),
    "uneven": [0, 0, 0, 3, 4, 4, 4, 3, 0, 9],
}


@pytest.mark.parametrize("leaders", LAYOUTS.values(), ids=LAYOUTS)
def test_every_rank_is_reached_once(leaders: list[int]) -> None:
    depth = reach(leaders)
    assert sorted(depth) == list(range(len(leaders)))
    nodes = len(set(leaders))
    assert max(depth.values()) <= 2 + math.log(nodes, ARITY) + 1


def test_ten_thousand_nodes() -> None:
    leaders = range(10_000)
    reached = {0}
    inner = [0]
    depth = {0: 0}
    for rank in inner:
        here = place(rank, leaders)
        assert len(here.remote) <= ARITY
        assert not reached.intersection(here.remote)
        reached.update(here.remote)
        depth.update((below, depth[rank] + 1) for below in here.remote)
        # Ranks from 1,250 on are leaves, which the sample below confirms.
        inner.extend(below for below in here.remote if below <= len(leaders) // ARITY)
    assert reached == set(leaders)
    assert max(depth.values()) == 5
    assert place(0, leaders).above is None
    for rank in random.Random(2).sample(range(1, 10_000), 100):
        here = place(rank, leaders)
        assert here.above is not None
        assert rank in place(here.above, leaders).remote
        assert here.remote == [] or rank <= len(leaders) // ARITY


def test_without_mpi_beside_user_code_each_node_is_a_tree() -> None:
    leaders = [0, 0, 2, 2, 2]
    assert reach(leaders, one_tree=False) == {0: 0, 1: 1}
    assert reach(leaders, root=2, one_tree=False) == {2: 0, 3: 1, 4: 1}
    assert place(2, leaders, one_tree=False).above is None
