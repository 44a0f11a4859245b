"""When to ask for a sign of life, and when to give up (the time is an argument)."""

from __future__ import annotations

from .. import limits


class Liveness:
    """Watches one link: every byte received is a sign of life.

    Args:
        now: the time at the start.
        silence: seconds without a byte after which the peer counts as lost.
    """

    def __init__(self, now: float, silence: float = limits.SILENCE) -> None:
        self.silence = silence
        self._heard = now
        self._asked = now

    def heard(self, now: float) -> None:
        """Something arrived."""
        self._heard = now

    @property
    def heard_at(self) -> float:
        """When the last byte arrived, or the link was made."""
        return self._heard

    def is_lost(self, now: float) -> bool:
        """Nothing arrived for so long that the network must be cut."""
        return now - self._heard >= self.silence

    def should_ping(self, now: float) -> bool:
        """Whether to ask now; asks once per interval of silence."""
        if now - max(self._heard, self._asked) < limits.PING_INTERVAL:
            return False
        self._asked = now
        return True
