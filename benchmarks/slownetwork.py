"""A switch for the nodes of this machine that keeps each packet for a while, as a network of some length does.

Kernels without netem, which many virtual machines have, cannot delay packets. ``python -m benchmarks.slownetwork
SECONDS NAME...`` makes a network interface (tap) of each name, prints a line, and passes frames between them until
its standard input ends. The interfaces may be moved into other namespaces meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from typing import Final

_TUNSETIFF: Final = 0x400454CA
_TAP: Final = 0x0002
_WITHOUT_HEADER: Final = 0x1000
_FRAME: Final = 65_536
_EVERYBODY: Final = 1
"""This bit of the first byte of an address says that it is not of one interface."""


def interface(name: str) -> int:
    """Make an interface, and return the file of its other end."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP | _WITHOUT_HEADER))
    return end


class Switch:
    """Passes frames on after some seconds (no I/O).

    Args:
        delay: seconds.
        ends: the interfaces, by any numbers.
    """

    def __init__(self, delay: float, ends: list[int]) -> None:
        self._delay = delay
        self._ends = ends
        self._at: dict[bytes, int] = {}
        """Behind which interface an address was seen."""
        self._under_way: deque[tuple[float, list[int], bytes]] = deque()

    def came(self, end: int, frame: bytes, now: float) -> None:
        """A frame has come from one of them."""
        receiver, sender = frame[:6], frame[6:12]
        self._at[sender] = end
        others = [other for other in self._ends if other != end]
        known = self._at.get(receiver)
        to = others if known is None or receiver[0] & _EVERYBODY else [known]
        self._under_way.append((now + self._delay, to, frame))

    def due(self, now: float) -> list[tuple[list[int], bytes]]:
        """Return what has to be passed on by now, and to which of them."""
        found = []
        while self._under_way and self._under_way[0][0] <= now:
            found.append(self._under_way.popleft()[1:])
        return found

    def next_due(self) -> float | None:
        """Return when the next frame has to be passed on; None if there is none."""
        return self._under_way[0][0] if self._under_way else None


def main(words: list[str]) -> None:
    """Run the switch until the standard input ends."""
    delay, *names = words
    ends = [interface(name) for name in names]
    switch = Switch(float(delay), ends)
    print("ready", flush=True)
    while True:
        due = switch.next_due()
        wait = None if due is None else max(0.0, due - time.monotonic())
        # select() waits for microseconds, poll() for milliseconds.
        ready = select.select([0, *ends], [], [], wait)[0]
        if 0 in ready and not os.read(0, 100):
            return
        now = time.monotonic()
        for end in ready:
            with contextlib.suppress(BlockingIOError):
                while end:
                    switch.came(end, os.read(end, _FRAME), now)
        for to, frame in switch.due(time.monotonic()):
            for end in to:
                with contextlib.suppress(OSError):  # it is not up
                    os.write(end, frame)


if __name__ == "__main__":
    main(sys.argv[1:])
