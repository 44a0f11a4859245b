"""Clients and engines made by hand that speak about tasks, as a test wants them to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from ipmpi.ids import Ids
from ipmpi.protocol import messages as m
from ipmpi.protocol.packed import pack, unpack
from ipmpi.tls import TlsClosed, TlsError
from tests.security.wire import Member

FUNCTION = b"a pickled function, as far as the controller can tell"


def key_of(function: bytes) -> bytes:
    return blake2b(function, digest_size=16).digest()


KEY = key_of(FUNCTION)


def options(*functions: bytes, **more: Any) -> m.TaskOptions:
    return m.TaskOptions(b"operation", "task", list(functions), **more)


def define(member: Member, function: bytes = FUNCTION) -> None:
    member.say(m.DefineFunction(key_of(function), 0, len(function), [len(function)]), body=[function])


def submit(member: Member, group: int, payloads: Sequence[bytes], *functions: bytes, **more: Any) -> None:
    body = b"".join(payloads)
    lengths = pack(len(payload) for payload in payloads)
    member.say(m.SubmitTasks(group, options(*functions, **more), lengths, [len(body)]), body=[body])


def answer(member: Member, number: int) -> m.Reply | m.Refused:
    """What the controller says to a request; EOFError if it ends the link instead."""
    while True:
        message = member.hear(m.Message)
        if isinstance(message, m.Reply | m.Refused) and message.id == number:
            return message


def is_turned_away(member: Member, number: int) -> bool:
    """Whether a request was refused with a sentence, or ended the link."""
    member.say(m.TaskStatus(1 << 40))
    try:
        while True:
            message = member.hear(m.Message)
            if isinstance(message, m.Refused) and message.id == number:
                assert len(message.text) > 20
                return True
            if isinstance(message, m.Reply):
                return False
    except EOFError:
        return True


def do(engine: Member, given: m.GiveTasks) -> None:
    """Be an engine that has run what it was given."""
    count = len(unpack(given.indices))
    lengths = pack([1] * count)
    engine.say(m.TaskResults(given.group, 0, given.indices, b"", lengths, 0.001, [count]), body=[b"r" * count])


def outcomes(client: Member, count: int) -> list[tuple[int, int]]:
    """Group and index of so many tasks as they end well."""
    found: list[tuple[int, int]] = []
    while len(found) < count:
        message = client.hear(m.Message)
        assert not isinstance(message, m.TasksUndone)
        if isinstance(message, m.TasksDone):
            found += [(message.group, index) for index in unpack(message.indices)]
    return found


def leave(*members: Member) -> None:
    for member in members:
        with suppress(TlsClosed, TlsError):
            member.say(m.Goodbye("done"))
        member.close()


def ids(member: Member) -> list[int]:
    member.say(m.GetIds(1 << 41))
    said = answer(member, 1 << 41)
    assert isinstance(said, m.Reply)
    return list(Ids.unpacked(said.value))


def clients(member: Member) -> list[str]:
    member.say(m.ClusterInfo(1 << 42))
    said = answer(member, 1 << 42)
    assert isinstance(said, m.Reply)
    return list(said.value["clients"])


def other_is_served(engine: Member, other: Member) -> None:
    """All of the other client's tasks, and nothing else, reach an engine, and it hears of their ends."""
    engine.say(m.WantTasks(100))
    given = engine.hear(m.GiveTasks)
    assert unpack(given.indices).tolist() == [0, 1, 2]
    do(engine, given)
    assert outcomes(other, 3) == [(1, 0), (1, 1), (1, 2)]
