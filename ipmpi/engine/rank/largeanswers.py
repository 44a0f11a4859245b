"""Large replies of a rank: copied piece by piece into memory that the agent can read.

A reply has the arrays of the namespace, in one consistent state. So it is copied before anything else runs, and
the agent sends the copy at the pace of its receiver. If the copy would take too much of the node's memory, the
rank waits until a part was sent: nothing runs here meanwhile, so the state is consistent, too.

Copies are in files in memory. Those that nobody has any more are used again for the next answers, and given back
when the rank has been idle for a while: it has no timer, so it sleeps for no longer than that.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ... import limits
from ...memory import address_space, available_bytes
from ...protocol.frames import Buffer
from ...protocol.rankmessages import DataPiece, encode
from ...transport.packets import PACKET, RankSocket
from ...transport.segmentpool import SegmentPool

PIECE: Final = 4 * limits.MIB
"""Bytes of a piece, which is sent while the next one is copied."""
_LEAST: Final = 4 * PIECE
"""Bytes of copies that a rank may always have."""
_INLINE: Final = PACKET // 2


class LargeAnswers:
    """Copies that have not been sent.

    Args:
        neighbours: number of ranks that share the memory of this node.
        wait: called when nothing more may be copied: returns after a message of the agent.
    """

    def __init__(self, socket: RankSocket, wait: Callable[[], bool], neighbours: int = 1) -> None:
        self._socket = socket
        self._wait = wait
        self.neighbours = max(1, neighbours)
        self._copied = 0
        self._address_space = address_space()
        self._pool = SegmentPool(self._may_keep)

    def _may_keep(self) -> int:
        return min(limits.POOL_BYTES, int(limits.POOL_SHARE / self.neighbours * available_bytes()))

    def give_back(self) -> int | None:
        """Close files that were not used for a while; milliseconds until more are due, None if there are none."""
        if self._pool.is_empty:
            return None
        pause = self._pool.give_back(time.monotonic())
        return None if pause is None else math.ceil(1000 * pause)

    def freed(self, size: int) -> None:
        """The agent has sent ``size`` bytes."""
        self._copied -= size

    def send(self, segments: Sequence[Buffer]) -> None:
        """Send the segments of an announced reply; returns when nothing refers to them any more."""
        most = _LEAST
        for piece in _pieces(segments):
            size = len(piece)
            if self._copied + size > most:
                share = limits.ANSWER_COPIES / self.neighbours
                # The agent maps what it sends, and has the same limit as its ranks had when they began.
                left = min(available_bytes() + self._copied, self._address_space)
                most = max(_LEAST, int(share * left))
            while self._copied + size > most:
                if not self._wait():
                    return  # the agent has ended
            self._copied += size
            self._send(piece)

    def _send(self, piece: memoryview) -> None:
        if len(piece) > _INLINE and self._send_in_memory(piece):
            return
        # A small one, or there is no room for files in memory, or no descriptor: through the socket, then.
        for at in range(0, len(piece), _INLINE):
            part = piece[at : at + _INLINE]
            self._socket.send(encode(DataPiece(len(part), shared=False), [part]))

    def _send_in_memory(self, piece: memoryview) -> bool:
        try:
            descriptor = self._pool.file_with([piece], len(piece), time.monotonic())
        except OSError:
            return False
        try:
            return self._socket.send(encode(DataPiece(len(piece))), (descriptor,))
        finally:
            os.close(descriptor)


def _pieces(segments: Sequence[Buffer]) -> Iterator[memoryview]:
    for segment in segments:
        view = memoryview(segment).cast("B")
        for at in range(0, len(view), PIECE):
            yield view[at : at + PIECE]
