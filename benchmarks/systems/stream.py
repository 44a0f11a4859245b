"""One TLS stream: what a transfer between two machines can reach at best."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ipmpi.bench.limits import client_context, other_end, send_all
from ipmpi.tls import Identity

from .system import System


class Stream(System):
    """The sender of a stream; :func:`served` takes it.

    Args:
        told: ``host`` and ``port``.
    """

    calls: ClassVar[Mapping[str, str]] = {"push_all": "SSLSocket.sendall in pieces of 1 MiB"}

    def __init__(self, told: Mapping[str, str]) -> None:
        near = socket.create_connection((told["host"], int(told["port"])))
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = client_context().wrap_socket(near)

    def close(self) -> None:  # noqa: D102 - see System
        self._connection.close()

    def push_all(self, array: Any) -> object:
        """Send it once, and wait until all of it has come."""
        send_all(self._connection, memoryview(array).cast("B"))
        return None


@contextlib.contextmanager
def served(host: str, size: int) -> Iterator[dict[str, str]]:
    """Take streams of arrays of ``size`` bytes, one after the other, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="ipmpi-bench-") as folder, socket.create_server((host, 0)) as server:
        pem = Path(folder, "pem")
        pem.touch(0o600)
        pem.write_bytes(Identity.create(time.time()).to_pem())

        def accept() -> None:
            with contextlib.suppress(OSError):  # the server was closed
                while True:
                    far, _ = server.accept()
                    with other_end(far, "stream", str(size), str(pem)) as process:
                        process.wait()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield {"host": host, "port": str(server.getsockname()[1])}
        finally:
            server.shutdown(socket.SHUT_RDWR)  # accept() returns then, which close() alone does not do
            thread.join(10)
