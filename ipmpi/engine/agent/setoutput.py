"""What ranks print, on its way up: folded, and told in time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

from ... import limits
from ...protocol import messages as m
from ...transport.loop import Loop, Timer
from .outputfold import OutputFold, messages_of
from .rankoutput import RankOutput


class SetOutput:
    """The output of the ranks of this node and of those below.

    Args:
        send_up: called with each message that is to go up.
    """

    def __init__(self, loop: Loop, send_up: Callable[[m.AnyMessage], None]) -> None:
        self._loop = loop
        self._send_up = send_up
        self._fold = OutputFold()
        self._ranks: list[RankOutput] = []
        self._timer: Timer | None = None
        self._timer_at = math.inf
        self._log: deque[tuple[int, bytes]] = deque()
        """What ranks of this node have printed while no command ran; the oldest goes first."""
        self._log_size = 0

    def add_rank(self, output: RankOutput) -> None:
        """Look after the output of a rank of this node."""
        self._ranks.append(output)

    def rank_gone(self, output: RankOutput) -> None:
        """A rank has ended, and everything that it has printed was read."""
        self._ranks.remove(output)

    def printed(self, rank: int, command: int, kind: int, number: int, data: bytes) -> None:
        """A rank of this node has printed a line during a command."""
        now = self._loop.now()
        self._fold.add(command, (rank,), kind, number, data, now)
        self._wake_at(now + limits.OUTPUT_WINDOW)  # for what came earlier, it is set to an earlier time

    def noted(self, rank: int, data: bytes) -> None:
        """A rank of this node has printed something while no command ran."""
        self._log.append((rank, data))
        self._log_size += len(data) + limits.OUTPUT_ENTRY
        while self._log_size > limits.OUTPUT_KEPT:
            self._log_size -= len(self._log.popleft()[1]) + limits.OUTPUT_ENTRY

    def log_of(self, ranks: Iterable[int], most: int) -> dict[int, bytes]:
        """The last ``most`` bytes that each of these ranks of this node has printed while no command ran."""
        for output in self._ranks:
            output.drain_all()  # pipes are left alone for a moment after something has come
        parts: dict[int, list[bytes]] = {rank: [] for rank in ranks}
        left = dict.fromkeys(parts, most)
        for rank, data in reversed(self._log):
            if left.get(rank, 0) > 0:
                parts[rank].append(data[-left[rank] :])
                left[rank] -= len(data)
        return {rank: b"".join(reversed(found)) for rank, found in parts.items()}

    def from_below(self, message: m.Output) -> None:
        """An agent below has told what its ranks have printed."""
        self._fold.add_blocks(message.id, message.blocks, self._loop.now())
        self._wake()

    def flush(self, command: int) -> None:
        """Tell what there is of a command: an answer follows, or an end."""
        for message in messages_of(command, self._fold.take(command)):
            self._send_up(message)

    def flush_all(self) -> None:
        """Tell what there is of all commands: ranks are lost, and their commands end."""
        for command in self._fold.due(math.inf):
            self.flush(command)

    def wait_for_line(self) -> None:
        """A rank has begun a line; it is told in time, though it has not ended."""
        self._wake_at(self._loop.now() + limits.OUTPUT_WINDOW)

    def _wake(self) -> None:
        self._wake_at(self._fold.next_deadline)

    def _wake_at(self, when: float) -> None:
        if when >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._due)

    def _due(self) -> None:
        self._timer, self._timer_at = None, math.inf
        for output in self._ranks:
            output.unfinished()
        for command in self._fold.due(self._loop.now()):
            self.flush(command)
        self._wake()
        if any(output.has_unfinished for output in self._ranks):
            self.wait_for_line()
