"""Large answers are one state of the engine's memory, and a client that does not take them holds nobody up."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from small_set import SmallSet

from ipmpi import limits, serialize
from ipmpi.engine.agent import largestreams
from ipmpi.engine.rank import largeanswers
from ipmpi.protocol import messages as m, operations as o
from ipmpi.transport.segmentpool import SegmentPool

LARGE = 500_000
WIDE = 4_000_000
"""Elements of an array of which a rank copies only a part where memory is short."""


@pytest.fixture(params=[True, False], ids=["one node", "a node each"])
def small(request: pytest.FixtureRequest) -> Iterator[SmallSet]:
    made = SmallSet(2, one_node=request.param)
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


def test_a_client_that_does_not_take_its_answer_holds_nobody_up(small: SmallSet, rank: int) -> None:
    small.takes_streams = False
    pull(small, 1, rank)
    group = change(small, rank)
    small.command(2, [rank], o.Execute("b = 1"))
    small.hears(m.Result, lambda message: message.id == 2)
    small.results(group, 1)
    assert (small.ranks[rank].namespace.names["a"] == 1).all()
    small.do(small.take_streams)
    assert (pulled(small, 1) == 0).all()


def test_where_there_is_no_memory_for_a_copy_the_controller_is_told_and_may_refuse(
    small: SmallSet, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(largeanswers, "available_bytes", lambda: 0)
    monkeypatch.setattr(limits, "ANSWER_STUCK", 0.3)
    small.ranks[rank].namespace.names["a"] = np.zeros(WIDE)
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
    assert (small.ranks[rank].namespace.names["a"] == 1).all()


def test_copies_fit_into_the_address_space_of_the_agent(
    small: SmallSet, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the limit of its ranks (``ulimit -v``), and maps what it sends."""
    large = largeanswers.LargeAnswers(small.ranks[rank]._socket, lambda: False, neighbours=4)
    monkeypatch.setattr(largeanswers, "address_space", lambda: 320 * limits.MIB)
    limited = largeanswers.LargeAnswers(small.ranks[rank]._socket, lambda: False, neighbours=4)
    monkeypatch.setattr(largeanswers, "available_bytes", lambda: 1 << 40)
    for answers, copied in ((large, 60), (limited, 20)):
        monkeypatch.setattr(answers, "_send", lambda piece: None)
        answers.send([bytes(60 * limits.MIB)])  # returns when it would have to wait
        assert answers._copied == copied * limits.MIB


def test_the_ranks_of_a_node_share_what_may_be_kept(small: SmallSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(largeanswers, "available_bytes", lambda: 16 << 30)
    for neighbours, share in ((1, 1 << 30), (4, 1 << 28), (64, 1 << 24)):
        large = largeanswers.LargeAnswers(small.ranks[0]._socket, lambda: False, neighbours)
        assert large._may_keep() == share
    monkeypatch.setattr(largeanswers, "available_bytes", lambda: 1 << 60)
    assert large._may_keep() == limits.POOL_BYTES


def test_an_answer_of_more_than_fits_is_one_state_and_costs_few_copies(
    small: SmallSet, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(largeanswers, "available_bytes", lambda: 0)
    copied: list[int] = []
    copy = SegmentPool.file_with

    def noted(pool: SegmentPool, data: Any, size: int, now: float) -> int:
        copied.append(small.ranks[rank]._large._copied)
        return copy(pool, data, size, now)

    monkeypatch.setattr(SegmentPool, "file_with", noted)
    small.ranks[rank].namespace.names["a"] = np.zeros(WIDE)
    for number in range(1, 4):
        pull(small, number, rank)
        group = change(small, rank, 3)
        assert is_one_state(pulled(small, number))
        small.results(group, 3)
    assert len(copied) == 3 * math.ceil(8 * WIDE / largeanswers.PIECE)
    assert max(copied) <= 4 * largeanswers.PIECE
    small.when(lambda: not small.ranks[rank]._large._copied)  # all of it was given back


def test_an_engine_that_nobody_waits_for_may_wait_for_its_client(
    small: SmallSet, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(largeanswers, "available_bytes", lambda: 0)
    monkeypatch.setattr(largestreams, "_LOOK", 0.02)
    monkeypatch.setattr(limits, "ANSWER_STUCK", 0.0)
    small.ranks[rank].namespace.names["a"] = np.zeros(WIDE)
    small.takes_streams = False
    pull(small, 1, rank)
    small.when(lambda: bool(small._streams))
    looks: list[None] = []
    large = small.local[rank]._large
    assert large is not None
    is_wanted = large._is_wanted
    monkeypatch.setattr(large, "_is_wanted", lambda: (looks.append(None), is_wanted())[1])
    small.when(lambda: len(looks) > 3)
    small.do(small.take_streams)
    assert is_one_state(pulled(small, 1))
    assert not [message for message, _ in small.back if isinstance(message, m.AnswerStuck)]


def test_where_no_file_in_memory_can_be_made_the_answer_comes_through_the_socket(
    small: SmallSet, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SegmentPool, "file_with", none)
    small.ranks[rank].namespace.names["a"] = np.arange(WIDE)
    pull(small, 1, rank)
    assert (pulled(small, 1) == np.arange(WIDE)).all()


def test_large_results_of_tasks_are_copied_too_until_they_are_too_many(
    small: SmallSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 8 * WIDE
    monkeypatch.setattr(limits, "ANSWER_COPIES", 1.0)
    monkeypatch.setattr(
        largeanswers, "available_bytes", lambda: 2 * size + 1_000_000 - small.ranks[1]._large._copied
    )
    monkeypatch.setattr(limits, "ANSWER_STUCK", 0.2)
    small.takes_streams = False
    options = small.options(lambda: np.ones(WIDE))
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
        _, body = small.hears_all(m.LargeTaskResult)
        assert (serialize.loads(body) == 1).all()
    small.hears(m.Result, lambda message: message.id == 3)


def test_no_open_files_are_left(small: SmallSet, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipmpi.limits.POOL_BYTES", 0)  # those that are used again come and go

    def once(number: int) -> None:
        pull(small, number, rank)
        pulled(small, number)
        small.command(100 + number, [rank], o.Push(), {"b": np.ones(LARGE)})
        small.hears(m.Result, lambda message: message.id == 100 + number)
        small.when(lambda: not small.ranks[rank]._large._copied)

    once(1)
    gc.collect()  # what other tests have left
    before = len(os.listdir("/proc/self/fd"))
    for number in range(2, 8):
        once(number)
    assert len(os.listdir("/proc/self/fd")) == before


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


def test_an_answer_whose_last_piece_cannot_be_mapped_is_broken_off() -> None:
    """Nobody goes on waiting for it."""
    aborted: list[object] = []

    class Above:
        connection: Any

        def wake(self) -> None:
            pass

    above = Above()
    above.connection = above
    vars(above).update(send_streamed=lambda *_: "stream", feed=lambda *_: None, abort=aborted.append)
    answer: Any = largestreams.LargeAnswer(None, [8], lambda size: None, lambda: False)  # type: ignore[arg-type]
    answer._loop = type("L", (), {"call_later": lambda *_: type("T", (), {"cancel": lambda _: None})()})()
    answer.begin(above, m.LargeTaskResult(1, 0, 0, 0.0, [8]), lambda message: None)
    with pytest.raises(OSError, match="no descriptor"):
        answer.add(8, None, -1)
    answer.break_off()
    assert aborted == ["stream"]
