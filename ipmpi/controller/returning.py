"""Clients that come back after a restart of the controller, and what they lack (no I/O)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .effects import Effect, Send
from .farm.recovery import Ends, only


@dataclass
class Return:
    """What a client that comes back has said: groups that it lacks results of, and that it has sent (again)."""

    listed: set[int] = field(default_factory=set)
    resent: set[int] = field(default_factory=set)


class ReturningClients:
    """Clients that have not come back since the restart.

    Attributes:
        away: what each has said so far.
        lacked: by client and number of a group, what a client that came back in this turn lacks of it.
    """

    def __init__(self) -> None:
        self.away: dict[int, Return] = {}
        self.lacked: dict[tuple[int, int], set[int]] = {}

    def only_lacked(self, effects: Iterable[Effect]) -> list[Effect]:
        """Leave out results that came again in the turn in which their client came back, and which it has."""
        if not self.lacked:
            return list(effects)
        found: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, Ends):
                lacks = self.lacked.get((effect.to, effect.message.group))
                pieces = only(effect.message, b"".join(effect.body), lacks) if lacks is not None else None
                found += [effect] if pieces is None else [Send(effect.to, *piece) for piece in pieces]
            else:
                found.append(effect)
        return found

    def without_absent(self, effects: list[Effect]) -> list[Effect]:
        """Leave out what clients will be told when they have come back, and have said what they lack."""
        return [each for each in effects if not self._is_for_absent(each)] if self.away else effects

    def _is_for_absent(self, effect: Effect) -> bool:
        if not isinstance(effect, Send) or not isinstance(effect.message, Ends):
            return False
        away = self.away.get(effect.to)
        return away is not None and effect.message.group not in away.listed
