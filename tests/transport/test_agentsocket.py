"""Of all ranks that come, one starts the agent and nobody misses it; other users are kept out."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.transport import agentsocket
from ipmpi.transport.agentsocket import is_own, meet_agent

NOBODY = 65534
RANKS = 8
ROUNDS = 12

WORKER = """
import os, socket, sys
from ipmpi.engine.agent.agentstart import start_agent
from ipmpi.transport.agentsocket import meet_agent

def agent(descriptor):
    listener = socket.socket(fileno=descriptor)
    ranks = [listener.accept()[0] for _ in range(int(sys.argv[1]))]
    for rank in ranks:
        rank.send(b"%d" % os.getpid())
    for rank in ranks:
        rank.recv(1)  # until it has gone
    return 0

for line in sys.stdin:
    started = []
    def start(listener):
        started.append(1)
        start_agent(listener.fileno(), agent)
    with meet_agent(line.strip(), start) as link:
        print(len(started), int(link.recv(100)), flush=True)
"""

SQUATTER = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
getattr(sock, sys.argv[1])("\\0ipmpi-" + sys.argv[2])
if sys.argv[1] == "bind":
    sock.listen()
print("there", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def name() -> str:
    return f"test-{secrets.token_hex(8)}"


def must_not_start(listener: socket.socket) -> None:
    pytest.fail("there is an agent already")


def test_one_agent_for_all_ranks_however_they_come(root: Path) -> None:
    argv = [sys.executable, "-c", WORKER, str(RANKS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        environ = {**os.environ, "PYTHONPATH": str(root)}
        workers = [stack.enter_context(subprocess.Popen(argv, env=environ, **pipes)) for _ in range(RANKS)]
        agents = set()
        for _ in range(ROUNDS):
            launch = secrets.token_hex(8)
            for worker in workers:
                worker.stdin.write(launch + "\n")
                worker.stdin.flush()
            told = [worker.stdout.readline().split() for worker in workers]
            assert sum(int(started) for started, _ in told) == 1
            (pid,) = {pid for _, pid in told}
            agents.add(pid)
        assert len(agents) == ROUNDS


class Kept:
    """A start that keeps the listener here, instead of in another process."""

    def __init__(self) -> None:
        self.listeners: list[socket.socket] = []

    def __call__(self, listener: socket.socket) -> None:
        self.listeners.append(listener.dup())


@pytest.fixture
def kept() -> Iterator[Kept]:
    start = Kept()
    yield start
    for listener in start.listeners:
        listener.close()


def test_messages_stay_whole_and_nothing_is_inherited(name: str, kept: Kept) -> None:
    with meet_agent(name, kept) as rank, meet_agent(name, must_not_start) as other:
        (listener,) = kept.listeners
        first, _ = listener.accept()
        second, _ = listener.accept()
        with first, second:
            assert is_own(first)
            assert is_own(rank)
            rank.send(b"one")
            rank.send(b"two")
            assert (first.recv(100), first.recv(100)) == (b"one", b"two")
            second.send(b"for the other")
            assert other.recv(100) == b"for the other"
            assert not any(os.get_inheritable(sock.fileno()) for sock in (rank, other, first, listener))


def test_long_and_odd_names(kept: Kept) -> None:
    long = "0-pmix-" + "x" * 500
    names = [long, long + "y", "0-flux-ƒabc", "0-flux-ƒabd", "with blanks\n and lines", "\udc80"]
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(meet_agent(name, kept))
            stack.enter_context(meet_agent(name, must_not_start))
    addresses = {sock.getsockname() for sock in kept.listeners}
    assert len(addresses) == len(names)
    assert all(address.startswith(b"\0ipmpi-") and len(address) <= 108 for address in addresses)


def test_an_agent_that_never_listens_is_not_waited_for_forever(name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mute:
        mute.bind(f"\0ipmpi-{name}")
        with pytest.raises(
            LauncherError, match=r"answered within 0.05 s at @ipmpi-test.*Stop all engines of this"
        ):
            meet_agent(name, must_not_start, timeout=0.05)


def test_a_rank_that_comes_before_the_agent_listens_waits(name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as slow:
        slow.bind(f"\0ipmpi-{name}")
        tries: list[bytes] = []

        def listens_at_the_third(address: bytes) -> socket.socket | None:
            tries.append(address)
            if len(tries) == 3:
                slow.listen()
            return connect(address)

        connect = agentsocket._connect
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(agentsocket, "_connect", listens_at_the_third)
            meet_agent(name, must_not_start).close()
        assert len(tries) == 3


def test_more_ranks_than_the_kernel_lets_wait(name: str) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(f"\0ipmpi-{name}")
        listener.listen(0)
        stack.enter_context(meet_agent(name, must_not_start))
        with pytest.raises(LauncherError, match=r"answered within"):
            meet_agent(name, must_not_start, timeout=0.02)
        taken: list[socket.socket] = []
        accepts = threading.Thread(target=lambda: taken.extend(listener.accept()[0] for _ in range(2)))
        accepts.start()
        stack.enter_context(meet_agent(name, must_not_start))
        accepts.join()
        for sock in taken:
            sock.close()


def test_an_agent_that_ends_at_once_is_told_of(name: str) -> None:
    with pytest.raises(LauncherError, match=r"ended as soon as this rank had started it.*ulimit -u"):
        meet_agent(name, lambda listener: None)


def test_a_start_that_fails_leaves_the_name_to_others(name: str, kept: Kept) -> None:
    def fails(listener: socket.socket) -> None:
        raise LauncherError("no more processes")

    with pytest.raises(LauncherError, match="no more processes"):
        meet_agent(name, fails)
    meet_agent(name, kept).close()


def test_who_comes_after_the_end_of_an_agent_starts_another(name: str, kept: Kept) -> None:
    meet_agent(name, kept).close()
    kept.listeners.pop().close()
    meet_agent(name, kept).close()


@pytest.fixture
def as_nobody(name: str) -> Iterator[Callable[[str], None]]:
    """Another user's process that binds the name, or connects to it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; another than root runs all tests as such")
    with contextlib.ExitStack() as stack:

        def does(call: str) -> None:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SQUATTER, call, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"there\n"

        yield does


def test_another_user_who_took_the_name_is_not_believed(name: str, as_nobody: Callable[[str], None]) -> None:
    as_nobody("bind")
    user = pwd.getpwuid(NOBODY).pw_name
    with pytest.raises(LauncherError, match=rf"of another user \({user}\) listens.*Start the engines again"):
        meet_agent(name, must_not_start)


def test_the_agent_sees_another_user_who_connects(name: str, as_nobody: Callable[[str], None], kept: Kept) -> None:
    with meet_agent(name, kept):
        as_nobody("connect")
        (listener,) = kept.listeners
        ours, _ = listener.accept()
        stranger, _ = listener.accept()
        with ours, stranger:
            assert is_own(ours)
            assert not is_own(stranger)


def test_other_systems_are_told_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(LauncherError, match=r"engines run on Linux, and this is darwin"):
        meet_agent(name, must_not_start)


@pytest.mark.parametrize("call", ["socket", "bind", "connect"])
def test_a_container_that_forbids_such_sockets(
    call: str, name: str, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forbidden(socket.socket):
        def __init__(self, *args: object, **options: object) -> None:
            if call == "socket":
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            super().__init__(*args, **options)  # type: ignore[arg-type]

        def bind(self, address: object) -> None:
            if call == "bind":
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            super().bind(address)  # type: ignore[arg-type]

        def connect(self, _address: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(agentsocket.socket, "socket", Forbidden)
    with pytest.raises(
        LauncherError, match=r"cannot talk by Unix sockets here: Operation not permitted.*container"
    ):
        meet_agent(name, kept)
