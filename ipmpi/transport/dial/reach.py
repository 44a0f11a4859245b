"""Try each address of a furl by itself, and tell how far one gets (blocking).

:class:`~ipmpi.transport.dial.dial.Dial` stops at the first address that works; here all are tried, and none is
authenticated: after the certificate was compared, the connection is closed. The controller notes that somebody
left before he said who he is.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ...errors import KernelError, SecurityError
from ...furl import Furl
from ...tls import TlsSession
from .routes import leads_elsewhere

TIMEOUT: Final = 5.0
"""Seconds for one address. They are tried at the same time."""


class Hint(NamedTuple):
    """What became of one address of a furl.

    ``stage`` is where it ended: name, refused, timeout, unreachable, tls, certificate, dates, or reached.
    """

    host: str
    port: int
    stage: str
    text: str = ""
    seconds: float = 0.0


def try_hints(furl: Furl, timeout: float = TIMEOUT) -> list[Hint]:
    """Try all addresses of a furl, which takes a little more than ``timeout`` seconds at most."""
    found: dict[int, Hint] = {}

    def look(number: int) -> None:
        found[number] = try_hint(*furl.hints[number], furl.fingerprint, timeout)

    threads = [threading.Thread(target=look, args=(number,), daemon=True) for number in range(len(furl.hints))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout + 1
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    # A name server that does not answer cannot be told to stop: its thread is left behind.
    slow = "the name could not be looked up in time"
    return [found.get(at, Hint(host, port, "name", slow)) for at, (host, port) in enumerate(furl.hints)]


def try_hint(host: str, port: int, fingerprint: bytes, timeout: float = TIMEOUT) -> Hint:
    """Connect to one address, and look at the certificate there."""
    started = time.monotonic()
    try:
        found = [(entry[0], entry[4]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Hint(host, port, "name", f"its name cannot be looked up: {reason}")
    deadline = started + timeout
    try:
        sock = _connect(found, deadline)
    except TimeoutError:
        return Hint(host, port, "timeout", f"no answer in {timeout:g} s")
    except ConnectionRefusedError:
        return Hint(host, port, "refused", os.strerror(errno.ECONNREFUSED))
    except OSError as error:
        return Hint(host, port, "unreachable", error.strerror or str(error))
    with sock:
        stage, text = _look_at_certificate(sock, fingerprint, f"{host}:{port}", deadline)
    return Hint(host, port, stage, text, time.monotonic() - started)


def _connect(addresses: Sequence[tuple[int, Any]], deadline: float) -> socket.socket:
    failure: OSError = OSError("it has no address")
    for family, address in addresses:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(max(0.1, deadline - time.monotonic()))
            sock.connect(address)
            if not leads_elsewhere(sock):
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


def _send(sock: socket.socket, tls: TlsSession) -> None:
    while data := tls.ciphertext_to_send():
        sock.sendall(data)


def _look_at_certificate(sock: socket.socket, fingerprint: bytes, where: str, deadline: float) -> tuple[str, str]:
    """How far TLS gets: ``reached``, or where it ended and why."""
    tls = TlsSession.dialler()
    try:
        while not tls.handshake():
            _send(sock, tls)
            sock.settimeout(max(0.1, deadline - time.monotonic()))
            data = sock.recv(65536)
            if not data:
                return "tls", "the connection was closed during the TLS handshake"
            tls.receive_ciphertext(data)
        _send(sock, tls)
        shown = tls.peer_fingerprint
        tls.check_peer(fingerprint, time.time(), where)
    except SecurityError as error:
        return ("dates" if shown == fingerprint else "certificate"), str(error)
    except KernelError as error:
        return "tls", str(error)
    except TimeoutError:
        return "tls", "what listens there does not answer as TLS does"
    except OSError as error:
        return "tls", error.strerror or str(error)
    return "reached", ""
