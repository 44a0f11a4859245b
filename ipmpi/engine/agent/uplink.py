"""The link from a node agent to the one above it."""

from __future__ import annotations

from ...errors import KernelError
from ...protocol import messages as m
from ...protocol.connection import Connection, Event, StreamRefused
from ...transport.pipes import Pipe
from .agent import Agent
from .peeragent import PeerAgent


def link_up(agent: Agent, pipe: Pipe, may_receive: frozenset[type[m.Message]]) -> PeerAgent:
    """Make ``pipe`` the link of an agent to the one above."""
    above = PeerAgent(pipe, Connection(may_receive, resumable=False))

    def refused(event: Event) -> None:
        if not isinstance(event, StreamRefused):
            agent.from_above(event)

    def closed(reason: str, orderly: bool, error: KernelError | None) -> None:
        del orderly
        agent.stop(f"the node above is gone: {error or reason}", orphaned=True)

    above.start(agent.loop, refused, closed)
    agent.above = above
    return above
