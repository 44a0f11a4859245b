"""The order of commands: a queue per engine, and the routing of replies (no I/O).

The rules.

* Every engine has a queue: one command that runs, and those that wait. A command joins the queues of
  all its targets in one step, so engines that work together see the same order.
* An engine is sent the next command when it has replied to the previous one. It copies a large body, so that it
  does not change while it is sent (:mod:`ipmpi.engine.rank.largeanswers`). If the body is too large to copy, and
  the client does not read it, the reply is dropped as soon as other work waits for the engine.
* A failure clears the failing engine's queue; the commands in it fail with QueueCleared, also those of other
  clients.
* A command before the end of a job is placed in the queues of all its engines behind the same command, the last
  one that any of them has begun. It is never cleared, its failure clears nothing, and all clients get a notice of
  that.
* Engines that become free for the same command in one iteration get it in one message per set; a body from the
  client is then sent once.

Tasks are handled in :mod:`ipmpi.controller.farm.farm`: an engine that has both runs commands first. Methods take
events and change the state; :meth:`Router.flush` returns the effects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ... import errors, limits
from ...ids import NONE, Ids, IdSet
from ...protocol import messages as m
from ...protocol.frames import Buffer, size_of
from ...ranges import engines_named
from ..deadlines import failure
from ..effects import Announce, Decline, Effect, Forward, GiveUp, Send
from ..headers import LARGEST_HEADER, header_size
from ..registry import Registry
from .arriving import ArrivingCommand
from .beforeend import OwnCommands
from .commandqueue import CommandQueue, Stage, begin, gone, which_cleared
from .debuggers import Debuggers
from .held import Held
from .history import CommandHistory
from .output import for_client
from .passing import NOT_TAKEN, Passing
from .queuedcommand import ClientCommands, QueuedCommand, Serials, check_size, dispatch
from .queues import Queues, first_idle, withdraw
from .resumed import ResumedCommands
from .setpeers import whole_sets, withdrawn


class Router:
    """The state of all queues."""

    def __init__(self, first_serial: int = 1) -> None:
        self.registry = Registry()
        self._queues = Queues()
        self._held = Held()
        self._clients: dict[int, ClientCommands] = {}
        self.history = CommandHistory(self._clients)
        self._works: dict[int, QueuedCommand] = {}
        self._serial = Serials(first_serial)
        self._now = 0.0
        self._effects: list[Effect] = []
        self._interrupting: dict[QueuedCommand, list[int]] = {}
        self._starting: dict[QueuedCommand, IdSet] = {}
        self._late: dict[QueuedCommand, IdSet] = {}
        self._undone: dict[tuple[QueuedCommand, str, str, m.Death | None], IdSet] = {}
        self._passing: dict[tuple[int, int], Passing] = {}
        self._arriving = ArrivingCommand(self._queues, self._advance, self._will_not_run)
        self.debuggers = Debuggers(
            self.registry, self._works, self._clients, self._running, lambda effect: self._effects.append(effect),
            first_serial,
        )  # fmt: skip
        self.own = OwnCommands(self.registry, self._queues, self._works, self._serial, self._advance)
        parts = self.registry, self._queues, self._works, self._clients, self._serial
        self.resumed = ResumedCommands(
            *parts, self.command, self._advance, lambda effect: self._effects.append(effect), lambda: self.history
        )
        self.stale_results = 0  # unexpected replies, which are dropped

    # --- clients -------------------------------------------------------------------------------------------

    def command(self, client: int, message: m.Command, body: Sequence[Buffer], stream: int) -> None:
        """Queue a command; raises an error to refuse it."""
        targets = self.registry.resolve(message.targets)
        if not targets:
            raise errors.InvalidEngineID("a command for no engine at all: the list of targets is empty")
        if message.one_idle:
            targets = first_idle(self._queues, targets)
        check_size(message, len(targets))
        state = self._clients.setdefault(client, ClientCommands())
        state.check_room(message.id, size_of(body))
        work = QueuedCommand.of(next(self._serial), client, message, body, stream, targets)
        work.whole = whole_sets(self.registry, targets)
        state.inline_bytes += work.inline_bytes
        if message.targets is None or message.one_idle:
            work.announce = targets
        state.commands[message.id] = work
        self._works[work.serial] = work
        self.history.begun(work, targets)
        queues = self._queues.each(targets)
        for queue in queues:
            queue.waiting.append(work)
        self._advance(*queues)

    def body_again(self, client: int, message: m.BodyAgain, stream: int) -> None:
        """The client sends a body again, for engines that were not free the first time."""
        work = next((w for w in self._late if w.client == client and w.id == message.id), None)
        if work is None or sum(work.sizes) != sum(message.sizes):
            self._effects.append(Decline(client, stream))
            return
        work.asked_again = False
        work.stream = stream
        engines = self._late.pop(work).ids()
        # All engines that waited for it may be lost; the stream is kept for those that have not reached it yet.
        if engines:
            self._dispatch_streamed(work, engines)

    def has_work(self, key: int) -> bool:
        """Whether any engine of a set runs a command, or commands wait for it."""
        engine_set = self.registry.sets.get(key)
        engines = NONE if engine_set is None else engine_set.ids()
        return any(queue.is_busy for _, queue in self._queues.parts(engines))

    def queue_status(self, targets: Iterable[int] | None) -> list[tuple[range, str | None, list[str]]]:
        """``(engines, running label or None, [waiting label, ...])``, of engines together that have the same."""
        found = []
        for part, queue in self._queues.parts(self.registry.resolve(targets)):
            labels = [work.label for work in queue.waiting]
            found += [(each, self._held.shown(each[0], queue.runs), labels) for each in self._held.apart(part)]
        return found

    def busy_since(self, engine: int) -> float | None:
        """Return when an engine was sent its current command; None if it runs none."""
        return self._queues.look(engine).busy_since

    def task_holds(self, key: int, message: m.TaskHolds) -> None:
        """An engine does not return from a task, or has returned."""
        for number in self.registry.of_ranks(key, [message.rank]):
            self._held.note(number, message.label)

    def clear_queue(self, targets: Iterable[int] | None) -> Ids:
        """Drop the queued commands; running ones continue."""
        ids = self.registry.resolve(targets)
        for queue in self._waiting(ids):
            self._clear(queue, "the queue was cleared by clear_queue()")
        return ids

    def interrupt(
        self, targets: Iterable[int] | None, client: int = 0, commands: Sequence[int] | None = None
    ) -> dict[int, QueuedCommand]:
        """Interrupt what runs, or only commands of one client, which also leave queues; return them by engine."""
        engines = self.registry.resolve(targets)
        works = None
        if commands is not None:
            mine = self._clients.get(client, ClientCommands()).commands
            found = (mine.get(number) or self.history.work(client, number) for number in commands)
            works = [work for work in found if work is not None]
            for work, waiting in withdraw(self._queues, engines, works):
                self._will_not_run(work, waiting, "KeyboardInterrupt", f"{work.label} had not begun")
        busy = {
            engine: queue.running
            for part, queue in self._queues.parts(engines)
            if queue.running is not None and (works is None or queue.running in works)
            for engine in part
        }
        for engine, work in busy.items():
            if engine in self._late.get(work, ()):  # the engine has not got it yet
                self._late[work].remove([engine])
                self._will_not_run(work, [engine], "KeyboardInterrupt", f"{work.label} waited for its data")
                text = f"{work.label} was interrupted on engine {engine}, which cleared its queue"
                self._clear(self._queues.own(engine), text)
                self._free([engine], work)
            else:
                self._interrupting.setdefault(work, []).append(engine)  # sent after the commands of this turn
        return busy

    def kill(self, targets: Iterable[int] | None, reason: str = "it was ended by kill()") -> Ids:
        """End engines."""
        ids = self.registry.resolve(targets)
        for key, ranks in self.registry.by_set(ids).items():
            self._effects.append(Send(key, m.StopRanks(ranks)))
        self._lose(ids, reason)
        return ids

    def client_lost(self, client: int, heard: float | None = None) -> None:
        """A client's session has ended. Its commands are run if their bodies are here.

        ``heard``: when it was heard of last, in seconds since 1970.
        """
        state = self._clients.pop(client, None)
        self.debuggers.client_lost(client, state.commands.values() if state else ())
        for work in list(state.commands.values()) if state else []:
            if work.is_streamed:
                self._drop_bodiless(work)
        self.history.client_lost(client, heard)

    def _drop_bodiless(self, work: QueuedCommand) -> None:
        """The body of a command will not arrive (again): no engine may wait for it."""
        work.will_fail = True
        text = f"{work.label} will not run: its client was gone before it had sent the data"
        starting = [*self._starting.pop(work, ()), *self._late.pop(work, ())]
        for queue in self._waiting(work.outstanding):
            if work in queue.waiting:
                queue.waiting.remove(work)
                self._will_not_run(work, queue.engines, "ConnectionError", text)
        self._will_not_run(work, starting, "ConnectionError", text)
        self._free(starting, work)

    # --- engine sets -----------------------------------------------------------------------------------------

    def register(self, key: int, message: m.Register) -> Ids:
        """Register a set; return its ids."""
        self.set_lost(key, "its engine set registered anew")
        ids = self.registry.register(key, message)
        self._queues.add(ids)
        self._effects.append(Send(key, m.Registered(ids)))
        return ids

    def output(self, key: int, message: m.Output) -> None:
        """Ranks print something while they run a command: its client is told."""
        work = self._works.get(message.id)
        if work is not None and not work.is_before_end:
            passed_on = for_client(work, message, lambda ranks: self._running(key, work, ranks))
            self._effects += [Send(work.client, passed_on)] if passed_on is not None else []

    def _running(self, key: int, work: QueuedCommand, ranks: Sequence[int]) -> Ids:
        """The ids of those of a set's ranks that were given a command and have not answered."""
        ids = self.registry.of_ranks(key, ranks)
        return self._queues.those(ids, lambda queue: queue.running is work and queue.stage is Stage.GIVEN)

    def result(self, key: int, message: m.Result, body: Sequence[Buffer], stream: int) -> None:
        """Ranks have replied."""
        work = self._works.get(message.id)
        ids = NONE if work is None else self._running(key, work, Ids.of(message.engines).ascending())
        if len(ids) < len(message.engines):
            self.stale_results += len(message.engines) - len(ids)
        if work is not None and work.given_up:
            ids = self._arriving.not_come(work, ids)
        if work is None or not ids:
            if stream:
                self._effects.append(Decline(key, stream))
            return
        if header_size(message.outcome, message.sizes, len(ids)) > LARGEST_HEADER:
            self._unsendable(work, ids, key, stream)
        else:
            self._command_result(work, ids, message, body, key, stream)

    def _unsendable(self, work: QueuedCommand, ids: Ids, key: int, stream: int) -> None:
        """Send an error in place of a reply that does not fit into the message to the client."""
        text = f"the reply to {work.label} is too large for one message: pull() large data by name"
        if stream:
            self._effects.append(Decline(key, stream))
        self._will_not_run(work, ids, "MessageSizeError", text)
        self._free(ids, work)

    def _command_result(
        self, work: QueuedCommand, ids: Ids, message: m.Result, body: Sequence[Buffer], key: int, stream: int
    ) -> None:
        answer = m.Result(work.id, ids, message.ok, message.outcome, message.sizes)
        known = not work.is_before_end
        if known and work.announce and ids.ascending() == work.announce.ascending():
            work.announce = NONE  # the reply itself has the engines
        elif known and work.announce:
            self._announce(work)
        if stream and not (work.client in self._clients or self.history.large(work, ids, message.ok)):
            self._effects.append(Decline(key, stream))
        elif stream and known:
            self._effects.append(Forward(key, stream, sum(message.sizes), ((work.client, answer),)))
            self._passing[key, stream] = Passing(work, ids)
        elif known:
            self._effects.append(Send(work.client, answer, body))
        if work.is_before_end and not message.ok:
            self._effects.append(failure(ids, work.label, message.outcome))
        self._answered(work, ids, message.ok)

    def forward_ended(self, source: int, stream: int, complete: bool = True) -> None:
        """A body was passed on, or (not ``complete``) will never be."""
        self._arriving.ended(source, stream)
        passing = self._passing.pop((source, stream), None)
        if passing is None or complete:
            return
        label, engines = passing.work.label, engines_named(passing.engines)
        text = f"the answer of {engines} to {label} did not arrive: {passing.reason}"
        self._effects.append(
            Send(passing.work.client, m.Undone(passing.work.id, passing.engines, passing.error, text))
        )

    def stuck(self, key: int, message: m.AnswerStuck, others_wait: Callable[[int, int], bool]) -> int:
        """An engine waits for its reply to be read; drop it if other clients wait for the engine.

        Args:
            key: the key of its set.
            message: identifies the reply.
            others_wait: called with engine and client, returns whether others have tasks there.

        Returns:
            The client if the reply is dropped, else 0.
        """
        for (source, stream), passing in self._passing.items():
            ids = self.registry.of_ranks(key, [message.rank])
            if source != key or passing.work.serial != message.id or not set(ids) & set(passing.engines):
                continue
            client = passing.work.client
            if not any(self.is_wanted_by_others(number, client) or others_wait(number, client) for number in ids):
                return 0
            self._effects.append(GiveUp(source, stream))
            return client
        return 0

    def give_up(self, source: int, stream: int) -> None:
        """Stop forwarding the body of a reply, which the client does not read."""
        passing = self._passing.get((source, stream))
        if passing is not None:
            passing.error, passing.reason = "ConnectionError", NOT_TAKEN

    def is_wanted_by_others(self, engine: int, client: int) -> bool:
        """Return whether commands of other clients run or wait on an engine."""
        return self._queues.look(engine).is_wanted_by_others(client)

    def passing(self) -> dict[int, list[tuple[str, int]]]:
        """Return, by engine, the labels and clients of replies that are being forwarded."""
        found: dict[int, list[tuple[str, int]]] = {}
        for passing in self._passing.values():
            for engine in passing.engines:
                found.setdefault(engine, []).append((passing.work.label, passing.work.client))
        return found

    def held_up(self) -> dict[int, QueuedCommand]:
        """Return, by client, a command whose body engines wait for, while others wait for the engines."""
        return self._arriving.held_up(self._late)

    def give_way(self, work: QueuedCommand) -> None:
        """Defer a command whose client does not send its body; see :class:`ArrivingCommand`."""
        commands = self._clients[work.client].commands.values()
        later = [other for other in commands if other is not work and other.place > work.place]
        work.asked_again = False
        self._effects += self._arriving.give_way(work, later, [*self._late.pop(work, ())], self._serial)

    def ranks_lost(
        self, key: int, ranks: Iterable[int], reason: str, now: float | None = None, death: m.Death | None = None
    ) -> Ids:
        """Ranks of a set are lost; return their ids."""
        ids = self.registry.of_ranks(key, ranks)
        self._lose(ids, reason, now, death)
        return ids

    def set_lost(self, key: int, reason: str, now: float | None = None, *, told: m.EndSet | None = None) -> Ids:
        """A whole set is lost, or is ``told`` to end; return its ids."""
        self._effects += [] if told is None else [Send(key, told)]
        engine_set = self.registry.sets.get(key)
        ids = NONE if engine_set is None else engine_set.ids()
        self._lose(ids, reason, now)
        for source, stream in [name for name in self._passing if name[0] == key]:
            self.forward_ended(source, stream, complete=False)
        return ids

    # --- queues ----------------------------------------------------------------------------------------------

    def _advance(self, *queues: CommandQueue) -> None:
        """Send the engines of queues their next commands, if they are free."""
        for work, engines in begin(queues).items():
            if (starting := self._starting.get(work)) is not None:
                starting.add(engines)
            else:
                self._starting[work] = IdSet(engines)

    def runs(self, engine: int, work: QueuedCommand) -> bool:
        """Return whether this engine still runs this command; another engine may have got its id."""
        return engine in self._queues and self._queues.look(engine).running is work

    def _free(self, engines: Iterable[int], work: QueuedCommand) -> None:
        self._go_on(self._queues.that_run(work, engines))

    def _go_on(self, engines: Ids) -> None:
        """These engines run nothing any more."""
        queues = self._queues.each(engines)
        for queue in queues:
            queue.running = None
        self._advance(*queues)

    def _waiting(self, engines: Iterable[int]) -> list[CommandQueue]:
        """Those queues of these engines in which something waits."""
        return self._queues.each(self._queues.those(engines, lambda queue: bool(queue.waiting)))

    def _answered(self, work: QueuedCommand, ids: Ids, ok: bool) -> None:
        work.is_answered = True
        self._settle(work, ids)
        if not ok and not work.is_before_end:
            for queue in self._waiting(self._queues.that_run(work, ids)):
                self._clear(queue, f"{work.label} failed on {which_cleared(queue.engines)}")
        self._go_on(ids)

    def _settle(self, work: QueuedCommand, engines: Iterable[int]) -> None:
        """Engines have replied, or will not."""
        work.outstanding.remove(engines)
        if not work.outstanding:
            self._forget(work)

    def _forget(self, work: QueuedCommand) -> None:
        if self._works.pop(work.serial, None) is None:
            return
        self._late.pop(work, None)
        if work.stream:
            self._effects.append(Decline(work.client, work.stream))
            work.stream = 0
        client = self._clients.get(work.client)
        if client is not None:
            client.commands.pop(work.id, None)
            client.inline_bytes -= work.inline_bytes

    def _clear(self, queue: CommandQueue, reason: str) -> None:
        waiting, queue.waiting = queue.waiting, [work for work in queue.waiting if work.is_before_end]
        for work in waiting:
            if not work.is_before_end:
                self._will_not_run(work, queue.engines, "QueueCleared", reason)

    def _will_not_run(
        self, work: QueuedCommand, engines: Iterable[int], error: str, text: str, death: m.Death | None = None
    ) -> None:
        self._undone.setdefault((work, error, text, death), IdSet()).add(engines)
        self._settle(work, engines)

    def _lose(self, ids: Ids, reason: str, now: float | None = None, death: m.Death | None = None) -> None:
        reason = reason[: 8 * limits.LABEL]
        for part, queue in list(self._queues.parts(ids)):
            works = list(filter(None, [queue.running, *queue.waiting]))
            for number in part if works else ():
                engine = self.registry.engines[number]
                text = gone(engine, reason, None if death is not None else now, queue)
                known = death or m.Death(engine.rank, engine.pid, engine.host)
                for work in works:
                    self._will_not_run(work, [number], "EngineLost", text, known)
        for passing in self._passing.values():
            for number in IdSet(ids).common(passing.engines):
                queue = self._queues.look(number)
                passing.error = "EngineLost"
                passing.reason = gone(self.registry.engines[number], reason, None if death else now, queue)
        for engines in (*self._starting.values(), *self._late.values()):
            engines.remove(ids)
        self._held.forget(ids)
        self._queues.remove(ids)
        self.registry.remove(ids)

    # --- effects -----------------------------------------------------------------------------------------------

    def flush(self, now: float = 0.0) -> list[Effect]:
        """Return the effects of all events since the last call, in order."""
        self._now = now
        undone, self._undone = self._undone, {}
        for (work, error, text, death), lost in undone.items():
            ids = lost.ids()
            if not work.is_before_end:
                self._announce(work)
                self._effects.append(Send(work.client, m.Undone(work.id, ids, error, text, death)))
            else:
                text = f"{work.label} did not come to its end on {engines_named(ids)}: {text}"
                self._effects.append(Announce(text))
        for starting, engines in self._starting.items():
            if engines:
                self._dispatch(starting, engines.ids())
        self._starting.clear()
        self._effects += withdrawn(self.registry, undone)
        meant = IdSet()  # not those that run the next one
        for work, numbers in self._interrupting.items():
            meant.add(self._queues.that_run(work, IdSet(numbers)))
        self._interrupting.clear()
        self._effects += [Send(key, m.InterruptRanks(it)) for key, it in self.registry.by_set(meant).items()]
        self.debuggers.channels.look()
        self._queues.merge()
        effects, self._effects = self._effects, []
        return self.history.pass_on(effects)

    def _announce(self, work: QueuedCommand) -> None:
        if work.announce:
            self._effects.append(Send(work.client, m.Accepted(work.id, work.announce)))
            work.announce = NONE

    def _dispatch(self, work: QueuedCommand, ids: Ids) -> None:
        if work.is_streamed:
            self._dispatch_streamed(work, ids)
            return
        for key, message in self._messages(work, ids):
            self._effects.append(Send(key, message, work.body))

    def _messages(self, work: QueuedCommand, ids: Ids) -> list[tuple[int, m.Dispatch]]:
        for queue in self._queues.each(ids):
            queue.stage, queue.since = Stage.GIVEN, self._now
        sets = self.registry.by_set(ids).items()
        return [(key, dispatch(work, ranks, is_whole=key in work.whole)) for key, ranks in sets]

    def _dispatch_streamed(self, work: QueuedCommand, ids: Ids) -> None:
        if work.stream and ids:
            sinks = tuple(self._messages(work, ids))
            self._effects.append(Forward(work.client, work.stream, sum(work.sizes), sinks))
            self._arriving.begin(work.stream, work, ids)
            work.stream = 0
            return
        self._late.setdefault(work, IdSet()).add(ids)
        if not work.asked_again:
            work.asked_again = True
            self._effects.append(Send(work.client, m.SendBodyAgain(work.id)))
