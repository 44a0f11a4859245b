"""S23 for the farm: an engine that lies about tasks harms itself at most, and loses nothing of others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ipmpi.protocol import messages as m
from ipmpi.protocol.packed import pack, unpack
from tests.security.cluster import Controller, wait_until
from tests.security.farm import (
    KEY,
    clients,
    do,
    leave,
    options,
    other_is_served,
    submit,
)
from tests.security.wire import Member, register

Lie = Callable[[m.GiveTasks, m.GiveTasks], tuple[m.AnyMessage, bytes]]


def results(
    group: int, rank: int, indices: bytes, failed: bytes, payloads: Sequence[int], busy: float = 0.0
) -> Any:
    """Results whose lengths are told."""
    size = sum(payloads)
    sizes = [size] if size else []
    return m.TaskResults(group, rank, indices, failed, pack(payloads), busy, sizes), b"L" * size


LIES: dict[str, Lie] = {
    "a group of nobody": lambda mine, others: results(mine.group + 1000, 0, pack([0]), b"", [1]),
    "group -1": lambda mine, others: results(-1, 0, pack([0]), b"", [1]),
    "tasks of another engine": lambda mine, others: results(others.group, 0, others.indices, b"", [1, 1]),
    "its own tasks and those of another engine": lambda mine, others: results(
        mine.group, 0, mine.indices + others.indices, b"", [1] * 4
    ),
    "task 77 of 4": lambda mine, others: results(mine.group, 0, pack([77]), b"", [1]),
    "task 2^32 - 1 of 4": lambda mine, others: results(mine.group, 0, pack([2**32 - 1]), b"", [1]),
    "one task twice": lambda mine, others: results(mine.group, 0, mine.indices[:4] * 2, b"", [1, 1]),
    "no task": lambda mine, others: results(mine.group, 0, b"", b"", []),
    "numbers of 5 bytes": lambda mine, others: results(mine.group, 0, bytes(5), b"", [1]),
    "failures of 5 bytes": lambda mine, others: results(mine.group, 0, mine.indices, bytes(5), [1, 1]),
    "a failure at position 9 of 2": lambda mine, others: results(mine.group, 0, mine.indices, pack([9]), [1, 1]),
    "more failures than tasks": lambda mine, others: results(
        mine.group, 0, mine.indices, pack([0, 1, 0, 1, 0]), [1, 1]
    ),
    "fewer lengths than tasks": lambda mine, others: results(mine.group, 0, mine.indices, b"", [1]),
    "more lengths than tasks": lambda mine, others: results(mine.group, 0, mine.indices, b"", [1] * 3),
    "lengths of more than the body": lambda mine, others: (
        m.TaskResults(mine.group, 0, mine.indices, b"", pack([1, 9]), 0.0, [2]),
        b"LL",
    ),
    "lengths of 5 bytes": lambda mine, others: (
        m.TaskResults(mine.group, 0, mine.indices, b"", bytes(5), 0.0),
        b"",
    ),
    "rank 5 of 1": lambda mine, others: results(mine.group, 5, mine.indices, b"", [1, 1]),
    "rank -1": lambda mine, others: results(mine.group, -1, mine.indices, b"", [1, 1]),
    "seconds that are no number": lambda mine, others: results(
        mine.group, 0, mine.indices, b"", [1, 1], busy=math.nan
    ),
    "minus a billion seconds": lambda mine, others: results(mine.group, 0, mine.indices, b"", [1, 1], busy=-1e9),
    "a large result of a task of another engine": lambda mine, others: (
        m.LargeTaskResult(others.group, unpack(others.indices)[0], 0, 0.0, [3]),
        b"LLL",
    ),
    "a large result of task -1": lambda mine, others: (m.LargeTaskResult(mine.group, -1, 0, 0.0, [3]), b"LLL"),
    "a large result of task -2^63": lambda mine, others: (
        m.LargeTaskResult(mine.group, -(1 << 63), 0, 0.0, [3]),
        b"LLL",
    ),
    "the body of task -2^63": lambda mine, others: (m.WantTaskBody(mine.group, -(1 << 63), [0]), b""),
    "a large result of nothing": lambda mine, others: (m.LargeTaskResult(mine.group, 0, 0, 0.0, []), b""),
    "a large result inside its message": lambda mine, others: (
        m.LargeTaskResult(mine.group, 0, 0, 0.0, [3]),
        b"LLL",
    ),
    "tasks of another engine returned": lambda mine, others: (
        m.TasksReturned(others.group, others.indices, 0, "taken"),
        b"",
    ),
    "tasks of another engine cancelled": lambda mine, others: (
        m.TasksReturned(others.group, others.indices, 0, "cancelled"),
        b"",
    ),
    "tasks of another engine rejected": lambda mine, others: (
        m.TasksReturned(others.group, others.indices, 0, "rejected", "no"),
        b"",
    ),
    "tasks of another engine lost": lambda mine, others: (
        m.TasksReturned(others.group, others.indices, 0, "lost"),
        b"",
    ),
    "a task cancelled that nobody wants cancelled": lambda mine, others: (
        m.TasksReturned(mine.group, mine.indices, 0, "cancelled"),
        b"",
    ),
    "a small task whose body did not come": lambda mine, others: (
        m.TasksReturned(mine.group, mine.indices, 0, "broken"),
        b"",
    ),
    "tasks refused that have no condition": lambda mine, others: (
        m.TasksReturned(mine.group, mine.indices, 0, "refused"),
        b"",
    ),
    "tasks returned for a reason that there is not": lambda mine, others: (
        m.TasksReturned(mine.group, mine.indices, 0, "bored"),
        b"",
    ),
    "tasks returned by rank 2^40": lambda mine, others: (
        m.TasksReturned(mine.group, mine.indices, 1 << 40, "taken"),
        b"",
    ),
    "task 77 returned": lambda mine, others: (m.TasksReturned(mine.group, pack([77]), 0, "taken"), b""),
    "a window of minus one": lambda mine, others: (m.WantTasks(-1), b""),
    "a window of 2^63 - 1": lambda mine, others: (m.WantTasks((1 << 63) - 1), b""),
    "the body of a small task": lambda mine, others: (m.WantTaskBody(mine.group, 0, [0]), b""),
    "the body of a task of nobody": lambda mine, others: (m.WantTaskBody(1, 0, [0, 0, -1, 1 << 40]), b""),
    "new properties of rank 2^40": lambda mine, others: (m.PropertiesChanged([-1, 1 << 40]), b""),
}


@pytest.mark.parametrize("case", LIES)
def test_an_engine_that_lies_about_tasks_loses_nothing_of_others(
    controller: Controller, registered: tuple[Member, int], client: Member, case: str
) -> None:
    """Its own tasks end as it says, or are run by somebody else; those of others end once, and where they ran."""
    engine, honest = registered
    submit(client, 1, [b"x"] * 4)
    liar, number = register(controller.furl("engine"), host="liar")
    with liar:
        liar.say(m.WantTasks(2))
        mine = liar.hear(m.GiveTasks)
        engine.say(m.WantTasks(2))
        others = engine.hear(m.GiveTasks)
        message, body = LIES[case](mine, others)
        liar.say(message, body=[body] if body else [])
        if not liar.is_ended():
            leave(liar)
    do(engine, others)
    ended: dict[int, int] = {}
    while len(ended) < 4:
        # What the liar had and has not answered comes here.
        for given in [each for each in engine._arrived if isinstance(each, m.GiveTasks)]:
            do(engine, given)
        engine._arrived.clear()
        ends_into(ended, client)
        engine.ping()
    ends_into(ended, client)
    assert sorted(ended) == [0, 1, 2, 3]
    assert {ended[index] for index in unpack(others.indices)} == {honest}
    assert {ended[index] for index in unpack(mine.indices)} <= {honest, number, -1}


def ends_into(ended: dict[int, int], client: Member) -> None:
    """Note on which engine tasks have ended, as the client hears it; -1: on none."""
    client.ping()
    for message in client._arrived:
        engine = getattr(message, "engine", -1)
        if isinstance(message, m.TasksDone | m.TasksUndone):
            indices = unpack(message.indices).tolist()
        else:
            indices = [message.index] if isinstance(message, m.TaskDone) else []
        assert not set(indices) & set(ended), "told twice"
        ended.update(dict.fromkeys(indices, engine))
    client._arrived.clear()


STREAMS: dict[str, tuple[str, m.AnyMessage]] = {
    "a function": ("tc", m.DefineFunction(KEY, 0, 200_000, [200_000])),
    "a group with lengths": ("tc", m.SubmitTasks(1, options(), pack([200_000]), [200_000])),
    "results": ("engine", m.TaskResults(1, 0, pack([0]), b"", pack([200_000]), 0.0, [200_000])),
    "a large result of nobody's task": ("engine", m.LargeTaskResult(1, 0, 0, 0.0, [200_000])),
}


@pytest.mark.parametrize("case", STREAMS)
def test_streams_that_nobody_asked_for_are_not_taken(
    controller: Controller, engine: Member, other: Member, case: str
) -> None:
    """They are refused, or end their link; in no case does their sender get credit to send them."""
    role, message = STREAMS[case]
    with Member(controller.furl(role)) as peer:
        stream = peer.connection.send_streamed(message, 200_000)
        peer.send(b"".join(bytes(b) for b in peer.connection.data_to_send()))
        peer.is_ended()
        assert not stream.credit
        leave(peer)
    other_is_served(engine, other)


def test_large_tasks_that_no_engine_waits_for_get_no_credit(
    controller: Controller, engine: Member, other: Member
) -> None:
    with Member(controller.furl("tc")) as client:
        streams = [
            client.connection.send_streamed(m.SubmitTasks(group, options(), b"", [1 << 30]), 1 << 30)
            for group in range(1, 50)
        ]
        client.send(b"".join(bytes(b) for b in client.connection.data_to_send(1 << 20)))
        assert not client.is_ended()
        assert not any(stream.credit for stream in streams)
        leave(client)
    wait_until(lambda: clients(other) == ["tc"], "the end of the client's session")
    other_is_served(engine, other)
