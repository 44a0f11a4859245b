"""Ports for what has to come back on the same one."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path


def fixed_port() -> int:
    """A port of loopback that nobody has, and that the system gives to nobody by itself."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = random.randrange(low // 2, low)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a thousand ports are taken")
