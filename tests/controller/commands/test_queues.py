"""Queues that engines share: each engine has the commands that it would have by itself."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from ipmpi.controller.commands.commandqueue import begin, join
from ipmpi.controller.commands.queuedcommand import QueuedCommand
from ipmpi.controller.commands.queues import Queues, first_idle
from ipmpi.errors import EngineBusy
from ipmpi.ids import Ids, IdSet, consecutive

MOST = 240


def command(number: int) -> QueuedCommand:
    return QueuedCommand(number, 1, number, "execute", f"command {number}", b"", [])


def chosen(chance: random.Random, most: int) -> Ids:
    """Engines, most often with a pattern."""
    kind = chance.randrange(6)
    if kind == 0:
        return Ids.of(chance.sample(range(most), chance.randrange(1, 9)))
    step = chance.choice([1, 1, 2, 2, 3, 4, 6, 200])
    first = chance.randrange(most)
    if kind == 4:  # all but some of each node
        rests = chance.sample(range(step), chance.randrange(1, step + 1))
        return Ids.of([number for number in range(first, most) if number % step in rests])
    if kind == 5:  # one by one
        return Ids(range(number, number + 1) for number in range(first, min(most, first + 20)))
    found = Ids((range(first, min(most, first + step * chance.randrange(1, most)), step),))
    if kind == 3:  # without some, so that there are several runs
        less = IdSet(found)
        less.remove(chance.sample(range(most), 2))
        return less.ids()
    return found


class Model:
    """A list of commands for each engine: the first one runs, or is to."""

    def __init__(self) -> None:
        self.queues = Queues()
        self.lists: dict[int, list[QueuedCommand]] = {}
        self.running: dict[int, QueuedCommand | None] = {}
        self.there: set[int] = set()

    def known(self, ids: Ids) -> Ids:
        there = IdSet(sorted(self.there))
        return there.common(ids)

    def there_in_runs(self) -> list[range]:
        """Consecutive engines that are registered."""
        return list(consecutive(IdSet(sorted(self.there)).ids().runs))

    def join(self, ids: Ids, work: QueuedCommand) -> None:
        queues = self.queues.each(ids)
        assert sorted(e for queue in queues for e in queue.engines) == sorted(ids)
        for queue in queues:
            join(queue, work)
        begun = begin(queues)
        assert set(begun) <= {*[work], *(w for e in ids for w in self.lists[e])}
        for engine in ids:
            self.lists[engine].append(work)
            if self.running[engine] is None:
                self.running[engine] = self.lists[engine].pop(0)

    def end(self, ids: Ids) -> None:
        queues = self.queues.each(ids)
        for queue in queues:
            queue.running = None
        begin(queues)
        for engine in ids:
            self.running[engine] = self.lists[engine].pop(0) if self.lists[engine] else None

    def add(self, ids: Ids) -> None:
        new = [each for each in sorted(ids) if each not in self.there]
        self.queues.add(new)
        self.there.update(new)
        self.lists.update((each, []) for each in new)
        self.running.update(dict.fromkeys(new))

    def remove(self, ids: Ids) -> None:
        self.queues.remove(ids)
        self.there -= set(ids)
        for engine in ids:
            del self.lists[engine], self.running[engine]

    def check(self, ids: Ids) -> None:
        assert list(self.queues) == sorted(self.there)
        for engine in self.there:
            queue = self.queues.look(engine)
            assert engine in queue.engines
            assert (queue.running, queue.waiting) == (self.running[engine], self.lists[engine])
        parts = list(self.queues.parts(ids))
        assert sorted(each for part, _ in parts for each in part) == sorted(self.there & set(ids))
        assert all(queue is self.queues.look(each) for part, queue in parts for each in part)
        busy = self.queues.those(ids, lambda queue: queue.is_busy)
        assert sorted(busy) == sorted(each for each in self.there & set(ids) if self.running[each])
        idle = [each for each in ids if each in self.there and not self.running[each]]
        if idle:
            assert first_idle(self.queues, ids) == idle[:1]
        else:
            with pytest.raises(EngineBusy):
                first_idle(self.queues, ids)


@pytest.mark.parametrize("few", [2, 64], ids=["lanes", "hardly-any-lanes"])
@pytest.mark.parametrize("seed", range(20))
def test_engines_have_what_they_would_have_by_themselves(
    seed: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipmpi.controller.commands.queues._SERIES", few)
    chance, model = random.Random(seed), Model()
    model.add(Ids.of(range(MOST)))
    divided = 0
    acts: list[Callable[[Ids, int], object]] = [
        *[lambda ids, number: model.join(model.known(ids), command(number))] * 3,
        *[lambda ids, number: model.end(model.known(ids))] * 3,
        *[lambda ids, number: model.add(Ids.of(range(MOST)))] * 2,
        lambda ids, number: model.remove(model.known(ids)),
        *[lambda ids, number: model.end(model.known(Ids.of(range(MOST))))] * 4,
    ]
    for number in range(180):
        act = chance.choice(acts)
        act(chosen(chance, MOST), number)
        divided += len(model.queues._lanes) > 1
        model.check(chosen(chance, MOST))
        if chance.random() < 0.7:
            model.queues.merge()
            model.check(chosen(chance, MOST))
    assert few > 2 or divided > 20
    while any(model.running.values()):
        model.end(model.known(Ids.of(range(MOST))))
    model.queues.merge()
    assert list(model.queues.parts(range(MOST))) == [
        (run, model.queues.look(run[0])) for run in model.there_in_runs()
    ]


def test_every_second_engine_has_one_queue_with_the_others_of_them() -> None:
    queues, work = Queues(), command(1)
    queues.add(range(1000))
    (seconds,) = queues.each(range(0, 1000, 2))
    seconds.running = work
    assert [part for part, _ in queues.parts(range(1, 1000, 2))] == [range(1, 1000, 2)]
    assert queues.those(range(1000), lambda queue: not queue.is_busy).runs == (range(1, 1000, 2),)
    (sixths,) = queues.each(range(0, 1000, 6))
    assert sixths.running is work
    assert len(list(queues.parts(range(1000)))) == 6
    for queue in queues.each(range(0, 1000, 2)):
        queue.running = None
    queues.merge()
    assert [part for part, _ in queues.parts(range(1000))] == [range(1000)]


def test_a_pattern_with_too_many_remainders_gives_engines_queues_of_their_own() -> None:
    queues = Queues()
    queues.add(range(20_000))
    assert len(queues.each(range(0, 20_000, 199))) == 101
    assert len(list(queues.parts(range(20_000)))) == 202
    queues.merge()
    assert len(list(queues.parts(range(20_000)))) == 1


def test_all_but_one_of_each_node_have_few_queues_beside_those() -> None:
    """As where one engine of each node watches something for hours, and the others get commands."""
    queues, nodes = Queues(), 64
    queues.add(range(64 * nodes))
    (watching,) = queues.each(range(0, 64 * nodes, 64))
    watching.running = command(1)
    others = queues.those(range(64 * nodes), lambda queue: not queue.is_busy)
    assert others.runs == tuple(range(64 * node + 1, 64 * node + 64) for node in range(nodes))
    assert len(queues.each(others)) == 63
    assert len(list(queues.parts(others))) == 63
