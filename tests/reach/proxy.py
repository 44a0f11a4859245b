"""An HTTP proxy that can be told to behave in any way."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

_LINE = re.compile(rb"CONNECT (\S+):(\d+) HTTP/1\.1\r\n")


class Proxy:
    """Listens on loopback.

    Attributes:
        answer: what to say instead of connecting; the connection is closed after it.
        user: value of the header Proxy-Authorization that it wants.
        hosts: what names mean to it.
        asked: the targets, in order.
        held: while it is cleared, no answer is given.
        only_tls: end connections that begin with anything else.
    """

    def __init__(self) -> None:
        self.answer = b""
        self.user = b""
        self.hosts: dict[str, str] = {}
        self.asked: list[tuple[str, int]] = []
        self.held = threading.Event()
        self.held.set()
        self.only_tls = False
        self.requested = threading.Event()
        self.seen = bytearray()
        self._open: list[socket.socket] = []
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._sock.accept()
                self._open.append(sock)
                self._start(self._serve, sock)

    def _start(self, call: Callable[..., None], *arguments: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=call, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _serve(self, near: socket.socket) -> None:
        with near, suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (byte := near.recv(1)):
                    return
                head += byte
            found = _LINE.match(head)
            assert found is not None, head
            self.asked.append((found[1].decode(), int(found[2])))
            self.requested.set()
            self.held.wait(60)
            if self.user and b"\r\nProxy-Authorization: Basic " + self.user + b"\r\n" not in head:
                near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            elif self.answer:
                near.sendall(self.answer)
            else:
                self._join(near)

    def _join(self, near: socket.socket) -> None:
        host, port = self.asked[-1]
        with socket.create_connection((self.hosts.get(host, host), port), 10) as far:
            far.settimeout(None)
            self._open.append(far)
            near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            if self.only_tls and near.recv(1, socket.MSG_PEEK) != b"\x16":
                return
            back = self._start(self._pump, far, near)
            self._pump(near, far)
            back.join(10)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.seen += data[:1000]
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """End all connections."""
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        """Stop."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self.held.set()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
