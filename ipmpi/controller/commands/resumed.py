"""Commands that go on after another controller was killed (no I/O).

Each client has sent again what has not ended for it, in its order. Each engine set has said what its ranks were
given. What ranks were given stays with them; the rest joins the queues, in one order for all engines:

* What some engine was given comes before what any engine was given later. Ranks that work together inside such a
  command wait for those that have not begun it.
* What a client has sent before such a command comes before it.
* All else comes last, in the order in which clients have sent it: nobody sees that it was in another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Final

from ... import limits
from ...errors import KernelError
from ...ids import NONE, Ids, IdSet
from ...protocol import messages as m
from ...protocol.frames import Buffer, size_of
from ...ranges import engines_named
from ..effects import Decline, Effect, Send
from ..registry import Registry
from .againorder import Again, Held, ordered
from .commandqueue import CommandQueue, Stage, join
from .history import CommandHistory
from .pastcommand import PastCommand
from .queuedcommand import ClientCommands, QueuedCommand, Serials, check_size
from .queues import Queues, first_idle
from .setpeers import whole_sets

NOT_KEPT = (
    "has run there, but its answer was large, and on its way when the controller was killed. It is not run again: "
    "pull what it has made"
)
FORGOTTEN = (
    "may have run there: the controller was killed, and the engine set does not know any more. It is not run again"
)
TOO_LATE = (
    "has not run there: its client was away after the controller was started again, and commands of others, which "
    "come after it, have begun there meanwhile. Give it again"
)
NOT_BACK = "the engine did not come back after the controller was started again"
WAITED = "did not run: it waited when the controller was killed, and its client is gone"
HAS_IT = "has ended there, as its client knows; the answer is not kept here"


_LEAST: Final = 256
"""Bytes for which each answer and message of output counts, in addition to its own."""

_LARGEST: Final = 1 << 62
"""The controller's own numbers are smaller, and have room to grow."""


class ResumedCommands:
    """Puts together what clients and sets have said.

    Args:
        registry, queues, works, clients, serials: those of the router.
        command: queues a command as if it came for the first time.
        advance: sends the engines of a queue their next command.
        act: takes an effect.
        history: called for the history of commands, which may be another one later.
    """

    def __init__(
        self,
        registry: Registry,
        queues: Queues,
        works: MutableMapping[int, QueuedCommand],
        clients: MutableMapping[int, ClientCommands],
        serials: Serials,
        command: Callable[[int, m.Command, Sequence[Buffer], int], None],
        advance: Callable[[CommandQueue], None],
        act: Callable[[Effect], None],
        history: Callable[[], CommandHistory],
    ) -> None:
        self._registry, self._queues, self._works, self._clients = registry, queues, works, clients
        self._serials, self._command, self._advance, self._act = serials, command, advance, act
        self._history = history
        self._held: dict[tuple[int, int], Held] = {}
        self._by_serial: dict[int, Held] = {}
        self._forgotten: dict[int, tuple[int, IdSet]] = {}
        self._counted: Counter[int] = Counter()
        """Commands that each set has told, so that one that lies does not fill the memory."""
        self._bytes: Counter[int] = Counter()
        self._is_begun = False
        self._silent = IdSet()
        """Engines that have not said in time what they were given."""

    def held(self, key: int, message: m.CommandsHeld) -> None:
        """A set says what ranks were given, in the order in which they were."""
        if message.is_last:
            engines = self._registry.sets[key].ids()
            for client, number in message.forgotten:
                known, where = self._forgotten.get(client, (0, IdSet()))
                where.add(engines)
                self._forgotten[client] = max(known, number), where
            return
        self._counted[key] += 1
        if not 0 < message.id < _LARGEST or self._counted[key] > limits.BOOK_COMMANDS + limits.BOOK_ENDED:
            return
        of_ranks = self._registry.of_ranks
        name = message.client, message.number
        held = self._held.setdefault(name, Held(message.id, *name, message.method, message.engines))
        self._by_serial[message.id] = held
        held.total = max(held.total, message.engines)  # after a restart it may have been for others as well
        held.running.add(of_ranks(key, message.running))
        held.ended.add(of_ranks(key, message.ended))
        held.lost.add(of_ranks(key, message.lost))
        self._serials.continue_after(message.id)

    def answered(self, key: int, message: m.Result, body: Sequence[Buffer]) -> bool:
        """A set sends an answer again, or for the first time; return whether it belongs to what was held."""
        held = self._by_serial.get(message.id)
        if held is None:
            return False
        ids = self._registry.of_ranks(key, message.engines)
        again = held.ended.common(ids)
        if len(again) < len(ids):
            return False
        if not self._has_room(key, size_of(body) + len(message.outcome)):
            held.ended.remove(ids)
            held.lost.add(ids)
            return True
        held.answers.append((m.Result(held.number, ids, message.ok, message.outcome, message.sizes), list(body)))
        return True

    def printed(self, key: int, message: m.Output) -> bool:
        """A set tells again, or for the first time, what ranks have printed; return whether that belongs to it."""
        held = self._by_serial.get(message.id)
        if held is None:
            return False
        blocks = [
            m.OutputBlock(block.kind, block.first, engines, block.data)
            for block in message.blocks
            if (engines := self._registry.of_ranks(key, block.engines))
        ]
        if self._has_room(key, sum(len(block.data) for block in blocks)):
            held.printed.append(m.Output(held.number, blocks))
        return True

    def _has_room(self, key: int, size: int) -> bool:
        """Return whether a set tells no more than its book has, and what ranks do meanwhile."""
        self._bytes[key] += size + _LEAST
        return self._bytes[key] <= 2 * limits.BOOK_BYTES

    def settle(self, client: int, *, is_gone: bool) -> None:
        """Find out about all other commands of a client, which ``is_gone``, or has sent again what it lacks."""
        if not self._is_begun:
            return
        mine = {name[1]: held for name, held in self._held.items() if name[0] == client}
        for past in self._history().unsettled(client):
            self._settle(past, mine.get(past.number) or Held(0, *past.name, past.method), is_gone=is_gone)
        for number in mine if is_gone else ():
            del self._held[client, number]

    def learn(self, client: int) -> None:
        """A client is not back: let others know what sets have told of its commands."""
        for held in [held for name, held in self._held.items() if name[0] == client]:
            self._learn(held)

    def _learn(self, held: Held) -> None:
        for output in held.printed:
            self._history().learn(held.client, output)
        for result, body in held.answers:
            self._history().learn(held.client, result, body)

    def _settle(self, past: PastCommand, held: Held, *, is_gone: bool) -> None:
        learn, open_ones = partial(self._history().learn, past.client), IdSet(past.engines)
        self._learn(held)
        for result, _ in held.answers:
            open_ones.remove(result.engines)
        open_ones.remove(self._still(held))
        there = open_ones.common(self._registry.ids())
        number, where = self._forgotten.get(past.client, (0, IdSet()))
        unknown = IdSet(self._silent)
        unknown.add(where if past.number <= number else NONE)
        ran = IdSet(held.lost)
        ran.add(held.running)
        for engines, error, why in (
            (_without(open_ones, there), "EngineLost", f": {NOT_BACK}"),
            (ran.common(there), "ConnectionError", f" {NOT_KEPT}"),
            (unknown.common(_without(there, ran)), "ConnectionError", f" {FORGOTTEN}"),
            (_without(_without(there, ran), unknown), "ConnectionError", f" {WAITED if is_gone else HAS_IT}"),
        ):
            if engines:
                text = f"{past.label}{why} ({engines_named(engines)})"
                learn(m.Undone(past.number, engines, error, text))

    @property
    def clients(self) -> set[int]:
        """The clients of all commands that some engines were given, or that had not ended."""
        return {client for client, _ in self._held} | self._history().owners

    @property
    def owners(self) -> set[int]:
        """The clients of commands that some engines were given, and that have not ended on all of theirs."""
        held = self._held.values()
        return {each.client for each in held if each.running or not each.is_everywhere}

    def resume(self, agains: Iterable[Again], silent: Iterable[int]) -> list[tuple[Again, KernelError]]:
        """Go on with these commands, of clients that have said all; their order is that in which they arrived.

        Args:
            agains: the commands.
            silent: sets that have not said in time what their ranks were given.

        Returns:
            Those that are refused, and why.
        """
        self._silent = IdSet()
        for key in silent:
            if (engine_set := self._registry.sets.get(key)) is not None:
                self._silent.add(engine_set.ids())
        in_order = ordered(list(agains), self._held)
        cleared, passed = self._cleared(in_order), self._passed(in_order)
        refused = []
        for again in in_order:
            try:
                self._resume(again, cleared, passed.get((again.client, again.message.id), NONE))
            except KernelError as error:
                refused.append((again, error))
                self._note_refusal(again, error)
                if again.stream:
                    self._act(Decline(again.client, again.stream))
        return refused

    def _note_refusal(self, again: Again, error: KernelError) -> None:
        past = self._history().find(again.client, again.message.id)
        if past is not None and past.is_open and past.work is None:
            undone = m.Undone(past.number, past.engines, type(error).__name__, str(error))
            self._history().learn(again.client, undone)

    def begin(self) -> None:
        """All sets are back: what their ranks run is known."""
        self._is_begun = True
        self._by_serial.clear()
        for held in sorted(self._held.values(), key=lambda each: each.serial):
            if there := held.running.common(self._registry.ids()):  # some may have been lost meanwhile
                self._adopt(held, there)

    def _adopt(self, held: Held, running: Ids) -> None:
        """Let engines that run a command have it; its client, if there is one, may say more of it later."""
        work = QueuedCommand(held.serial, held.client, held.number, held.method, held.method, b"", [])
        work.outstanding = IdSet(running)
        work.is_begun = True
        self._works[work.serial] = work
        self._history().runs(work)
        for queue in self._queues.each(running):
            queue.running, queue.stage, queue.last = work, Stage.GIVEN, work.place

    def _resume(self, again: Again, cleared: Mapping[int, str], passed: Ids) -> None:
        client, message = again.client, again.message
        held = self._held.pop((client, message.id), None)
        may_be_cleared = bool(message.cleared or self._silent or cleared or passed)
        if held is None and message.engines is None and not again.serial and not may_be_cleared:
            self._as_new(again)
            return
        self._clients.setdefault(client, ClientCommands()).check_room(message.id, size_of(again.body))
        engines, lacks = self._engines_of(message, held)
        check_size(again.command, len(engines))
        if self._history().find(client, message.id) is None:  # it was under way
            work = QueuedCommand.of(again.serial, client, again.command, (), 0, engines)
            self._history().begun(work, engines)
        self._history().goes_on(client, message.id, engines, lacks)
        held = held or Held(0, client, message.id, message.method)
        there = lacks.common(self._registry.ids())
        lost = IdSet(_without(lacks, there))
        for result, _ in held.answers:
            lost.remove(result.engines)  # it has answered before
        if message.engines is None:  # first: without it, a client takes one answer to be that of all engines
            self._act(Send(client, m.Accepted(message.id, engines)))
        self._tell(again, lost.ids(), "EngineLost", f"{message.label}: {NOT_BACK}")
        for output in held.printed:
            self._act(Send(client, output))
        for result, body in held.answers:
            if wanted := lacks.common(result.engines):
                self._act(
                    Send(client, m.Result(message.id, wanted, result.ok, result.outcome, result.sizes), body)
                )
        running = self._still(held)
        for gone in (held.lost, _without(held.running, running)):
            self._tell(again, IdSet(there).common(gone), "ConnectionError", f"{message.label} {NOT_KEPT}")
        rest = _without(there, held.engines)
        number, where = self._forgotten.get(client, (0, IdSet()))
        if message.id <= number:
            self._tell(again, where.common(rest), "ConnectionError", f"{message.label} {FORGOTTEN}")
            rest = _without(rest, where)
        self._tell(again, self._silent.common(rest), "ConnectionError", f"{message.label} {FORGOTTEN}")
        rest = _without(rest, self._silent)
        over = _without([*IdSet(passed).common(rest), *IdSet(message.cleared).common(rest)], held.engines)
        self._tell(
            again, over, "QueueCleared", f"a command before {message.label} had failed, which cleared the queue"
        )
        rest = _without(rest, over)
        for engine in [each for each in rest if each in cleared]:
            self._tell(again, Ids.of([engine]), "QueueCleared", cleared[engine])
        rest = _without(rest, cleared)
        late = self._too_late(held.serial or again.serial, rest)
        self._tell(again, late, "ConnectionError", f"{message.label} {TOO_LATE}")
        rest = _without(rest, late)
        self._queue(again, held, len(engines), lacks.common(running), rest)

    def _still(self, held: Held) -> Ids:
        """Return the engines that run it now; others may have ended before its client came back."""
        serial = held.serial
        return self._queues.those(
            held.running, lambda queue: queue.running is not None and queue.running.serial == serial
        )

    def _too_late(self, serial: int, engines: Ids) -> Ids:
        """Return those of these engines that have begun what comes after a command with this number (0: none).

        Its client came back after others had gone on: it would run after that here, and before it elsewhere.
        """
        return self._queues.those(engines, lambda queue: queue.last[0] > serial) if serial else NONE

    def _as_new(self, again: Again) -> None:
        """No rank was given it, and its engines are chosen now."""
        if (past := self._history().find(again.client, again.message.id)) is not None:
            self._history().goes_on(*past.name, past.engines, past.engines)
        self._command(again.client, again.command, again.body, again.stream)

    def _engines_of(self, message: m.CommandAgain, held: Held | None) -> tuple[Ids, IdSet]:
        """Return the engines of a command, and those that have not answered."""
        if message.engines is not None:
            return Ids.of(message.engines), IdSet(message.lacks)
        given = IdSet() if held is None else held.engines
        if held is not None and given and held.is_everywhere:
            return given.ids(), given  # others have joined since
        if not message.one_idle:
            given.add(self._registry.resolve(message.targets))
        elif not given:
            given.add(first_idle(self._queues, self._registry.resolve(message.targets)))
        return given.ids(), given

    def _queue(self, again: Again, held: Held, engines: int, running: Ids, waiting: Ids) -> None:
        """Let the command, which is for so many engines, wait for those that were not given it."""
        message, client = again.message, again.client
        work = self._works.get(held.serial)
        if work is None and not waiting:
            if again.stream:
                self._act(Decline(client, again.stream))
            return
        if work is None:
            work = QueuedCommand(
                held.serial or again.serial or next(self._serials), client, message.id, message.method, "", b"", []
            )
            work.is_begun = bool(held.serial)
            self._works[work.serial] = work
        work.engines = engines
        work.label, work.operation, work.below = message.label[: limits.LABEL], message.operation, message.below
        work.outstanding.add(running)
        work.outstanding.add(waiting)
        work.whole = whole_sets(self._registry, Ids.of(message.engines or waiting))
        work.most_output = max(1, len(work.outstanding)) * limits.OUTPUT
        if waiting:
            work.sizes, work.body, work.stream = message.sizes, [bytes(part) for part in again.body], again.stream
            work.inline_bytes = size_of(again.body)
        elif again.stream:
            self._act(Decline(client, again.stream))
        state = self._clients.setdefault(client, ClientCommands())
        state.inline_bytes += work.inline_bytes
        state.commands[message.id] = work
        self._history().runs(work)
        for queue in self._queues.each(waiting):
            join(queue, work)
            self._advance(queue)

    def _tell(self, again: Again, engines: Ids, error: str, text: str) -> None:
        if engines:
            where = engines_named(engines)
            self._act(Send(again.client, m.Undone(again.message.id, engines, error, f"{text} ({where})")))

    def _cleared(self, agains: Sequence[Again]) -> dict[int, str]:
        """Return the engines whose last command has failed, which its client has not heard, and how that is told.

        The failure has cleared their queues: what was sent before it was told does not run there.
        """
        last: dict[int, Held] = {}
        for held in self._held.values():
            for engine in held.engines:
                if engine not in last or last[engine].serial < held.serial:
                    last[engine] = held
        lacking = {(each.client, each.message.id): each for each in agains}
        found = {}
        for held in self._held.values():
            if (again := lacking.get((held.client, held.number))) is None:
                continue
            failed = IdSet()
            for result, _ in held.answers:
                failed.add(NONE if result.ok else result.engines)
            if again.message.engines is not None:
                failed = IdSet(failed.common(again.message.lacks))
            for engine in failed:
                if last.get(engine) is held:
                    found[engine] = f"{again.message.label} failed on engine {engine}, which cleared its queue"
        return found

    def _passed(self, agains: Sequence[Again]) -> dict[tuple[int, int], Ids]:
        """Return, by client and number, engines that were given a later command, of the same client or of another.

        If they were not given this one, their queue was cleared, and nobody heard of that.
        """
        waits = {client: sorted(numbers, reverse=True) for client, numbers in _by_client(agains).items()}
        found: dict[tuple[int, int], IdSet] = {}
        given: dict[int, list[Held]] = {}
        later = IdSet()
        # Those that are not held, and were numbered by ordered(), were given to nobody.
        numbered = [Held(each.serial, each.client, each.message.id, "") for each in agains if each.serial]
        for held in sorted([*self._held.values(), *numbered], key=lambda each: -each.serial):
            if held.client in waits:
                given.setdefault(held.client, []).append(held)
                found[held.client, held.number] = IdSet(later)
            later.add(held.engines)
        for client, numbers in waits.items():
            mine = IdSet()
            rest = sorted(given.get(client, ()), key=lambda each: each.number)
            for number in numbers:
                while rest and rest[-1].number > number:
                    mine.add(rest.pop().engines)
                if mine:
                    found.setdefault((client, number), IdSet()).add(mine)
        return {name: engines.ids() for name, engines in found.items() if engines}


def _by_client(agains: Sequence[Again]) -> dict[int, list[int]]:
    """Return the numbers of commands by client."""
    found: dict[int, list[int]] = {}
    for again in agains:
        found.setdefault(again.client, []).append(again.message.id)
    return found


def _without(engines: Iterable[int], others: Iterable[int]) -> Ids:
    found = IdSet(engines)
    found.remove(others)
    return found.ids() if found else NONE
