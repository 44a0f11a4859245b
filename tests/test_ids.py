"""Ids as runs: they are the numbers that they stand for, whatever is done with them."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterable

import msgspec
import pytest

from ipmpi import limits
from ipmpi.ids import NONE, Ids, IdSet, clipped, consecutive, shifted
from ipmpi.protocol import messages as m

SOME = [
    [], [0], [7], [0, 1, 2, 3], [3, 1, 2], [5, 4, 3], [0, 2, 4, 6], [1, 2, 3, 9, 10], [4, 4, 4], [0, 1, 1, 2],
    [0, 3, 6, 9, 11], [1, 3, 5, 7, 9],
]  # fmt: skip


@pytest.mark.parametrize("numbers", SOME, ids=str)
def test_they_are_the_numbers_in_their_order(numbers: list[int]) -> None:
    ids = Ids.of(numbers)
    assert ids == numbers
    assert numbers == ids
    assert (list(ids), len(ids), repr(ids), bool(ids)) == (numbers, len(numbers), repr(numbers), bool(numbers))
    assert [ids[at] for at in range(-len(numbers), len(numbers))] == numbers * 2
    assert ids[1:3] == numbers[1:3]
    assert all((number in ids) == (number in numbers) for number in range(12))
    assert ids.ascending() == sorted(set(numbers))
    assert Ids.of(ids) is ids
    assert Ids.of(IdSet(numbers)) == sorted(set(numbers))
    assert ids != [*numbers, 99]
    assert hash(ids) == hash(Ids.of(iter(numbers)))
    with pytest.raises(IndexError):
        _ = ids[len(numbers)]


def test_what_is_at_equal_distances_is_one_run() -> None:
    seconds = range(0, 65_536, 2)
    assert Ids.of(seconds).runs == Ids.of(list(seconds)).runs == Ids.of(IdSet(seconds)).runs == (seconds,)
    assert Ids.of([*range(0, 200, 2), 490, *range(501, 1000, 3)]).runs == (
        *(range(0, 200, 2), range(490, 491), range(501, 1000, 3)),
    )
    assert Ids((range(1, 100, 2), range(0, 100, 2))).ascending().runs == (range(100),)
    assert Ids((range(0, 100, 4), range(2, 100, 4))).ascending().runs == (range(0, 100, 2),)
    assert Ids((range(0, 100, 4), range(1, 100, 4))).ascending() == sorted([*range(0, 100, 4), *range(1, 100, 4)])
    one_by_one = IdSet()
    for number in seconds[:300]:
        one_by_one.add([number])
    assert one_by_one.ids().runs == (seconds[:300],)


@pytest.mark.parametrize("seed", range(20))
def test_runs_with_steps_in_ascending_order(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        runs = []
        for _ in range(chance.randrange(2, 9)):
            first, step = chance.randrange(50), chance.choice([1, 1, 2, 2, 3, 4, 4, 6, 8])
            runs.append(range(first, first + step * chance.randrange(1, 60), step))
        assert Ids(runs).ascending() == sorted({number for run in runs for number in run})


def test_all_but_one_of_each_node_take_as_much_as_there_are_nodes() -> None:
    """They are a run with steps for each of the other ranks of a node, and then one run for each node."""
    ranks = [range(rank, 65_536, 64) for rank in range(1, 64)]
    tracemalloc.start()
    try:
        ids = Ids(ranks).ascending()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert ids.runs == tuple(range(64 * node + 1, 64 * node + 64) for node in range(1024))
    assert most < 1_000_000, "they were sorted one by one"
    some = Ids((range(0, 128, 4), range(200, 300, 2), range(201, 300, 2), range(2, 128, 4)))
    assert some.ascending().runs == (range(0, 127, 2), range(200, 300))


def test_steps_that_have_nothing_in_common_cost_nothing_more() -> None:
    """A peer may send as many as it likes: their least common multiple has a million digits."""
    chance = random.Random(1)
    firsts = [chance.randrange(2**31) for _ in range(30_000)]
    runs = [range(first, first + 2 * step, step) for first in firsts for step in [chance.randrange(1, 2**31)]]
    data = Ids(runs).packed()
    before = time.process_time()
    assert Ids.unpacked(data).ascending() == sorted({number for run in runs for number in run})
    assert time.process_time() - before < 2.0


def test_parts_of_a_run() -> None:
    run = range(3, 30, 4)
    for low in range(35):
        for high in range(low, 35):
            assert list(clipped(run, low, high)) == [each for each in run if low <= each < high]
    assert shifted(run, 5) == range(8, 35, 4)
    assert list(consecutive([range(3), range(10, 20, 5)])) == [range(3), range(10, 11), range(15, 16)]


def test_what_follows_each_other_is_one_run() -> None:
    assert Ids.of(range(65_536)).runs == Ids.of(list(range(65_536))).runs == (range(65_536),)
    assert Ids.of(range(0)) is NONE
    assert Ids((range(3, 6), range(3))).ascending().runs == (range(6),)
    assert Ids.of(range(9, 0, -3)) == [9, 6, 3]


@pytest.mark.parametrize(
    "numbers",
    [*SOME, [limits.ENGINE_ID], [-1], [1, 2**40], [-2, -1, 0, 1], range(65_536), range(0, 9_999, 3)],
    ids=len,
)
def test_they_arrive_as_they_were_sent(numbers: Iterable[int]) -> None:
    message = m.StopRanks(Ids.of(numbers))
    arrived = m.decode(m.encode(message))
    assert arrived == message
    assert isinstance(arrived, m.StopRanks)
    assert isinstance(arrived.ranks, Ids)
    assert m.decode(m.encode(m.StopRanks(list(numbers)))) == message, "a list is as good"
    assert m.decode(m.encode(m.Reply(1, message.ranks))) != message
    answer = m.decode(m.encode(m.Reply(1, message.ranks)))
    assert isinstance(answer, m.Reply)
    assert Ids.unpacked(answer.value) == list(numbers)


def test_all_engines_take_no_more_room_than_two() -> None:
    sizes = {len(m.encode(m.StopRanks(Ids.of(range(count))))) for count in (2, 64, 4096, 65_536)}
    assert len(sizes) == 1
    assert sizes.pop() < 20
    stepped = {len(m.encode(m.StopRanks(Ids.of(range(1, count, 3))))) for count in (64, 4096, 65_536)}
    assert len(stepped) == 1
    assert stepped.pop() < 25
    chance = random.Random(1)
    scattered = Ids.of(sorted(chance.sample(range(4 * limits.MAX_ENGINES), limits.MAX_ENGINES)))
    assert len(m.encode(m.StopRanks(scattered))) < 5 * limits.MAX_ENGINES + 20


@pytest.mark.parametrize(
    "wire",
    [
        [1.5],
        [True],
        ["0"],
        [None],
        b"abc",
        b"\0\0\0\0\0\0\0\0",
        b"\0\0\0\0\1\0\1\0",
        b"\0\0\0\0\xff\xff\xff\xff" * 9,
        b"\1" + struct.pack("<III", 0, 5, 0),
        b"\1" + struct.pack("<III", 0, 0, 5),
        b"\2" + struct.pack("<III", 0, 5, 2),
        b"\1" + struct.pack("<IIII", 0, 5, 2, 0),
        b"\1" + struct.pack("<III", 0, 65_537, 2),
        b"\1" + struct.pack("<III", 0, 30_000, 2) * 3,
        list(range(limits.MAX_ENGINES + 1)),
        3,
        "03",
        {"0": 1},
    ],
    ids=lambda wire: repr(wire)[:40],
)
def test_what_no_peer_of_ours_sends_is_refused_and_takes_no_memory(wire: object) -> None:
    with pytest.raises(msgspec.DecodeError):
        m.decode(msgspec.msgpack.encode([43, wire]))
    with pytest.raises(ValueError, match="ids"):
        Ids.unpacked(wire)


def chosen(chance: random.Random) -> Iterable[int]:
    if chance.random() < 0.5:
        return [chance.randrange(30) for _ in range(chance.randrange(1, 6))]
    first, step = chance.randrange(30), chance.choice([1, 1, 1, 2, 2, 3, 4])
    return range(first, min(40, first + step * chance.randrange(12)), step)


@pytest.mark.parametrize("many", [0, 256], ids=["in-one-pass", "run-by-run"])
@pytest.mark.parametrize("seed", range(30))
def test_a_set_of_ids_does_what_a_set_does(seed: int, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipmpi.ids._MANY", many)
    chance, model, ids = random.Random(seed), set[int](), IdSet()
    for _ in range(100):
        numbers = chosen(chance)
        do: tuple[Callable[[Iterable[int]], object], Callable[[Iterable[int]], object]] = (
            (model.update, ids.add) if chance.random() < 0.5 else (model.difference_update, ids.remove)
        )
        for each in do:
            each(numbers)
        assert (list(ids), len(ids), list(ids.ids())) == (sorted(model), len(model), sorted(model))
        assert all(
            before.stop < after.start for before, after in zip(ids.ids().runs, ids.ids().runs[1:], strict=False)
        )
        assert list(ids.common(numbers)) == sorted(model & set(numbers))
        assert all((number in ids) == (number in model) for number in range(40))


@pytest.mark.parametrize("order", ["nodes", "evens-first"])
def test_some_steps_more_cost_as_much_as_there_are_of_them(order: str) -> None:
    """Even and odd ranks of each node have answered alike: no answer may cost as much as all before it."""
    parts = [range(start + odd, start + 64, 2) for start in range(0, 65_536, 64) for odd in (0, 1)]
    if order == "evens-first":
        parts.sort(key=lambda part: (part.start % 2, part.start))
    there = IdSet()
    most = 0
    for number, part in enumerate(parts):
        if number % 64 == 63:
            tracemalloc.start()
        there.add(Ids.of(part))
        if tracemalloc.is_tracing():
            most = max(most, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert there.ids().runs == (range(65_536),)
    assert most < 20_000, "it was made anew"
