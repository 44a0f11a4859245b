"""Whether engines are where their launch runs: on the nodes of its job, or on the machines that it was started on.

The machines of a launch are known when its furl is made, or when its job runs, and then ipcluster knows them. So
an engine set that is not on any known machine of its launch waits for ipcluster's answer, which asks the batch
system at that moment: a job may have begun just now, or once more on other nodes, and an array has several. If no
answer comes, nobody is kept out because of it.

What engines say of their hosts is only what they say; see docs/security.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..hostnames import others, shown
from ..protocol import messages as m
from ..protocol.handshake import printable
from ..transport.loop import Loop, Timer
from .grants import Grant
from .sessions import PeerSession

ANSWERED_WITHIN: Final = 20.0
"""Seconds for the answer: a batch system that is busy takes some."""


def elsewhere(grant: Grant, message: m.Register) -> str:
    """Return why engines with this furl are not expected where they are, as a clause.

    Returns:
        "" if they are expected there, or it is not known where they would be.
    """
    if grant.nodes is None:
        return ""
    hosts = _strange(grant, message)
    if not hosts:
        return ""
    where = [printable(host, 255) for host in hosts]
    if not grant.nodes:
        return f"the job of the launch {grant.note} runs on no node now: it waits in the queue, or has ended"
    are = "are" if len(where) > 1 else "is"
    return (
        f"the launch {grant.note} runs on {shown(grant.nodes)}, and {shown(where)} {are} not among these. If that "
        "is only another name of the same machine, start with --any-node"
    )


def _strange(grant: Grant, message: m.Register) -> list[str]:
    """Return the hosts of engines that are on no machine of their launch, as far as these are known."""
    nodes = grant.nodes or ()
    # An engine may know the name that the batch system has for its machine.
    by_host = {engine.host: engine.node for engine in message.engines}
    return sorted(host for host in others(by_host, nodes) if not by_host[host] or others([by_host[host]], nodes))


@dataclass
class _Unchecked:
    message: m.Register
    grant: Grant


@dataclass
class _Waiting:
    session: PeerSession
    message: m.Register
    grant: Grant
    question: int
    timer: Timer


class Whereabouts:
    """Engine sets that wait to hear where their launch runs.

    Args:
        loop: the controller's.
        decide: called with a set when as much is known as will be.
        announce: tells all clients something.

    Attributes:
        ask: asks where the launch of this name runs, with the number of the question; None if nobody knows.
    """

    ask: Callable[[str, int], None] | None = None

    def __init__(
        self, loop: Loop, decide: Callable[[PeerSession, m.Register], None], announce: Callable[[str], None]
    ) -> None:
        self._loop, self._decide, self._announce = loop, decide, announce
        self._waiting: dict[int, _Waiting] = {}
        self._unchecked: dict[int, _Unchecked] = {}
        self._question = 0

    def must_wait(self, session: PeerSession, message: m.Register, grant: Grant) -> bool:
        """Return whether a set has to wait for an answer; ``decide`` is called with it then."""
        if self.ask is None or not grant.asks or not _strange(grant, message):
            return False
        self.left(session.key)
        self._question += 1
        timer = self._loop.call_later(ANSWERED_WITHIN, lambda: self._settle(session.key), self._loop.report)
        self._waiting[session.key] = _Waiting(session, message, grant, self._question, timer)
        self.ask(grant.note, self._question)
        return True

    def entered(self, session: PeerSession, message: m.Register, grant: Grant) -> None:
        """A set was let in; if it is not known where its launch runs, it is looked at when that is known."""
        if grant.nodes is None:
            self._unchecked[session.key] = _Unchecked(message, grant)

    def told(self, grant: Grant, question: int) -> None:
        """It is known where a launch runs, as of this question; 0 if nobody has asked."""
        for key, waiting in list(self._waiting.items()):
            if waiting.grant is grant and (waiting.question <= question or not _strange(grant, waiting.message)):
                self._settle(key)
        for key, entered in list(self._unchecked.items()):
            if entered.grant is grant and grant.nodes:
                del self._unchecked[key]
                why = elsewhere(grant, entered.message)
                if why:
                    self._announce(f"engine set {key} is not where it is expected: {why}")

    def left(self, key: int) -> None:
        """A session has ended."""
        self._unchecked.pop(key, None)
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            waiting.timer.cancel()

    def _settle(self, key: int) -> None:
        waiting = self._waiting.get(key)
        if waiting is None:  # it left when another set was let in
            return
        self.left(key)
        if waiting.grant.nodes is None:
            self._announce(
                f"engine set {key} was let in without a look at its hosts: the batch system does not say where "
                f"the launch {waiting.grant.note} runs"
            )
        self._decide(waiting.session, waiting.message)
