"""The tree of an engine set: every node is reached exactly once, in few steps."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from ipmpi.engine.agent.tree import ARITY, place


def reach(leaders: Sequence[int], *, root: int = 0, one_tree: bool = True) -> dict[int, int]:
    """Depth of each node below that of ``root``; fails if one is reached twice or does not know its way up."""
    depth = {root: 0}
    front = [root]
    while front:
        leader = front.pop()
        for below in place(leader, leaders, one_tree=one_tree).below:
            assert below not in depth, f"node {below} is reached twice"
            depth[below] = depth[leader] + 1
            assert place(below, leaders, one_tree=one_tree).above == leader
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
def test_every_node_is_reached_once(leaders: list[int]) -> None:
    depth = reach(leaders)
    assert sorted(depth) == sorted(set(leaders))
    assert max(depth.values()) <= 1 + math.log(len(depth), ARITY)


def test_ten_thousand_nodes() -> None:
    leaders = range(10_000)
    reached = {0}
    inner = [0]
    depth = {0: 0}
    for rank in inner:
        here = place(rank, leaders)
        assert len(here.below) <= ARITY
        assert not reached.intersection(here.below)
        reached.update(here.below)
        depth.update((below, depth[rank] + 1) for below in here.below)
        # Ranks from 1,250 on are leaves, which the sample below confirms.
        inner.extend(below for below in here.below if below <= len(leaders) // ARITY)
    assert reached == set(leaders)
    assert max(depth.values()) == 5
    assert place(0, leaders).above is None
    for rank in random.Random(2).sample(range(1, 10_000), 100):
        here = place(rank, leaders)
        assert here.above is not None
        assert rank in place(here.above, leaders).below
        assert here.below == [] or rank <= len(leaders) // ARITY


def test_without_mpi_beside_user_code_each_agent_is_a_root() -> None:
    leaders = [0, 0, 2, 2, 2]
    for leader in (0, 2):
        assert reach(leaders, root=leader, one_tree=False) == {leader: 0}
        assert place(leader, leaders, one_tree=False).above is None
