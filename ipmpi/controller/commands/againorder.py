"""Commands that are given again after another controller was killed, and the one order of them (no I/O).

The order is that of :mod:`ipmpi.controller.commands.resumed`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...ids import IdSet
from ...protocol import messages as m
from ...protocol.frames import Buffer


@dataclass
class Again:
    """A command that a client has sent again."""

    client: int
    message: m.CommandAgain
    body: Sequence[Buffer]
    stream: int
    serial: int = 0
    """Its number in the order of commands, if that is given by others; else it comes last."""

    @property
    def command(self) -> m.Command:
        """The command as it was sent for the first time."""
        sent = self.message
        return m.Command(
            sent.id, sent.targets, sent.method, sent.label, sent.operation, sent.sizes, sent.one_idle, sent.below
        )


@dataclass
class Held:
    """A command that ranks of engine sets were given; engines by what became of it there."""

    serial: int
    client: int
    number: int
    method: str
    total: int = 0
    """For how many engines it is."""
    running: IdSet = field(default_factory=IdSet)
    ended: IdSet = field(default_factory=IdSet)
    lost: IdSet = field(default_factory=IdSet)
    printed: list[m.Output] = field(default_factory=list)
    answers: list[tuple[m.Result, Sequence[Buffer]]] = field(default_factory=list)
    """Both of ids of engines, not of ranks."""

    @property
    def is_everywhere(self) -> bool:
        """Whether all its engines were given it: it has no place in the order any more."""
        return len(self.engines) >= self.total

    @property
    def engines(self) -> IdSet:
        """All engines that were given it."""
        found = IdSet(self.running)
        found.add(self.ended)
        found.add(self.lost)
        return found


def ordered(agains: Sequence[Again], held: Mapping[tuple[int, int], Held]) -> list[Again]:
    """Return commands in the order in which they join the queues, see the rules above; and number them so.

    The last command of each group was given to ranks with a number; those before it get the largest free numbers
    that are smaller, so that another controller finds the same order.
    """
    waits: dict[int, list[Again]] = {}
    """By client: what comes before the next one that was given to ranks."""
    begun: list[tuple[int, list[Again]]] = []
    for again in agains:
        group = waits.setdefault(again.client, [])
        group.append(again)
        known = held.get((again.client, again.message.id))
        if known is not None and not known.is_everywhere:
            begun.append((known.serial, waits.pop(again.client)))
    used = {each.serial for each in held.values()}
    in_order = []
    for serial, group in sorted(begun, key=lambda each: each[0]):
        free = (number for number in itertools.count(serial - 1, -1) if number not in used)
        for again in reversed(group[:-1]):
            again.serial = next(free)
            used.add(again.serial)
        in_order += group
    return in_order + [again for group in waits.values() for again in group]
