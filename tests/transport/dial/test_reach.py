"""Each address of a furl by itself: how far one gets, with real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ipmpi.furl import Furl
from ipmpi.tls import Identity, TlsClosed, TlsError, TlsSession
from ipmpi.transport.dial.reach import try_hint, try_hints
from tests.sameport import SamePort

LOCAL = "127.0.0.1"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOCAL, 0)) as sock:
        yield sock


def serve(listener: socket.socket, identity: Identity) -> threading.Thread:
    """TLS for one connection."""

    def run() -> None:
        sock, _ = listener.accept()
        with sock:
            session = TlsSession.listener(identity)
            try:
                while True:
                    session.handshake()
                    sock.sendall(session.ciphertext_to_send())
                    data = sock.recv(65536)
                    if not data:
                        return
                    session.receive_ciphertext(data)
            except (OSError, TlsError, TlsClosed):
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def test_the_controller_of_the_furl(listener: socket.socket) -> None:
    identity = Identity.create(time.time())
    thread = serve(listener, identity)
    hint = try_hint(LOCAL, port_of(listener), identity.fingerprint)
    assert (hint.stage, hint.text) == ("reached", "")
    assert 0 < hint.seconds < 5
    thread.join(5)
    assert not thread.is_alive()  # it was not left waiting


def test_another_controller(listener: socket.socket) -> None:
    serve(listener, Identity.create(time.time()))
    hint = try_hint(LOCAL, port_of(listener), b"x" * 32)
    assert hint.stage == "certificate"
    assert "this furl is of another controller" in hint.text


def test_a_certificate_of_the_future(listener: socket.socket) -> None:
    identity = Identity.create(time.time() + 30 * 86400)
    serve(listener, identity)
    hint = try_hint(LOCAL, port_of(listener), identity.fingerprint)
    assert hint.stage == "dates"
    assert "clock" in hint.text


def test_nobody_listens(listener: socket.socket) -> None:
    port = port_of(listener)
    listener.close()
    hint = try_hint(LOCAL, port, b"x" * 32)
    assert (hint.stage, hint.text) == ("refused", "Connection refused")


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks SSH, not TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks plain HTTP"),
        (b"", "closed during the TLS handshake"),
    ],
)
def test_something_else_listens(listener: socket.socket, says: bytes, words: str) -> None:
    def run() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            sock.sendall(says)

    threading.Thread(target=run, daemon=True).start()
    hint = try_hint(LOCAL, port_of(listener), b"x" * 32)
    assert hint.stage == "tls"
    assert words in hint.text


def test_what_listens_says_nothing(listener: socket.socket) -> None:
    hint = try_hint(LOCAL, port_of(listener), b"x" * 32, timeout=0.2)
    assert (hint.stage, hint.text) == ("tls", "what listens there does not answer as TLS does")


def test_a_name_that_does_not_exist() -> None:
    hint = try_hint("no-such-host.invalid", 10105, b"x" * 32)
    assert hint.stage == "name"
    assert "cannot be looked up" in hint.text


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".org"])
def test_a_name_that_cannot_exist(host: str) -> None:
    hint = try_hint(host, 9, bytes(32))
    assert hint.stage == "name"
    assert "cannot be looked up" in hint.text


def test_no_answer_at_all() -> None:
    """A queue of connections that is full: what comes is dropped, as by a firewall."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind((LOCAL, 0))
        full.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        hint = try_hint(LOCAL, port_of(full), b"x" * 32, timeout=0.3)
    assert hint.stage in ("timeout", "unreachable")


def test_all_addresses_in_their_order(listener: socket.socket) -> None:
    identity = Identity.create(time.time())
    serve(listener, identity)
    hints = (("no-such-host.invalid", 1), (LOCAL, port_of(listener)))
    found = try_hints(Furl.create(identity.fingerprint, hints, "mec"))
    assert [hint.stage for hint in found] == ["name", "reached"]


def test_a_connection_with_oneself_reaches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        sock.bind((LOCAL, 0))
        port = port_of(sock)
    monkeypatch.setattr(socket, "socket", SamePort)
    assert try_hint(LOCAL, port, bytes(32)).stage == "refused"
