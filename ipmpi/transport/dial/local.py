"""How processes of one user on one machine reach their controller: by a Unix socket without a file.

Its name is made from the controller's certificate and port, so a furl leads to it, and nowhere else: where there
is no such name (on another machine, or in another network namespace), nobody answers, and TCP is tried. Every user
of the machine can connect to a name and take a free one, so both ends look who the other one is.
"""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass
from typing import Final

from ...errors import ConnectionError
from ..loop import Loop
from .routes import Cancel, Done, Failed

_DIGEST: Final = 20
"""Bytes of the hash in a name: nobody finds another certificate with the same."""


def socket_name(fingerprint: bytes, port: int) -> bytes:
    """The name of the Unix socket beside a TCP port of the controller with this certificate."""
    digest = hashlib.sha256(b"%b %d" % (fingerprint, port)).hexdigest()[: 2 * _DIGEST]
    return b"\0ipmpi-controller-" + digest.encode()


@dataclass(frozen=True)
class LocalRoute:
    """The Unix socket beside the TCP port of a controller.

    Attributes:
        fingerprint: of the controller's certificate.
    """

    fingerprint: bytes

    @property
    def via(self) -> str:
        """Words for messages."""
        return "by a Unix socket"

    def serves(self, host: str) -> bool:
        """Always: a furl of another machine leads to no name here."""
        del host
        return True

    def connect(self, loop: Loop, address: tuple[str, int], on_done: Done, on_failed: Failed) -> Cancel:
        """Connect, which the kernel does at once or not at all."""
        attempt = _Attempt(loop, on_done, on_failed)
        attempt.begin(socket_name(self.fingerprint, address[1]))
        return attempt.cancel


class _Attempt:
    def __init__(self, loop: Loop, on_done: Done, on_failed: Failed) -> None:
        self._loop = loop
        self._on_done = on_done
        self._on_failed = on_failed
        self._sock: socket.socket | None = None
        self._over = False

    def begin(self, name: bytes) -> None:
        self._loop.call_soon(lambda: self._connect(name), self._broken)

    def cancel(self) -> None:
        self._over = True
        if self._sock is not None:
            self._sock.close()

    def _connect(self, name: bytes) -> None:
        if self._over:
            return
        try:
            self._sock = sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            sock.connect(name)
        except OSError as error:
            self.cancel()
            self._on_failed(ConnectionError(error.strerror or str(error)))
            return
        self._over, self._sock = True, None
        try:
            self._on_done(sock)
        except BaseException:
            sock.close()
            raise

    def _broken(self, error: BaseException) -> None:
        self._loop.report(error)
        self.cancel()
        self._on_failed(ConnectionError(f"{type(error).__name__}: {error}"))
