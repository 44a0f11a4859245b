"""Asking an HTTP proxy for a tunnel, by the method CONNECT (sans-IO)."""

from __future__ import annotations

import base64
import re

from .. import limits
from ..errors import ConnectionError
from ..furl import place
from .frames import Buffer
from .handshake import printable

_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/\d(?:\.\d)? (\d{3})(?: ([^\r\n]*))?\r?\n")
_START = b"HTTP/"


class ConnectRequest:
    """One request for a tunnel to ``host:port``.

    Send :attr:`data`, and feed what arrives to :meth:`receive` until it is True: from then on, the connection is
    one to the target.

    Args:
        proxy: what to call the proxy in messages.
        user: ``user:password`` for the proxy, or nothing.
    """

    def __init__(self, host: str, port: int, proxy: str, user: str = "") -> None:
        self._target = place(host, port)
        self._port = port
        self._proxy = proxy
        self._has_user = bool(user)
        self._received = bytearray()
        lines = [f"CONNECT {self._target} HTTP/1.1", f"Host: {self._target}"]
        if user:
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode('ascii')}")
        self.data = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def receive(self, data: Buffer) -> bool:
        """Whether the tunnel is there.

        Raises:
            ConnectionError: why there will be none, and what to do.
        """
        self._received += data
        start = bytes(self._received[: len(_START)])
        if not _START.startswith(start):
            raise ConnectionError(
                f"{self._proxy} does not answer as an HTTP proxy does (but {bytes(self._received[:12])!r}): check "
                "its address and port"
            )
        end = _END.search(self._received)
        if end is None:
            if len(self._received) > limits.PROXY_ANSWER:
                raise ConnectionError(f"the answer of {self._proxy} has no end: check its address and port")
            return False
        status = _STATUS.match(self._received)
        if status is None:
            raise ConnectionError(f"{self._proxy} gives an answer without a status: check its address and port")
        code = int(status[1])
        if not 200 <= code < 300:
            raise ConnectionError(self._explain(code, printable((status[2] or b"").decode("latin-1"), 100)))
        if end.end() != len(self._received):
            # The controller never speaks first, so this is of the proxy itself.
            raise ConnectionError(f"{self._proxy} sends more than its answer, so it gives no tunnel")
        return True

    def closed(self) -> ConnectionError:
        """What to say when the proxy has closed the connection before its answer was complete."""
        return ConnectionError(f"{self._proxy} closed the connection without an answer")

    def _explain(self, code: int, words: str) -> str:
        said = f"{self._proxy} does not connect to {self._target}: {code} {words}".rstrip()
        if code == 407:
            if self._has_user:
                return f"{said}. It does not take this user name and password"
            return (
                f"{said}. It wants a user name and password: write `machine PROXYHOST login USER password "
                "PASSWORD` into ~/.netrc, and run `chmod 600 ~/.netrc`"
            )
        if code in (403, 405):
            return (
                f"{said}. It does not allow this address or port {self._port}; many allow port 443 only: start "
                "the controller with a port that it allows (ipcontroller --engine-port, --client-port), or ask "
                "those who run the proxy"
            )
        if code in (502, 503, 504):
            return f"{said}. It could not reach the controller from where it is"
        return said
