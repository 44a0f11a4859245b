"""Questions of clients about ranks, which the agents answer themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from ... import limits
from ...ids import Ids
from ...protocol import inquiries, messages as m
from ...protocol.mpicalls import MpiCall
from ...transport.loop import Loop
from .localrank import LocalRank
from .peeragent import PeerAgent
from .programranks import at_step
from .setoutput import SetOutput
from .stackreader import StackReader, StackTarget

_AFTER: Final = 0.3
"""Seconds after which the stacks that are known go up, though others are still being read."""
_OWN: Final = "/ipmpi/engine/"
CALLS: Final = 32
"""MPI calls of a rank that are told at most."""


class Node(Protocol):
    """The part of an agent that is needed here: see :class:`ipmpi.engine.agent.agent.Agent`."""

    loop: Loop
    output: SetOutput
    local: dict[int, LocalRank]

    def by_peer(self, ranks: Sequence[int]) -> list[tuple[PeerAgent, Ids]]:
        """The ranks below, by the agent through which they are reached."""

    def send_up(self, message: m.AnyMessage) -> None:
        """Send to the agent or controller above."""


class Inquiries:
    """Answers questions about the ranks of one node, and passes them on to the agents below.

    Equal answers go up once, with the ranks that they are about.

    Args:
        node: the agent.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._stacks = StackReader(node.loop)
        self._answers: dict[tuple[int, bytes], list[int]] = {}
        """What has come and is not told yet, by question and answer."""

    def asked(self, message: m.Inquiry) -> None:
        """Answer for the ranks of this node."""
        for peer, ranks in self._node.by_peer(message.ranks):
            peer.connection.send(m.Inquiry(message.id, ranks, message.question))
            peer.wake()
        try:
            question = inquiries.decode_question(message.question)
        except msgspec.DecodeError:
            return  # of another release: the client says that nobody has answered
        here = [rank for rank in message.ranks if rank in self._node.local]
        if isinstance(question, inquiries.ReadLog):
            for rank, text in self._node.output.log_of(here, question.most).items():
                self._answer(message.id, inquiries.RankLog(text), [rank])
            self._tell(message.id)
        elif isinstance(question, inquiries.ReadSteps):
            for rank in here:
                self._answer(message.id, at_step(self._node.local[rank]), [rank])
            self._tell(message.id)
        elif here:
            asked = _Asked(self._node.loop, set(here), lambda: self._tell(message.id))

            def came(rank: int, stack: inquiries.RankStack) -> None:
                self._answer(message.id, stack, [rank])
                asked.came(rank)

            now = self._node.loop.now()
            targets = [_target(self._node.local[rank], question.calls, now) for rank in here]
            self._stacks.read(targets, question, came)

    def from_below(self, message: m.Findings) -> None:
        """An agent below has answered."""
        if not any(number == message.id for number, _ in self._answers):
            self._node.loop.call_later(limits.FOLD_DELAY, lambda: self._tell(message.id))
        self._answers.setdefault((message.id, message.answer), []).extend(message.engines)

    def _answer(self, number: int, answer: inquiries.Answer, ranks: list[int]) -> None:
        self._answers.setdefault((number, inquiries.encode(answer)), []).extend(ranks)

    def _tell(self, number: int) -> None:
        for key in [key for key in self._answers if key[0] == number]:
            self._node.send_up(m.Findings(number, sorted(self._answers.pop(key)), key[1]))


class _Asked:
    """Ranks that are being read for one question."""

    def __init__(self, loop: Loop, waiting: set[int], tell: Callable[[], None]) -> None:
        self._loop = loop
        self._waiting = waiting
        self._tell = tell
        loop.call_later(_AFTER, self._again)

    def came(self, rank: int) -> None:
        """It was read."""
        self._waiting.discard(rank)
        if not self._waiting:
            self._tell()

    def _again(self) -> None:
        if self._waiting:
            self._tell()
            self._loop.call_later(_AFTER, self._again)


def without_own(calls: Sequence[MpiCall]) -> list[MpiCall]:
    """Leave out calls by which ipmpi itself renews a communicator, unless one has not returned."""
    return [call for call in calls if call.open or _OWN not in call.file]


def _target(local: LocalRank, calls: int, now: float) -> StackTarget:
    running = local.running()
    if running is None:
        # It makes a communicator for a task, or has not begun with what it was given.
        waits = local.is_busy or local.is_wanted
        running = ("what it was given" if waits else "", now)
    runs, since = running
    pipe = None if local.stack_pipe is None else local.stack_pipe.copy()
    made = without_own(local.calls(min(calls, CALLS), of_this=True))
    # In whole seconds, so that ranks that do the same give the same answer.
    last = [msgspec.structs.replace(call, since=float(int(call.since))) for call in made]
    return StackTarget(local.rank, local.pid, runs, since, local.operation, pipe, last)
