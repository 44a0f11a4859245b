"""How well ranks are used, with a simulated clock: the figures are exact, whatever machine runs the test."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

from simulated_set import SimulatedSet


def same_node(ranks: int) -> dict[int, int]:
    return dict.fromkeys(range(ranks), 0)


def greedy_bound(durations: Sequence[float], ranks: int) -> float:
    free_at = [0.0] * ranks
    for seconds in durations:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)


def test_uneven_tasks_end_within_three_percent_of_the_greedy_bound() -> None:
    for seed in range(5):
        source = random.Random(seed)
        durations = [source.uniform(0.001, 0.050) for _ in range(1000)]
        world = SimulatedSet(same_node(4), lambda group, index, d=durations: d[index])
        world.submit(1, range(1000))
        world.run()
        assert set(world.ends.values()) == {"done"}
        assert len(world.ends) == 1000
        assert world.ended_at < 1.03 * greedy_bound(durations, 4)


def test_a_hundred_thousand_tasks_of_five_microseconds_keep_ranks_busy_with_few_messages() -> None:
    world = SimulatedSet(same_node(4), lambda group, index: 5e-6)
    world.submit(1, range(100_000))
    world.run()
    assert len(world.ends) == 100_000
    assert world.busy > 0.9 * 4 * world.ended_at
    assert sum(world.messages.values()) < 2000


def test_short_and_long_tasks_in_one_group_leave_no_rank_idle_for_long() -> None:
    source = random.Random(3)
    durations = [1.0 if source.random() < 0.005 else 1e-5 for _ in range(4000)]
    world = SimulatedSet(same_node(4), lambda group, index: durations[index])
    world.submit(1, range(4000))
    world.run()
    assert len(world.ends) == 4000
    assert world.ended_at < greedy_bound(durations, 4) + 1.1  # a long one that comes late takes its second


def test_a_task_of_ten_minutes_holds_up_nothing_that_was_given_behind_it() -> None:
    world = SimulatedSet(same_node(4), lambda group, index: 600.0 if (group, index) == (1, 7000) else 1e-4)
    world.submit(1, range(20_000))
    world.run(until=5.0)
    assert len(world.ends) == 19_999
    assert world.ended_at < 1.2 * 20_000 * 1e-4 / 3 + 0.2
    world.run()
    assert len(world.ends) == 20_000


def test_short_tasks_of_another_group_are_not_held_up_either() -> None:
    world = SimulatedSet(same_node(4), lambda group, index: 600.0 if group == 2 else 1e-3)
    world.submit(1, range(500), operation=b"f")
    world.submit(2, range(1), operation=b"f")
    world.submit(3, range(500), operation=b"f")
    world.run(until=2.0)
    assert len(world.ends) == 1000
    assert world.ended_at < 0.6


def test_long_tasks_are_not_queued_behind_each_other() -> None:
    world = SimulatedSet(same_node(4), lambda group, index: 600.0)
    world.submit(1, range(100))
    world.run(until=3600.0)
    assert all(len(rank.items) == 0 for rank in world.ranks.values())
    assert world.window == 4
    assert world.busy > 0.999 * 4 * 3000


def test_many_small_groups_of_one_function_need_no_measuring_each() -> None:
    world = SimulatedSet(same_node(4), lambda group, index: 2e-5)
    for group in range(500):
        world.submit(group, range(8), operation=b"f")
    world.run()
    assert len(world.ends) == 4000
    assert world.ended_at < 0.06


def test_a_set_of_a_thousand_ranks_is_kept_busy() -> None:
    source = random.Random(1)
    durations = [source.uniform(0.05, 0.15) for _ in range(8000)]
    world = SimulatedSet({rank: rank // 64 * 64 for rank in range(1024)}, lambda group, index: durations[index])
    world.submit(1, range(8000))
    world.run()
    assert world.ended_at < 1.1 * greedy_bound(durations, 1024)


def test_wide_tasks_do_not_starve_beside_a_stream_of_short_ones() -> None:
    world = SimulatedSet(same_node(8), lambda group, index: 0.1 if group == 2 else 0.004)
    world.submit(1, range(20_000))
    world.run(until=1.0)
    world.submit(2, range(3), width=6)
    world.queue.rotate(1)  # it is its turn
    world.run(until=2.5)
    assert [world.ends.get((2, index)) for index in range(3)] == ["done"] * 3
    assert max(world.began_at[2, index] for index in range(3)) < 1.0 + 3 * 0.1 + 0.3


def test_two_wide_tasks_and_serial_ones_run_at_once() -> None:
    world = SimulatedSet(same_node(8), lambda group, index: 0.002, failures=0.1, seed=5)
    for round_ in range(200):
        world.submit(2 * round_, range(2), width=3, operation=b"wide")
        world.submit(2 * round_ + 1, range(8), operation=b"serial")
    world.run()
    assert len(world.ends) == 2000
    assert {how for (group, _), how in world.ends.items() if group % 2} == {"done"}
    # 400 x 3 x 2 ms and 1,600 x 2 ms on 8 ranks would take 0.7 s if no message took any time.
    assert world.ended_at < 1.6


def test_held_ranks_run_what_has_ended_before_they_are_needed() -> None:
    world = SimulatedSet(same_node(4), lambda group, index: {1: 1.0, 2: 0.1, 3: 0.05}[group])
    world.submit(1, [0], expected=1.0)
    world.run(until=0.1)
    world.submit(2, [0], width=4)
    world.submit(3, range(48), expected=0.05)
    world.run()
    assert len(world.ends) == 50
    assert world.began_at[2, 0] < 1.01
    assert world.ended_at < 1.3  # 45 of the short ones fit on three ranks before, the rest comes after
