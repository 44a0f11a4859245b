"""Large answers of this rank on their way out, while its main thread waits (layer L4).

An answer shows later changes of the arrays in it, so the main thread, whose namespace they are in, does nothing
until all bytes have left. It waits not much longer than others can wait for the engine: if they do, the rest is
copied, where there is memory for that. Where there is not, the controller is told that the answer is stuck, which
knows whose it is and who waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import limits
from ..memory import available_bytes
from ..protocol import messages as m
from ..transport.loop import Loop
from ..transport.transfers import Endpoint
from .rank import Rank

_FIRST_LOOK, _LONGEST_LOOK = 0.0005, 0.02
"""Seconds between two looks whether an answer has gone."""

_PIECE = 32 * limits.MIB
"""So much is copied at a time: it takes some 10 ms, in which this thread does nothing else."""


class _Departure:
    __slots__ = ("above", "delay", "done", "moved_at", "sent", "stream", "stuck", "wanted_at")

    def __init__(
        self, above: Endpoint, stream: Any, stuck: m.AnswerStuck, done: Callable[[], None], now: float
    ) -> None:
        self.above = above
        self.stream = stream
        self.stuck = stuck
        self.done = done
        self.delay = _FIRST_LOOK
        self.sent = 0
        self.moved_at = now
        self.wanted_at: float | None = None


class Departures:
    """The large answer that the main thread waits for, and those of which a copy is on its way.

    Args:
        tell: called with what the controller is to hear.
        neighbours: how many ranks share the memory of this node.
    """

    def __init__(self, loop: Loop, rank: Rank, tell: Callable[[m.AnswerStuck], None], neighbours: int = 1) -> None:
        self._loop = loop
        self._rank = rank
        self._tell = tell
        self._neighbours = max(1, neighbours)
        self._held: _Departure | None = None
        self._copying = False
        self._copies: list[_Departure] = []

    def add(self, above: Endpoint | None, stream: Any, stuck: m.AnswerStuck, done: Callable[[], None]) -> None:
        """An answer was put on its way; ``done`` is called, once, when the main thread may go on.

        Args:
            above: where it went; None if there is nobody.
            stream: of its body; None if that went with the message.
            stuck: what to tell the controller if it does not get on.
            done: called also if it is given up.
        """
        if above is None or stream is None:
            done()
            return
        departure = _Departure(above, stream, stuck, done, self._loop.now())
        self._held, self._copying = departure, False
        self._look(departure)

    def forget(self) -> None:
        """There is a new controller: what was on its way to the old one is given up."""
        self._copies.clear()
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.done()

    def _look(self, departure: _Departure) -> None:
        """See whether the answer has gone. The main thread waits for that, so this is no timer of an idle rank."""
        if self._held is not departure:
            return
        connection = departure.above.connection
        link = getattr(departure.above, "link", None)
        queued = link is not None and link.is_open and link.pipe.backlog > 0  # pipes keep views
        if link is None:
            # Until there is a new link, nobody acknowledges what has gone: a copy of it waits for that instead.
            connection.detach()
        going = connection.is_held(departure.stream)
        if going and self._detached(departure):
            going = False
            self._copies.append(departure)
        if not going and not queued:
            self._release()
            return
        departure.delay = min(2 * departure.delay, _LONGEST_LOOK)
        delay = 0.0 if self._copying else departure.delay
        self._loop.call_later(delay, lambda: self._look(departure))

    def _detached(self, departure: _Departure) -> bool:
        """Copy some, if it is time to; whether all that is left to be sent is a copy."""
        if self._copying:
            self._copying = not departure.above.connection.copy(departure.stream, _PIECE)
            return not self._copying
        now = self._loop.now()
        if departure.stream.sent != departure.sent:
            departure.sent, departure.moved_at = departure.stream.sent, now
        if not self._rank.is_wanted:
            departure.wanted_at = None
            return False
        if departure.wanted_at is None:
            departure.wanted_at = now
        # Where others have not gone yet this one will not soon go either.
        if now < departure.wanted_at + limits.ANSWER_HELD and not self._still_going():
            return False
        if self._fits(departure):
            self._copying = True
        elif now >= max(departure.moved_at, departure.wanted_at) + limits.ANSWER_STUCK:
            departure.moved_at = now  # and again after as long
            self._tell(departure.stuck)
        return False

    def _still_going(self) -> int:
        """Bytes of copies that have not left."""
        self._copies = [copy for copy in self._copies if copy.above.connection.is_held(copy.stream)]
        return sum(copy.stream.total - copy.stream.sent for copy in self._copies)

    def _fits(self, departure: _Departure) -> bool:
        copied = self._still_going()
        left = departure.stream.total - departure.stream.sent
        # What is copied already is not available any more, but counts: it may be here for long.
        share = limits.ANSWER_COPIES / self._neighbours
        return bool(left + copied <= share * (available_bytes() + copied))
