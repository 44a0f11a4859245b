"""The controller's Unix socket for processes of its user on this machine."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..localpipe import LocalPipe, is_possible
from ..loop import Loop
from ..peercredentials import is_certainly_own
from ..pipes import SecurePipe
from .listen import Acceptor, Given, OnHello, nothing_given
from .local import socket_name

_BACKLOG: Final = 1024


class LocalListener(Acceptor):
    """The Unix socket beside the TCP port of a controller.

    Args:
        fingerprint, port: of the controller there.

    Raises:
        OSError: somebody has the name, or there are no such sockets here. Peers come by TCP then.
    """

    def __init__(
        self,
        loop: Loop,
        fingerprint: bytes,
        port: int,
        secrets: Mapping[str, bytes],
        on_hello: OnHello,
        log: Callable[[str], None],
        given: Given = nothing_given,
    ) -> None:
        if not is_possible():
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(socket_name(fingerprint, port))
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        super().__init__(loop, sock, fingerprint, secrets, on_hello, log, given)

    def _source(self, address: Any) -> str:
        del address
        return "a process of this machine"

    def _pipe(self, sock: socket.socket) -> SecurePipe | None:
        # Others get no byte and no line: they could fill the log.
        return LocalPipe(sock) if is_certainly_own(sock) else None
