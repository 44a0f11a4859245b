"""The life of an agent's process, while its set forms."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from ipmpi.engine.agent.nodeagent import AgentSettings, NodeAgent
from ipmpi.engine.rank.controlblock import ControlBlock
from ipmpi.protocol import rankmessages as rm

PATIENCE = 10.0


class Process:
    """An agent in a thread, and one rank that has connected and not said who it is."""

    def __init__(self) -> None:
        address = f"\0ipmpi-test-{secrets.token_hex(8)}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(address)
        listener.listen()
        self.lines: list[str] = []
        settings = AgentSettings("/nowhere", "", None, 0.0, "/nowhere")
        self.agent = NodeAgent(listener.detach(), settings, self.lines.append, self.lines.append)
        self.thread = threading.Thread(target=self.agent.run, daemon=True)
        self.thread.start()
        self._address = address
        self.rank = self.comes()

    def comes(self) -> socket.socket:
        """One more rank."""
        rank = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        rank.settimeout(PATIENCE)
        rank.connect(self._address)
        rank.recvmsg(4096, 64)  # its greeting: it is known
        return rank

    def knows(self, count: int) -> None:
        """Return when so many ranks have said who they are."""
        until = time.monotonic() + PATIENCE
        while len(self.agent._introduced) < count:
            assert time.monotonic() < until
            time.sleep(0.001)

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


def test_of_ranks_that_end_at_the_same_time_the_one_whose_socket_was_closed_first_is_told_of_first(
    process: Process,
) -> None:
    """What a launcher kills because of it has often ended before it, as the kernel tells."""
    children = [subprocess.Popen(["sleep", "100"]) for _ in range(2)]
    ranks = [process.comes() for _ in children]
    for rank, child in zip(ranks, children, strict=True):
        _, block = ControlBlock.create()
        socket.send_fds(rank, [rm.encode(rm.RankHello(0, -1, "host", child.pid, 0, [], False, "", ""))], [block])
        os.close(block)
    process.knows(2)
    ranks[0].close()
    _end(children[1], signal.SIGKILL)
    ranks[1].close()
    _end(children[0], signal.SIGTERM)
    process.rank.close()
    assert process.has_ended
    ended = [line for line in process.lines if "a rank ended" in line]
    assert ["SIGKILL" in line for line in ended] == [False, True, False], ended
    for child in children:
        child.wait()


def test_of_a_rank_that_its_agent_gives_up_the_reason_is_told_and_not_its_exit_code(process: Process) -> None:
    rank, child = process.comes(), subprocess.Popen(["sh", "-c", "read x; exit 1"], stdin=subprocess.PIPE)
    _, block = ControlBlock.create()
    socket.send_fds(rank, [rm.encode(rm.RankHello(0, -1, "host", child.pid, 0, [], False, "", ""))], [block])
    os.close(block)
    process.knows(1)
    rank.send(b"nonsense")
    while rank.recv(4096):
        pass
    rank.close()
    child.communicate()  # as a rank ends whose socket is closed
    assert child.returncode == 1
    process.rank.close()
    assert process.has_ended
    (line,) = [line for line in process.lines if "its node agent closed its socket" in line]
    assert "in ipmpi while this rank was dealt with" in line
    assert not [line for line in process.lines if "exit code 1" in line]


def _end(child: subprocess.Popen[bytes], signum: int) -> None:
    """It has ended, and nobody has asked how."""
    child.send_signal(signum)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


def test_who_has_called_mpi_abort_was_not_told_to_end_by_the_signal_that_its_launcher_sends_to_all(
    process: Process,
) -> None:
    local = next(iter(process.agent._ranks))
    now = time.monotonic()
    process.agent._rank_ends.told("got SIGTERM", now)
    assert process.agent._rank_ends.farewell(local, now) == "got SIGTERM"
    block, descriptor = ControlBlock.create()
    os.close(descriptor)
    block.aborts(5)
    local._block = block
    assert local.has_aborted
    assert process.agent._rank_ends.farewell(local, now) == ""
    local._block = None
