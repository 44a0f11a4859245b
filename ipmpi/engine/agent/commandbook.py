"""The commands that ranks of a set were given, for a controller that is started again (no I/O).

The root agent keeps, for each command, which ranks were given it, what they have printed and answered, until its
client has said that it has ended. A controller that has lost all its queues is told, so that no rank is given a
command twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import msgspec

from ... import limits
from ...ids import Ids, IdSet
from ...protocol import messages as m
from ...protocol.frames import Buffer, size_of

_LEAST = 256
"""Bytes for which an answer, or a block of output, counts in addition to its own."""

_CLIENTS = 1000
"""Clients of which something was dropped, so that the message which tells that is bounded."""

Told = tuple[m.AnyMessage, Sequence[Buffer]]


@dataclass(slots=True)
class _Given:
    """One command: the ranks that were given it, and what they have answered."""

    serial: int
    client: int
    number: int
    method: str
    engines: int
    ranks: IdSet = field(default_factory=IdSet)
    answered: IdSet = field(default_factory=IdSet)
    printed: list[m.Output] = field(default_factory=list)
    answers: list[tuple[m.Result, Sequence[Buffer]]] = field(default_factory=list)
    size: int = 0


class CommandBook:
    """What is known of the commands of a set. Only the root agent has anything in it.

    ``is_on``: whether the controller has a journal, so that clients and sets go on with another one.
    """

    def __init__(self) -> None:
        self.is_on = False
        # The first of an OrderedDict is found at once, even after many of those before it were removed.
        self._given: OrderedDict[int, _Given] = OrderedDict()
        """By serial number, in the order in which they were given."""
        self._complete: OrderedDict[int, _Given] = OrderedDict()
        """Those that all their ranks have answered, oldest first."""
        self._of_client: dict[int, OrderedDict[int, int]] = {}
        """By client and number: the serial number, in the order in which they were given."""
        self._kept: OrderedDict[int, _Given] = OrderedDict()
        """Those of which answers or output are kept, oldest first."""
        self._size = 0
        self._forgotten: OrderedDict[int, int] = OrderedDict()
        """By client, that of which something was dropped last at the end: the largest number."""
        self._arriving: dict[int, m.Dispatch] = {}
        self._tells = False

    def given(self, message: m.Dispatch, stream: int = 0) -> None:
        """Ranks are given a command. ``stream``: its body is arriving."""
        if not (self.is_on and message.client):
            return
        client, below = message.client, message.below
        for number in list(takewhile(lambda number: number < below, self._of_client.get(client, ()))):
            self._forget(client, number)
        known = self._given.get(message.id)
        if known is None:
            self._begin(message)
        else:
            known.ranks.add(message.ranks)
            known.engines = max(known.engines, message.engines)  # another controller may have enlarged it
            self._complete.pop(known.serial, None)
        if stream:
            self._arriving[stream] = message

    def _begin(self, message: m.Dispatch) -> None:
        of_client = self._of_client.setdefault(message.client, OrderedDict())
        if message.number in of_client:  # a number may be used again once it is free
            self._forget(message.client, message.number)
            of_client = self._of_client.setdefault(message.client, OrderedDict())
        ranks = IdSet(message.ranks)
        known = _Given(message.id, message.client, message.number, message.method, message.engines, ranks)
        self._given[known.serial] = known
        of_client[known.number] = known.serial
        if len(self._given) > limits.BOOK_COMMANDS:
            self._drop(next(iter(self._complete.values()), next(iter(self._given.values()))))

    def arrived(self, stream: int, complete: bool) -> None:
        """The body of a command has arrived, or will not: then no rank runs it that waited for this stream."""
        message = self._arriving.pop(stream, None)
        if message is not None and not complete:
            self._not_given(message)

    def _not_given(self, message: m.Dispatch) -> None:
        if (known := self._given.get(message.id)) is not None:
            known.ranks.remove(message.ranks)

    def answered(self, message: m.Result, body: Sequence[Buffer] = (), *, is_kept: bool = True) -> None:
        """Ranks have answered; an answer that is not kept is large, and on its way.

        Ranks that were not given the command, as its body did not arrive, have no answer.
        """
        known, engines = self._given.get(message.id), Ids.of(message.engines)
        if known is None or len(known.ranks.common(engines)) < len(engines):
            return
        known.answered.add(engines)
        if is_kept:
            known.answers.append((message, body))
            self._grow(known, size_of(body) + len(message.outcome) + _LEAST)
        if len(known.answered) >= len(known.ranks):
            self._complete[known.serial] = known
            if len(self._complete) > limits.BOOK_ENDED:
                self._drop(next(iter(self._complete.values())))

    def printed(self, message: m.Output) -> None:
        """Ranks have printed something."""
        known = self._given.get(message.id)
        if known is not None:
            known.printed.append(message)
            self._grow(known, sum(len(block.data) + _LEAST for block in message.blocks))

    def _grow(self, known: _Given, size: int) -> None:
        self._kept[known.serial] = known
        known.size += size
        self._size += size
        while self._size > limits.BOOK_BYTES:
            self._drop_answers(next(iter(self._kept)))

    def _forget(self, client: int, number: int) -> None:
        of_client = self._of_client[client]
        serial = of_client.pop(number)
        if not of_client:
            del self._of_client[client]
        self._drop_answers(serial)
        self._complete.pop(serial, None)
        del self._given[serial]

    def _drop_answers(self, serial: int) -> None:
        """Keep neither answers nor output of a command."""
        known = self._kept.pop(serial, None)
        if known is not None:
            self._size -= known.size
            known.size = 0
            known.answers.clear()
            known.printed.clear()

    def _drop(self, known: _Given) -> None:
        """Forget a command whose client may still ask; it will be told that this is not known any more."""
        self._forget(known.client, known.number)
        self._forgotten[known.client] = max(known.number, self._forgotten.pop(known.client, 0))
        if len(self._forgotten) > _CLIENTS:
            self._forgotten.popitem(last=False)

    def forget_controller(self, had_journal: bool, has_journal: bool) -> None:
        """The controller is another one, which will be told if both have the journal."""
        for message in self._arriving.values():  # no rank runs a command whose body did not arrive
            self._not_given(message)
        self._arriving.clear()
        self._tells = had_journal and has_journal
        self.is_on = has_journal
        if not self._tells:
            self._given.clear()
            self._complete.clear()
            self._of_client.clear()
            self._forgotten.clear()
            self._kept.clear()
            self._size = 0

    def after_registration(self, ranks: Collection[int]) -> Iterable[Told]:
        """Yield what another controller is told, after it was told of these ranks."""
        if not self._tells:
            return
        self._tells = False
        there = IdSet(ranks)
        for known in self._given.values():
            ended = IdSet()
            for message, _ in known.answers:
                ended.add(message.engines)
            lost = IdSet(known.answered)
            lost.remove(ended)
            running = IdSet(known.ranks)
            running.remove(known.answered)
            yield (
                m.CommandsHeld(
                    known.serial, known.client, known.number, known.method, known.engines,
                    there.common(running), there.common(ended), there.common(lost),
                ),
                (),
            )  # fmt: skip
            for output in known.printed:
                yield output, ()
            for message, body in known.answers:
                if engines := there.common(message.engines):
                    yield msgspec.structs.replace(message, engines=engines), body
        yield m.CommandsHeld(is_last=True, forgotten=sorted(self._forgotten.items())), ()
