"""The life of an agent's process, while its set forms."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator

import pytest

from ipmpi.engine.nodeagent import NodeAgent, Settings

PATIENCE = 10.0


class Process:
    """An agent in a thread, and one rank that has connected and not said who it is."""

    def __init__(self) -> None:
        address = f"\0ipmpi-test-{secrets.token_hex(8)}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(address)
        listener.listen()
        self.lines: list[str] = []
        settings = Settings("/nowhere", "", None, 0.0, "/nowhere")
        self.agent = NodeAgent(listener.detach(), settings, self.lines.append, self.lines.append)
        self.thread = threading.Thread(target=self.agent.run, daemon=True)
        self.thread.start()
        self.rank = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.rank.settimeout(PATIENCE)
        self.rank.connect(address)
        self.rank.recvmsg(4096, 64)  # its greeting: it is known

    @property
    def has_ended(self) -> bool:
        self.thread.join(PATIENCE)
        return not self.thread.is_alive()


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.rank.close()
    process.agent.loop.stop()
    process.thread.join(PATIENCE)
    process.agent.close()


def test_an_agent_ends_with_the_last_rank_that_it_had_while_its_set_formed(process: Process) -> None:
    process.rank.close()
    assert process.has_ended
    assert process.agent.exit_code == 1


def test_an_agent_that_is_told_to_end_while_its_set_forms_does_not_stay_behind(process: Process) -> None:
    process.agent.loop.call_threadsafe(process.agent.terminated)
    while b"SIGTERM" not in process.rank.recv(4096):
        pass
    process.rank.close()  # a rank in MPI_Init says nothing more
    assert process.has_ended
    assert "stopping: got SIGTERM" in process.lines
