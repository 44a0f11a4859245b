"""Questions of clients about ranks, which the agent answers itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ...protocol import inquiries, messages as m
from .localrank import LocalRank
from .peeragent import PeerAgent
from .setoutput import SetOutput


class Node(Protocol):
    """The part of an agent that is needed here: see :class:`ipmpi.engine.agent.agent.Agent`."""

    output: SetOutput
    local: dict[int, LocalRank]

    def by_peer(self, ranks: Sequence[int]) -> list[tuple[PeerAgent, list[int]]]:
        """The ranks below, by the agent through which they are reached."""

    def send_up(self, message: m.AnyMessage) -> None:
        """Send to the agent or controller above."""


class Inquiries:
    """Answers questions about the ranks of one node, and passes them on to the agents below.

    Args:
        node: the agent.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    def asked(self, message: m.Inquiry) -> None:
        """Answer for the ranks of this node: once where the answers of several are equal."""
        for peer, ranks in self._node.by_peer(message.ranks):
            peer.connection.send(m.Inquiry(message.id, ranks, message.question))
            peer.wake()
        try:
            question = inquiries.decode_question(message.question)
        except msgspec.DecodeError:
            return  # of another release: the client says that nobody has answered
        answers: dict[bytes, list[int]] = {}
        logs = self._node.output.log_of(
            [rank for rank in message.ranks if rank in self._node.local], question.most
        )
        for rank, text in logs.items():
            answers.setdefault(inquiries.encode(inquiries.RankLog(text)), []).append(rank)
        for answer, ranks in answers.items():
            self._node.send_up(m.Findings(message.id, ranks, answer))
