"""Messages between a rank and its agent: what is said is heard, and rubbish is told as such."""

from __future__ import annotations

import random
from typing import Any, get_args

import pytest

from ipmpi.errors import RemoteProtocolError
from ipmpi.protocol import rankmessages as rm
from ipmpi.protocol.tasks import DefineFunction, ForgetFunctions

TO_RANK: list[Any] = [
    rm.Greeting(b"token", 77), rm.Address("here"), rm.Met(""), rm.NewEngineId(3),
    rm.RunCommand(1, "push", b"o", [1, 2], True), rm.RunItems(5, b"o", b"\1\0\0\0"),
    rm.RunItem(6, b"o", [1 << 40]),
    rm.RunPart(7, b"o", [0, 2], 9, True, [4]), rm.PartBody(7, [4]), rm.PartLeft(7, "rank 1 has failed"),
    rm.Freed(1 << 22), rm.DisplayTaken(1), rm.DebuggerAnswer(2, "n\n"), rm.LogLine("a line"),
    rm.Stop("the end", 1, "words", True), rm.HoldHere(1), rm.StopAtStep(1, 7), rm.LetGo(1, True, "why"),
    DefineFunction(b"k" * 16, 0, 3, [3]), ForgetFunctions([b"k" * 16]),
]  # fmt: skip
TO_AGENT: list[Any] = [
    rm.RankHello(0, -1, "host", 77, 4, [0, 0, 2, 2], True, "MPI", "3.11", 60.0, "17", 76), rm.Above(""),
    rm.Formed(False, "no way"), rm.CommandDone(1, True, b"o", 4, [1], True), rm.Bell(),
    rm.ItemDone(6, True, 0.5, [9]),
    rm.OutputPipes(), rm.StackPipe(60), rm.Displayed(b"figure", 1),
    rm.DebuggerTold(1, 1, "text", "(Pdb) ", "a.py:1 in f"), rm.DebuggerAttached(1, "/home"),
    rm.PartDone(7, 2, False, 0.5, [3]), rm.DataPiece(4096, False), rm.Signalled("SIGTERM"),
    rm.Leaving("its loop has ended"), rm.Holds(1), rm.Sampled(7, 1, 0.5),
]  # fmt: skip


def test_every_message_is_here() -> None:
    assert {type(message) for message in TO_RANK} == set(get_args(rm.ToRank))
    assert {type(message) for message in TO_AGENT} == set(get_args(rm.ToAgent))


@pytest.mark.parametrize("message", TO_RANK, ids=lambda message: type(message).__name__)
def test_what_an_agent_says_is_heard(message: Any) -> None:
    heard, body = rm.for_rank(rm.encode(message, [b"in ", memoryview(b"two parts")]))
    assert (heard, bytes(body)) == (message, b"in two parts")
    assert not rm.for_rank(rm.encode(message))[1]


@pytest.mark.parametrize("message", TO_AGENT, ids=lambda message: type(message).__name__)
def test_what_a_rank_says_is_heard(message: Any) -> None:
    heard, body = rm.for_agent(rm.encode(message, [b"body"]))
    assert (heard, bytes(body)) == (message, b"body")


def test_neither_takes_the_others_messages() -> None:
    for message in TO_RANK:
        with pytest.raises(RemoteProtocolError, match="a packet of a rank that cannot be understood"):
            rm.for_agent(rm.encode(message))
    for message in TO_AGENT:
        with pytest.raises(RemoteProtocolError, match="a packet of the node agent that cannot be understood"):
            rm.for_rank(rm.encode(message))


def test_rubbish_is_told_as_such() -> None:
    chance = random.Random(1)
    whole = [rm.encode(message, [b"body"]) for message in TO_RANK + TO_AGENT]
    refused = 0
    for _ in range(5000):
        packet = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(1, 4)):
            packet[chance.randrange(len(packet))] = chance.randrange(256)
        packet = packet[: chance.randrange(len(packet) + 1)]
        for hear in (rm.for_rank, rm.for_agent):
            try:
                hear(bytes(packet))
            except RemoteProtocolError:
                refused += 1
    assert refused > 5000


@pytest.mark.parametrize(
    ("packet", "what"),
    [(b"", "without a header"), (b"\1\0\0", "without a header"), (b"\5\0\0\0abc", "header is cut off")],
)
def test_packets_that_are_cut_off(packet: bytes, what: str) -> None:
    for hear in (rm.for_rank, rm.for_agent):
        with pytest.raises(RemoteProtocolError, match=what):
            hear(packet)
