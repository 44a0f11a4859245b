"""Tasks that may be the cause of engines being told to end (layer L2, no I/O).

An engine that dies speaks against what it ran (:mod:`ipmpi.controller.farm.suspects`). One that is told to end
does not, since jobs come to their end; unless the same task is there each time and the engines beside it stay:
then it takes too much memory, most likely, and a service of the machine has ended it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ... import limits
from .groups import Ending, Group
from .ledger import Ledger
from .places import Places, Seat


class Endings:
    """Engines that were told to end while they ran tasks."""

    def __init__(self, ledger: Ledger, places: Places) -> None:
        self._ledger = ledger
        self._places = places

    def told_to_end(self, group: Group, indices: Sequence[int], seat: Seat) -> list[int]:
        """These ran on an engine that was told to end; returns those that may try again."""
        seats = self._places.seats
        ending = Ending(seat.key, seat.host, max((seat.number, *seats)))
        group.endings = group.endings or {}
        for index in indices:
            before = group.endings.setdefault(index, [])
            alone = sum(map(self._was_alone, before))
            before.append(ending)
            if alone:
                group.strikes = group.strikes or {}
                group.strikes[index] = max(group.strikes.get(index, 0), alone)
        text = (
            f"{group.options.label} was given up: {limits.POISON} engines were told to end (SIGTERM) while they"
            " ran it, and others beside them were not. Most likely it takes too much memory, and a service of the"
            f" machine (earlyoom, systemd-oomd) has ended them. The last was {seat.text}"
        )
        return self._give_up(group, indices, limits.POISON - 1, text)

    def _was_alone(self, ending: Ending) -> bool:
        """Whether an engine of the same set or host was there then, and still is: no job has ended."""
        return any(
            seat.number <= ending.newest and (seat.key == ending.key or seat.host == ending.host)
            for seat in self._places.seats.values()
        )

    def _give_up(self, group: Group, indices: Sequence[int], strikes: int, text: str) -> list[int]:
        known = group.strikes or {}
        poison = [index for index in indices if known.get(index, 0) >= strikes]
        self._ledger.undone(group, poison, "EngineLost", text)
        return [index for index in indices if known.get(index, 0) < strikes]
