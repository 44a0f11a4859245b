"""Peers that have connected and not yet proved who they are, and which of them have to make room.

Honest peers may be many: a job of 300 engines starts all of them in the same moment. So where there is no more
room, nobody goes who is not *slow*, which is not to have taken the next step (TLS, then Hello) for :data:`SLOW`
seconds. Bytes that trickle in are no step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

SLOW: Final = 0.5


class UnauthenticatedPeer(Protocol):
    """A peer that may be dropped."""

    def catch_up(self) -> None:
        """Read what it has sent: perhaps it is this process that is slow."""

    def cancel(self) -> None:
        """End its connection."""


class UnauthenticatedPeers:
    """All of one listener, by numbers.

    Args:
        now: the clock, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since: dict[int, tuple[UnauthenticatedPeer, float]] = {}
        """With the time of its last step; those who took theirs first come first."""

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Iterator[UnauthenticatedPeer]:
        return iter([peer for peer, _ in self._since.values()])

    def add(self, number: int, peer: UnauthenticatedPeer) -> None:
        """One has connected."""
        self._since[number] = peer, self._now()

    def remove(self, number: int) -> None:
        """One has proved who it is, or is gone."""
        self._since.pop(number, None)

    def stepped(self, number: int) -> None:
        """One has taken a step."""
        entry = self._since.pop(number, None)
        if entry is not None:
            self.add(number, entry[0])

    def drop_slow(self, most: int) -> None:
        """End slow ones, until there are ``most`` of them or no slow ones among them."""
        while len(self._since) > most and (number := self._slowest()) is not None:
            peer, since = self._since[number]
            peer.catch_up()
            if self._since.get(number) == (peer, since):
                del self._since[number]
                peer.cancel()

    def _slowest(self) -> int | None:
        for number, (_, since) in self._since.items():
            return number if self._now() - since > SLOW else None
        return None
