"""Listening on one address, on all of one family, and on all of both."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from ipmpi.errors import ControllerStartError
from ipmpi.transport.dial.listensocket import listen

HAS_IPV6 = os.path.exists("/proc/net/if_inet6")


@contextlib.contextmanager
def listening(host: str, port: int = 0) -> Iterator[socket.socket]:
    sock = listen(host, port)
    try:
        yield sock
    finally:
        sock.close()


def answers(address: str, sock: socket.socket) -> bool:
    try:
        socket.create_connection((address, sock.getsockname()[1]), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
@pytest.mark.parametrize(
    ("host", "four", "six"),
    [
        ("", True, True),
        ("::", True, True),
        ("0.0.0.0", True, False),
        ("127.0.0.1", True, False),
        ("::1", False, True),
    ],
)
def test_who_gets_through(host: str, four: bool, six: bool) -> None:
    with listening(host) as sock:
        assert (answers("127.0.0.1", sock), answers("::1", sock)) == (four, six)


def test_localhost_is_loopback() -> None:
    with listening("localhost") as sock:
        assert sock.getsockname()[0] in ("127.0.0.1", "::1")


@pytest.mark.parametrize("networks", ["127.0.0.1/8", "::1/128"])
def test_where_a_family_is_missing_the_other_one_is_used(
    networks: str, need: Callable[[str, object], None]
) -> None:
    need("making a network namespace needs root", os.geteuid() == 0)
    look = (
        "from ipmpi.transport.dial.listensocket import *; "
        "print(*(listen(host, 0).getsockname()[0] for host in ('', 'localhost')))"
    )
    other = "::1" if "." in networks else "127.0.0.1"
    script = f'ip link set lo up; ip addr del {networks} dev lo; {sys.executable} -c "{look}"'
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == other, done.stderr


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("", 65536, "not between 1 and 65535"),
        ("192.0.2.77", 0, "cannot listen on 192.0.2.77:0: Cannot assign requested address"),
        ("name.invalid", 0, "cannot listen on 'name.invalid'"),
        ("a" * 300, 0, "cannot listen on"),
    ],
)
def test_what_cannot_be(host: str, port: int, words: str) -> None:
    with pytest.raises(ControllerStartError, match=words):
        listen(host, port)


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_a_port_that_is_taken(host: str) -> None:
    with listening("127.0.0.1") as sock, pytest.raises(ControllerStartError, match="choose another port"):
        listen(host, sock.getsockname()[1])
