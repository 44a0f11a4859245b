"""Large answers are one state of the engine's memory, and a client that does not take them holds nobody up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from small_set import PATIENCE, SmallSet

from ipmpi import limits, serialize
from ipmpi.engine import departures
from ipmpi.protocol import messages as m, operations as o

LARGE = 500_000


@pytest.fixture
def small() -> Iterator[SmallSet]:
    made = SmallSet(2)
    yield made
    made.close()


@pytest.fixture(params=[0, 1], ids=["rank 0", "rank 1"])
def rank(request: pytest.FixtureRequest, small: SmallSet) -> int:
    number: int = request.param
    small.ranks[number].namespace.names["a"] = np.zeros(LARGE)
    return number


def pull(small: SmallSet, number: int, rank: int) -> None:
    small.command(number, [rank], o.Pull(["a"], True))


def change(small: SmallSet, rank: int, times: int = 1) -> int:
    """Have tasks change the array; the group's number."""
    operation = o.encode(o.StringTaskOperation("a += 1", []))
    small._groups += 1
    group = small._groups
    small._given[group] = m.TaskOptions(operation, "change", []), [b""] * times
    small._send(group, range(times), [rank])
    return group


def pulled(small: SmallSet, number: int) -> Any:
    message, body = small.hears_all(m.Result, lambda message: message.id == number)
    assert message.ok
    (array,) = [serialize.loads(body)]
    return array


def is_one_state(array: Any) -> bool:
    return bool((array == array[0]).all())


def test_a_pulled_array_does_not_change_while_tasks_change_it(small: SmallSet, rank: int) -> None:
    for number in range(1, 6):
        small.takes_streams = False
        pull(small, number, rank)
        group = change(small, rank, 20)
        small.takes_streams = True
        small.do(small.take_streams)
        small.results(group, 20)
        array = pulled(small, number)
        assert is_one_state(array)
        assert array[0] <= 20 * number


def test_what_waits_for_the_engine_waits_no_longer_than_a_moment(small: SmallSet, rank: int) -> None:
    small.takes_streams = False
    pull(small, 1, rank)
    group = change(small, rank)
    began = time.monotonic()
    small.command(2, [rank], o.Execute("b = 1"))
    small.hears(m.Result, lambda message: message.id == 2)
    small.results(group, 1)
    assert time.monotonic() - began < limits.ANSWER_HELD + 2.0
    assert (small.ranks[rank].namespace.names["a"] == 1).all()
    small.do(small.take_streams)
    assert (pulled(small, 1) == 0).all()


def test_an_engine_that_nobody_waits_for_copies_nothing(
    small: SmallSet, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANSWER_HELD", 0.0)
    monkeypatch.setattr(limits, "ANSWER_STUCK", 0.0)
    monkeypatch.setattr(departures, "available_bytes", lambda: pytest.fail("it is about to copy"))
    small.takes_streams = False
    pull(small, 1, rank)
    small.command(2, [1 - rank], o.Execute("b = 1"))
    small.hears(m.Result, lambda message: message.id == 2)
    small.do(small.take_streams)
    assert is_one_state(pulled(small, 1))


def test_where_there_is_no_memory_for_a_copy_the_controller_is_told_and_may_refuse(
    small: SmallSet, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departures, "available_bytes", lambda: 0)
    monkeypatch.setattr(limits, "ANSWER_STUCK", 0.3)
    small.takes_streams = False
    pull(small, 1, rank)
    group = change(small, rank)
    stuck = small.hears(m.AnswerStuck)
    assert (stuck.rank, stuck.id) == (rank, 1)
    assert small.hears(m.AnswerStuck) == stuck  # it goes on saying so
    assert (small.ranks[rank].namespace.names["a"] == 0).all()

    def refuse() -> None:
        for stream in small._streams:
            small.controller.connection.refuse(stream)
        small.controller.wake()

    small.do(refuse)
    small.results(group, 1)


def test_large_results_of_tasks_are_copied_too_until_they_are_too_many(
    small: SmallSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departures, "available_bytes", lambda: 3 * 8 * LARGE)
    monkeypatch.setattr(limits, "ANSWER_COPIES", 1.1)  # of which each of two ranks has half
    monkeypatch.setattr(limits, "ANSWER_HELD", 0.05)
    monkeypatch.setattr(limits, "ANSWER_STUCK", 0.2)
    small.takes_streams = False
    options = small.options(lambda: np.ones(LARGE))
    for number in range(1, 3):
        small.give(options, [()], [1])
        small.when(lambda number=number: len(small._streams) == number)  # type: ignore[misc]
        small.command(number, [1], o.Execute("b = 1"))
        small.hears(m.Result, lambda message, number=number: message.id == number)  # type: ignore[misc]
    group = small.give(options, [()], [1])
    small.when(lambda: len(small._streams) == 3)
    small.command(3, [1], o.Execute("b = 1"))
    stuck = small.hears(m.AnswerStuck)
    assert (stuck.rank, stuck.id, stuck.group) == (1, 0, group)
    small.do(small.take_streams)
    for _ in range(3):
        _, body = small.hears_all(m.TaskResult)
        assert (serialize.loads(body) == 1).all()
    small.hears(m.Result, lambda message: message.id == 3)


def test_small_answers_are_taken_before_the_next_task_runs() -> None:
    """Also where the agent thread has no time for them at once."""
    small = SmallSet(1)
    try:
        small.ranks[0].namespace.names["a"] = np.zeros(1000)
        for number in range(1, 30):
            waiting: list[Callable[[], None]] = []
            small.proxies[0].loop.call_now = waiting.append  # type: ignore[method-assign]
            pull(small, number, 0)
            until = time.monotonic() + PATIENCE
            while not waiting:
                assert time.monotonic() < until
            small.ranks[0].namespace.names["a"] += 1
            del small.proxies[0].loop.call_now  # type: ignore[method-assign]
            small.do(waiting[0])
            assert (pulled(small, number) == number - 1).all()
    finally:
        small.close()


def test_an_interrupt_while_the_data_of_a_command_is_on_its_way_hits_that_command(small: SmallSet) -> None:
    for number, rank in enumerate((0, 1, 0, 1), 1):
        segments = serialize.dumps({"x": np.ones(LARGE)})
        sizes = [memoryview(segment).nbytes for segment in segments]
        streams: list[Any] = []

        def announce(number: int = number, rank: int = rank, sizes: list[int] = sizes) -> None:
            message = m.Dispatch(number, [rank], "push", o.encode(o.Push()), sizes)
            streams.append(small.controller.connection.send_streamed(message, sum(sizes)))  # noqa: B023
            small.controller.connection.send(m.InterruptRanks([rank]))
            small.controller.wake()

        small.do(announce)
        small.command(100 + number, [1 - rank], o.Execute("c = 1"))
        small.hears(m.Result, lambda message, number=number: message.id == 100 + number)  # type: ignore[misc]

        def feed(segments: list[Any] = segments, streams: list[Any] = streams) -> None:
            for segment in segments:
                small.controller.connection.feed(streams[0], segment)
            small.controller.wake()

        small.do(feed)
        answer = small.hears(m.Result, lambda message, number=number: message.id == number)  # type: ignore[misc]
        assert not answer.ok
        assert isinstance(failed := o.decode_outcome(answer.outcome), o.Failed)
        assert failed.type_name == "KeyboardInterrupt"
