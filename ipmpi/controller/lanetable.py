"""Bulk lanes as the controller knows them: who has one, and which tickets are good (sans-IO).

A lane belongs to a client and an engine set, named by the numbers of their sessions. Its states, and what leads
from one to the next, are :data:`_NEXT`; anything else that a peer says about a lane is ignored, as it may have
crossed with the end of the lane.
"""

from __future__ import annotations

import enum
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from .. import limits
from ..protocol.lanes import TICKET_BYTES

_CUT_KEPT: Final = 4
"""Lanes of one client and set that were cut and are remembered: their last bytes may be on their way."""


class LaneState(enum.Enum):
    """How far a lane has come."""

    OFFERED = "the set was asked"
    DIALLING = "both ends have tickets"
    JOINED = "both ends have come"
    UP = "bodies may go by it"
    CUT = "its connection is over"


class LaneEvent(enum.Enum):
    """What happens to a lane."""

    ACCEPTED = "the set has accepted"
    CAME = "the second end has come"
    READY = "both ends have made their handshake"
    CUT = "an end has lost the connection"


_NEXT: Final[Mapping[tuple[LaneState, LaneEvent], LaneState]] = {
    (LaneState.OFFERED, LaneEvent.ACCEPTED): LaneState.DIALLING,
    (LaneState.DIALLING, LaneEvent.CAME): LaneState.JOINED,
    (LaneState.JOINED, LaneEvent.READY): LaneState.UP,
    (LaneState.JOINED, LaneEvent.CUT): LaneState.CUT,
    (LaneState.UP, LaneEvent.CUT): LaneState.CUT,
    (LaneState.CUT, LaneEvent.CUT): LaneState.CUT,
}

Pair = tuple[int, int]
"""A client and an engine set."""


@dataclass
class Lane:
    """One lane. ``made_by``: when it has to be up. ``tickets`` that were not used, and whose they are.

    ``rest``: bytes that each end has sent through the controller after the lane was cut.
    """

    number: int
    pair: Pair
    made_by: float
    state: LaneState = LaneState.OFFERED
    tickets: dict[bytes, int] = field(default_factory=dict)
    rest: Counter[int] = field(default_factory=Counter)
    ready: set[int] = field(default_factory=set)

    def other(self, key: int) -> int:
        """Return the other end's session."""
        return self.pair[0] if key == self.pair[1] else self.pair[1]


@dataclass
class _History:
    """Of the lanes of a client and a set: the pause after the next failure, and until when there is one."""

    pause: float = limits.LANE_AGAIN
    not_before: float = float("-inf")


class LaneTable:
    """All lanes."""

    def __init__(self) -> None:
        self._lanes: dict[int, Lane] = {}
        self._current: dict[Pair, Lane] = {}
        self._tickets: dict[bytes, Lane] = {}
        self._history: dict[Pair, _History] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._lanes)

    def current(self, pair: Pair) -> Lane | None:
        """Return the lane of these two that is up, or being made."""
        return self._current.get(pair)

    def begin(self, pair: Pair, now: float) -> Lane | None:
        """Begin to make a lane; None if there are too many, or the last one has failed just now."""
        mine = sum(client == pair[0] for client, _ in self._current)
        if pair in self._current or mine >= limits.LANES_OF_CLIENT or len(self._current) >= limits.LANES:
            return None
        if now < self._history.setdefault(pair, _History()).not_before:
            return None
        lane = Lane(self._next, pair, now + limits.LANE_MADE)
        self._next += 1
        self._lanes[lane.number] = self._current[pair] = lane
        return lane

    def of(self, key: int, number: int) -> Lane | None:
        """Return a lane of this session, by its number."""
        lane = self._lanes.get(number)
        return lane if lane is not None and key in lane.pair else None

    def accepted(self, key: int, number: int) -> tuple[Lane, bytes, bytes] | None:
        """Return the tickets of client and set, now that the set has accepted; None if it was not asked."""
        lane = self.of(key, number)
        if lane is None or key != lane.pair[1] or not self._goes_on(lane, LaneEvent.ACCEPTED):
            return None
        tickets = secrets.token_bytes(TICKET_BYTES), secrets.token_bytes(TICKET_BYTES)
        lane.tickets = dict(zip(tickets, lane.pair, strict=True))
        self._tickets.update(dict.fromkeys(tickets, lane))
        return lane, *tickets

    def came(self, ticket: bytes, now: float) -> tuple[Lane, int] | None:
        """Use a ticket up; return its lane and whose it was, or None if it is not good (any more)."""
        lane = self._tickets.pop(ticket, None)
        if lane is None or lane.state is not LaneState.DIALLING or now >= lane.made_by:
            return None
        key = lane.tickets.pop(ticket)
        if not lane.tickets:
            self._goes_on(lane, LaneEvent.CAME)
        return lane, key

    def is_ready(self, key: int, number: int) -> Lane | None:
        """An end has made its handshake; return the lane if the other one has, too."""
        lane = self.of(key, number)
        if lane is None:
            return None
        lane.ready.add(key)
        if len(lane.ready) < len(lane.pair) or not self._goes_on(lane, LaneEvent.READY):
            return None
        self._history[lane.pair] = _History()
        return lane

    def cut(self, key: int, number: int, now: float) -> tuple[Lane, list[Lane]] | None:
        """An end has lost the connection; return the lane, and those that are to be forgotten meanwhile."""
        lane = self.of(key, number)
        if lane is None or not self._goes_on(lane, LaneEvent.CUT):
            return None
        if self._current.get(lane.pair) is lane:
            self._put_off(lane, now)
        cut = [each for each in self._lanes.values() if each.pair == lane.pair and each.state is LaneState.CUT]
        for old in cut[:-_CUT_KEPT]:
            self._drop(old)
        return lane, cut[:-_CUT_KEPT]

    def failed(self, key: int, number: int, now: float) -> Lane | None:
        """A lane could not be made; it is returned. None if it is not known, or was made."""
        lane = self.of(key, number)
        if lane is None or lane.state in (LaneState.UP, LaneState.CUT):
            return None
        self._put_off(lane, now)
        self._drop(lane)
        return lane

    def is_rest(self, key: int, number: int, size: int) -> bool:
        """Whether the lane was cut, and an end can have so many bytes more of it to send by the session."""
        lane = self.of(key, number)
        if lane is None or lane.state is not LaneState.CUT:
            return False
        lane.rest[key] += size
        return lane.rest[key] <= limits.LANE_REST

    def given_up(self, key: int, number: int, now: float) -> Lane | None:
        """An end has lost what came by a lane that was made; return it, and forget it. None if it is not known."""
        lane = self.of(key, number)
        if lane is None or lane.state not in (LaneState.UP, LaneState.CUT):
            return None
        if self._current.get(lane.pair) is lane:
            self._put_off(lane, now)
        self._drop(lane)
        return lane

    def overdue(self, now: float) -> list[Lane]:
        """Return, and forget, the lanes that were not made in time."""
        late = [lane for lane in self._current.values() if lane.state is not LaneState.UP and now >= lane.made_by]
        for lane in late:
            self._put_off(lane, now)
            self._drop(lane)
        return late

    def ended(self, key: int) -> list[Lane]:
        """A session is over: return, and forget, its lanes."""
        lost = [lane for lane in self._lanes.values() if key in lane.pair]
        for lane in lost:
            self._drop(lane)
        self._history = {pair: known for pair, known in self._history.items() if key not in pair}
        return lost

    def _goes_on(self, lane: Lane, event: LaneEvent) -> bool:
        following = _NEXT.get((lane.state, event))
        if following is None:
            return False
        lane.state = following
        return True

    def _put_off(self, lane: Lane, now: float) -> None:
        self._current.pop(lane.pair, None)
        known = self._history.setdefault(lane.pair, _History())
        known.not_before = now + known.pause
        known.pause = min(2 * known.pause, limits.LANE_AGAIN_LONGEST)

    def _drop(self, lane: Lane) -> None:
        self._lanes.pop(lane.number, None)
        if self._current.get(lane.pair) is lane:
            del self._current[lane.pair]
        for ticket in lane.tickets:
            self._tickets.pop(ticket, None)
