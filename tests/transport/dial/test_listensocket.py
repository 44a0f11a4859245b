"""Listening on one address, on all of one family, and on all of both."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipmpi import limits
from ipmpi.errors import ControllerStartError
from ipmpi.transport.dial.listensocket import listen, users
from tests.ports import fixed_port

HAS_IPV6 = os.path.exists("/proc/net/if_inet6")


@contextlib.contextmanager
def listening(host: str, port: int = 0) -> Iterator[socket.socket]:
    sock = listen(host, port)
    try:
        yield sock
    finally:
        sock.close()


@pytest.fixture
def free_port() -> int:
    return fixed_port()


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


@contextlib.contextmanager
def connection_from(port: int) -> Iterator[socket.socket]:
    """A connection to somewhere else that has this port at its end."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as near:
        near.bind(("127.0.0.1", port))
        near.connect(server.getsockname())
        yield near
        # Who closes last does not keep the port for a minute.
        far, _ = server.accept()
        far.close()


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_a_port_that_a_connection_has_is_waited_for(
    host: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(connection_from(free_port))
        waited: list[float] = []

        def wait(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                stack.close()

        monkeypatch.setattr("ipmpi.transport.dial.listensocket.time.sleep", wait)
        with listening(host, free_port) as sock:
            assert sock.getsockname()[1] == free_port
        assert len(waited) == 3


def test_a_port_that_a_connection_keeps(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PORT_WAIT", 0.1)
    with connection_from(free_port) as near:
        ends = f"127.0.0.1:{free_port} - 127.0.0.1:{near.getpeername()[1]}"
        words = (
            rf"no program listens there, but the connection {ends} has it, .* after 0.1 s\..* one below \d+ or "
        )
        with pytest.raises(ControllerStartError, match=words):
            listen("127.0.0.1", free_port)


def test_who_has_a_port_is_seen(free_port: int, tmp_path: Path) -> None:
    assert users(free_port) == (False, "")
    for host in ("127.0.0.1", "", "::1")[: 3 if HAS_IPV6 else 2]:
        with listening(host, free_port):
            assert users(free_port) == (True, "")
    assert users(free_port, proc=str(tmp_path)) == (True, "")  # where the system does not say


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
def test_connections_of_both_families_are_named(free_port: int) -> None:
    with socket.create_server(("::1", free_port), family=socket.AF_INET6) as server:
        near = socket.create_connection(("::1", free_port))
        far, _ = server.accept()
    with near, far:
        mine = near.getsockname()[1]
        assert users(free_port) == (False, f"the connection [::1]:{free_port} - [::1]:{mine}")
