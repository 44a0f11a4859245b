"""The other end of a connection whose speed is measured, in a process of its own.

``python -m ipmpi.bench.otherend echo FD`` sends back each byte that comes; ``stream FD SIZE [PEM]`` takes ``SIZE``
bytes again and again, by TLS if there is a file with a key and a certificate, and says so with one byte each time.
Both end with the connection; ``stream`` then prints the seconds of processor time that it used.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time
from typing import Final

PIECE: Final = 1 << 20


def echo(sock: socket.socket) -> None:
    """Send back each byte, until the connection ends."""
    while piece := sock.recv(64):
        sock.sendall(piece)


def stream(sock: socket.socket, size: int) -> None:
    """Take ``size`` bytes, then send one, until the connection ends."""
    piece, missing = bytearray(PIECE), size
    while count := sock.recv_into(piece, min(missing, PIECE)):
        missing -= count
        if not missing:
            sock.sendall(b"k")
            missing = size


def server_context(pem: str) -> ssl.SSLContext:
    """TLS 1.3 with the key and the certificate of a file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pem)
    return context


def main(how: str, descriptor: str, size: str = "0", pem: str = "") -> None:
    """Be the other end."""
    with socket.socket(fileno=int(descriptor)) as sock:
        if how == "echo":
            echo(sock)
            return
        connection = server_context(pem).wrap_socket(sock, server_side=True) if pem else sock
        with connection:
            before = time.process_time()
            stream(connection, int(size))
            print(time.process_time() - before, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
