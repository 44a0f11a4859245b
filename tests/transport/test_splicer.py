"""The middle of a bulk lane: bytes pass both ways, and what a machine refuses ends one pair and no other."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.transport import splicer as module
from ipmpi.transport.splicer import Splicer

PATIENCE = 60


class Ends:
    """A splicer, and the numbers of pairs that have ended."""

    def __init__(self) -> None:
        self.ended: list[int] = []
        self._told = threading.Condition()
        self.splicer = Splicer(self._over)

    def _over(self, number: int) -> None:
        with self._told:
            self.ended.append(number)
            self._told.notify_all()

    def wait(self, number: int) -> None:
        """Wait until a pair has ended."""
        with self._told:
            assert self._told.wait_for(lambda: number in self.ended, PATIENCE)

    def pair(self, number: int) -> tuple[socket.socket, socket.socket]:
        """Two far ends, joined."""
        one, near_one = socket.socketpair()
        other, near_other = socket.socketpair()
        for far in (one, other):
            far.settimeout(PATIENCE)
        for near in (near_one, near_other):
            near.setblocking(False)
        self.splicer.join(number, near_one, near_other)
        return one, other


@pytest.fixture
def ends() -> Iterator[Ends]:
    running = Ends()
    yield running
    running.splicer.close()


def check(ends: Ends, number: int) -> None:
    """Join a pair, which passes bytes on."""
    one, other = ends.pair(number)
    with one, other:
        one.sendall(b"there")
        assert other.recv(10) == b"there"
        other.sendall(b"and back")
        assert one.recv(10) == b"and back"
    ends.wait(number)


@pytest.mark.parametrize("splices", [True, False])
def test_bytes_pass_both_ways(ends: Ends, monkeypatch: pytest.MonkeyPatch, splices: bool) -> None:
    if not splices:
        monkeypatch.setattr(module, "_splice", None)
    check(ends, 1)
    one, other = ends.pair(2)
    data = os.urandom(3_000_000)
    with one, other:
        sending = threading.Thread(target=one.sendall, args=(data,))
        sending.start()
        heard = b""
        while len(heard) < len(data):
            heard += other.recv(1 << 20)
        sending.join()
    assert heard == data
    ends.wait(2)


def refuses(at: int, whole: Callable[..., Any]) -> Callable[..., Any]:
    """A call of the system that fails once, at this call."""
    calls = iter(range(1 << 30))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return whole(*args, **kwargs)

    return call


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("at", [0, 1], ids=["first way", "second way"])
def test_a_pair_without_pipes_is_ended_and_others_are_not(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    check(ends, 1)
    before = descriptors()
    monkeypatch.setattr(os, "pipe2", refuses(at, os.pipe2))
    one, other = ends.pair(2)
    with one, other:
        assert one.recv(1) == other.recv(1) == b""
    ends.wait(2)
    assert descriptors() == before
    check(ends, 3)


class Poller:
    """An epoll whose calls fail once."""

    def __init__(self, fails: str, at: int) -> None:
        self._poller = epoll()
        for name in ("register", "modify", "unregister", "poll", "close"):
            setattr(self, name, getattr(self._poller, name))
        setattr(self, fails, refuses(at, getattr(self._poller, fails)))


epoll = select.epoll


@pytest.mark.parametrize(("fails", "at"), [("register", 1), ("register", 2), ("modify", 0)])
def test_a_pair_that_cannot_be_waited_for_is_ended_and_others_are_not(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, fails: str, at: int
) -> None:
    monkeypatch.setattr(select, "epoll", lambda: Poller(fails, at))
    one, other = ends.pair(1)
    with one, other:
        one.settimeout(PATIENCE)
        one.setblocking(False)
        sent = 0
        while True:  # more than the other side takes, so that it has to be waited for
            try:
                sent += one.send(bytes(1 << 16))
            except BlockingIOError:
                if 1 in ends.ended:
                    break
                select.select([], [one], [], 1)
            except OSError:
                break
        ends.wait(1)
    check(ends, 2)


def test_a_socket_that_is_gone_ends_its_pair(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket.socketpair()
    gone = socket.socket()
    gone.close()
    with far:
        ends.splicer.join(1, gone, near)
        far.settimeout(PATIENCE)
        assert far.recv(1) == b""
    ends.wait(1)
    check(ends, 2)


def test_who_is_told_of_an_end_cannot_end_the_thread() -> None:
    ends = Ends()
    tell = ends._over

    def over(number: int) -> None:
        tell(number)
        raise ValueError(number)

    ends.splicer._on_end = over
    check(ends, 1)
    check(ends, 2)
    ends.splicer.close()


def test_where_there_is_no_thread_both_ends_are_closed(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next pair makes it."""
    monkeypatch.setattr(select, "epoll", refuses(0, epoll))
    before = descriptors()
    one, other = ends.pair(1)
    with one, other:
        assert one.recv(1) == other.recv(1) == b""
    assert ends.ended == [1]
    assert descriptors() == before
    check(ends, 2)


def test_nothing_is_joined_after_the_end(ends: Ends) -> None:
    check(ends, 1)
    ends.splicer.close()
    one, other = ends.pair(2)
    with one, other:
        assert one.recv(1) == other.recv(1) == b""
    assert ends.ended == [1, 2]


@pytest.mark.skipif(not hasattr(fcntl, "F_GETPIPE_SZ") or not hasattr(os, "splice"), reason="no splice here")
def test_all_pipes_fit_into_what_linux_gives_a_user(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no more gets pipes of one page for all programs."""
    made: list[int] = []
    whole = os.pipe2

    def pipe2(flags: int) -> tuple[int, int]:
        made.append((pipe := whole(flags))[1])
        return pipe

    monkeypatch.setattr(os, "pipe2", pipe2)
    one, other = ends.pair(1)
    with one, other:
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        sizes = [fcntl.fcntl(each, fcntl.F_GETPIPE_SZ) for each in made]
    assert len(sizes) == 2
    assert limits.LANES * sum(sizes) < 64 * limits.MIB
    ends.wait(1)
