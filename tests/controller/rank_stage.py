"""Ranks of engine sets in the network simulation: what they run, one thing after the other, and how they die.

Of a rank's node agent, the records of its commands and items are modelled, which are in memory that both share;
see ``ipmpi.engine.agent.localrank`` and ``ipmpi.engine.agent.itembook``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ipmpi.engine.agent.itembook import Finished, Item, ItemBatch
from ipmpi.engine.agent.largestreams import LargeAnswer
from ipmpi.engine.agent.localrank import RankCommand
from ipmpi.engine.agent.taskagent import TaskAgent
from ipmpi.engine.rank.outcomes import DONE, FAILED, overruled, packed_failure
from ipmpi.protocol import messages as m, operations, packed, rankmessages as rm

if TYPE_CHECKING:
    from tests.controller.agent_stage import StageSet

INLINE = 2_000
"""Bytes above which bodies are streams, see ``ipmpi.limits.INLINE_BODY``: few, so that there are many streams."""
LARGE = 3_000
INTERRUPTED = operations.encode(operations.Failed("KeyboardInterrupt", "", ""))


def told(text: str, size: int) -> bytes:
    """Return so many bytes that nothing else consists of; at least the text, and what ends it."""
    once = f"{text};".encode()
    return once if size <= len(once) else (once * (size // len(once) + 1))[:size]


def text_of(data: bytes) -> str:
    """Return the text of which :func:`told` has made these bytes."""
    text = data.split(b";", 1)[0].decode()
    assert data == told(text, len(data)), f"the argument of {text} is another one, or incomplete"
    return text


class BodyMemory:
    """Stands for a file in memory that an agent shares with its ranks; its descriptor is what is in it."""

    def __init__(self, size: int, pool: Any = None) -> None:
        del pool
        self.descriptor: Any = bytearray(size)

    def write(self, at: int, data: memoryview) -> None:
        self.descriptor[at : at + len(data)] = data

    def close(self) -> None:
        pass


@dataclass(eq=False, repr=False)
class Run:
    """A task or a command on a rank: when it began and ended there, and how; 0 and "" if it has not ended."""

    name: str
    rank: StageRank
    begun: int
    ended: int = 0
    how: str = ""

    def __repr__(self) -> str:
        died = "" if self.rank.died is None else f", which died in step {self.rank.died}"
        return f"<{self.how} on engine {self.rank.engine}{died}, steps {self.begun} to {self.ended}>"


class StageItems:
    """The items of a rank, as its agent knows them. The first one may run."""

    has_finished = False
    age = 1.0

    def __init__(self, rank: StageRank) -> None:
        self._rank = rank
        self._next = 1
        self.held: dict[int, tuple[Item, bytes]] = {}
        self._finished: list[Finished] = []
        self._verdict: tuple[int, BaseException] | None = None

    def give(self, given: ItemBatch, indices: Sequence[int], lengths: bytes, body: Sequence[Any]) -> None:
        whole = b"".join(bytes(part) for part in body)
        for index, payload in zip(indices, packed.slices(whole, packed.unpack(lengths)), strict=True):
            self._add((given, index), bytes(payload))

    def give_large(self, given: ItemBatch, index: int, sizes: list[int], descriptor: Any) -> None:
        assert sum(sizes) == len(descriptor)
        self._add((given, index), bytes(descriptor))

    def _add(self, item: Item, payload: bytes) -> None:
        self.held[self._next] = item, payload
        self._next += 1

    def _pop(self, serials: list[int]) -> list[Item]:
        return [self.held.pop(serial)[0] for serial in serials]

    def take_back(self, count: int) -> tuple[list[Item], list[Finished]]:
        waiting = [serial for serial in reversed(self.held) if serial != self._rank.item]
        return self._pop(waiting[: max(0, count)]), self.collect()

    def remove(self, group: int, indices: set[int]) -> tuple[list[Item], list[Item], list[Finished]]:
        wanted = [n for n, ((given, index), _) in self.held.items() if given.group == group and index in indices]
        running = [self.held[serial][0] for serial in wanted if serial == self._rank.item]
        return self._pop([n for n in wanted if n != self._rank.item]), running, self.collect()

    def clear(self) -> None:
        self.held.clear()

    def running(self) -> tuple[int, Item | None, float]:
        item = self.held.get(self._rank.item)
        return (0, None, 0.0) if item is None else (self._rank.item, item[0], 0.0)

    def serial_of(self, item: Item) -> int:
        return next((serial for serial, (held, _) in self.held.items() if held == item), 0)

    def overrule(self, serial: int, verdict: BaseException) -> bool:
        self._verdict = serial, verdict
        if self._rank.item != serial:
            return False
        self._rank.is_hit = True
        return True

    def verdict_on(self, serial: int) -> BaseException | None:
        return self._verdict[1] if self._verdict is not None and self._verdict[0] == serial else None

    def shortest_timeout(self) -> None:
        return None

    @property
    def is_active(self) -> bool:
        return bool(self.held)

    def ended(self, serial: int) -> Item | None:
        found = self.held.pop(serial, None)
        return None if found is None else found[0]

    def take_runs(self) -> tuple[list[Any], bool]:
        return [], True

    def collect(self) -> list[Finished]:
        found, self._finished = self._finished, []
        return found

    def finish(self, serial: int, outcome: tuple[int, bytes], seconds: float) -> None:
        """The rank leaves a result."""
        found = self.held.pop(serial, None)
        if found is not None:
            self._finished.append((*found[0], outcome, seconds))


class StageRank:
    """A rank, as its agent knows it, and its process.

    ``item`` is the serial number of the item that runs, ``command`` the number of the command; 0 for none.
    ``ran``: names of commands. ``died``: the step in which it died.
    """

    is_stopping = False
    farewell = ""

    def __init__(self, home: StageSet, rank: int, wanted: int) -> None:
        self.home = home
        self.rank = rank
        self.engine = wanted
        self.info = m.EngineInfo(rank, wanted, f"host{home.number}", 100 + rank)
        nothing = lambda *_, **__: None  # noqa: E731
        self.parts: Any = SimpleNamespace(
            waits_for=lambda *_: False, cancel=nothing, body_arrived=nothing, body_broken=nothing, retire=nothing,
            gone=nothing,
        )  # fmt: skip
        self.debug_port: Any = SimpleNamespace(heard=nothing)
        self.items = StageItems(self)
        self.item = self.command = 0
        self.is_hit = False
        self.ran: list[str] = []
        self.interrupted: set[str] = set()
        """Names of commands that were interrupted here, also before they began."""
        self.died: int | None = None
        self._commands: dict[int, tuple[RankCommand, str]] = {}
        self._skip = 0
        self._large: tuple[LargeAnswer, list[bytes]] | None = None
        self._run: Run | None = None

    def join(self, agent: Any, tasks: Any) -> None:
        self._agent = agent
        self.tasks = TaskAgent(agent.loop, self.items, self.rank, tasks)  # type: ignore[arg-type]

    # --- from its agent --------------------------------------------------------------------------------------

    def run(self, number: int, packet: bytes, command: RankCommand, files: tuple[Any, ...] = ()) -> None:
        message, inline = rm.for_rank(packet)
        assert isinstance(message, rm.RunCommand)
        operation = operations.decode_operation(message.operation)
        assert isinstance(operation, operations.Execute)
        body = bytes(files[0] if files else inline)
        assert len(body) == sum(message.sizes), f"the argument of {operation.source} is incomplete"
        if body:
            assert text_of(body) == operation.source
        self._commands[number] = command, operation.source

    def send(self, message: rm.ToRank) -> None:
        pass

    def debugger_line(self, command: int, text: str | None) -> None:
        pass

    def leave(self, command: int, rank: int, text: str) -> None:
        pass

    def interrupt(self) -> None:
        if self._commands:
            self._skip = min(self._commands)
            self.is_hit = self.is_hit or bool(self.command)

    def stop(self, message: rm.Stop) -> None:
        del message
        self.is_stopping = True

    def gone(self) -> None:
        self.tasks.collect()
        self.tasks.retire()

    # --- its process -----------------------------------------------------------------------------------------

    def act(self) -> None:
        """Do something: send a piece, end what runs, or begin something."""
        if self._large is not None:
            self._send_piece(*self._large)
        elif self.command:
            self._end_command()
        elif self.item:
            self._end_item()
        elif self._commands:
            self._begin_command()
        elif self.items.held:
            self.item = next(iter(self.items.held))
            name = text_of(self.items.held[self.item][1])
            self._run = self.home.stage.task_begins(name, self)

    def _begin_command(self) -> None:
        number, (command, name) = next(iter(self._commands.items()))
        if number <= self._skip:
            self._done(number, command, name, None)
            return
        self.command = number
        self.ran.append(name)

    def _end_command(self) -> None:
        number, self.command = self.command, 0
        command, name = self._commands[number]
        text = f"{self.engine} {name}"
        self._agent.output.printed(self.rank, command.id, m.STDOUT, 0, f"{text}\n".encode())
        hit, self.is_hit = self.is_hit, False
        operation = operations.decode_operation(command.operation)
        assert isinstance(operation, operations.Execute)
        self._done(number, command, name, None if hit else operation)

    def _done(self, number: int, command: RankCommand, name: str, ran: operations.Execute | None) -> None:
        """Answer a command; ``ran`` is None if it was interrupted."""
        del self._commands[number]
        if ran is None:
            self.interrupted.add(name)
            done = rm.CommandDone(number, False, INTERRUPTED, 0)
            self._agent.rank_answered(self, command, done, [], None)
            return
        body = told(f"{self.engine} {name}", LARGE if ran.filename else 20)
        outcome = operations.encode(operations.Executed(1))
        done = rm.CommandDone(number, not ran.argv, outcome, 0, [len(body)], bool(ran.filename))
        large = self._answer(body) if ran.filename else None
        self._agent.rank_answered(self, command, done, [] if large is not None else [body], large)

    def _answer(self, body: bytes) -> LargeAnswer:
        large = LargeAnswer(self._agent.loop, [len(body)], lambda size: None, lambda: False)
        cut = self.home.stage.random.randint(1, len(body) - 1)
        self._large = large, [body[:cut], body[cut:]]
        return large

    def _send_piece(self, large: LargeAnswer, pieces: list[bytes]) -> None:
        piece = pieces.pop(0)
        if not pieces:
            self._large = None
        large.add(len(piece), piece, -1)

    def _end_item(self) -> None:
        serial, self.item = self.item, 0
        hit, self.is_hit = self.is_hit, False
        run, self._run = self._run, None
        assert run is not None
        run.ended, seconds = self.home.stage.steps, self.home.stage.random.uniform(0.001, 0.2)
        if serial not in self.items.held:  # its engine was ended
            return
        name = run.name
        run.how = "interrupted" if hit else "failed" if "!" in name else "done"
        if run.how == "done" and "R" in name:
            large = self._answer(told(name, LARGE))
            self.tasks.large_result(rm.ItemDone(serial, False, seconds, large.sizes), large)
            return
        outcome = DONE, told(name, 0)
        if run.how != "done":
            outcome = FAILED, packed_failure(KeyboardInterrupt() if hit else ValueError(name))
        verdict = self.items.verdict_on(serial)
        self.items.finish(serial, overruled(outcome, verdict) if hit and verdict is not None else outcome, seconds)
        self.tasks.collect()

    def dies(self, *, alone: bool) -> None:
        """Its process ends; ``alone``: its agent is there, and reports it."""
        self.died = self.home.stage.steps
        for _, payload in self.items.held.values():
            self.home.stage.struck[text_of(payload)] += 1
        if alone:
            if self._large is not None:
                self._large[0].break_off()
            self._large = None
            self._agent.rank_lost(self, "it was killed", False)

    def is_lost(self, since: int, until: int) -> bool:
        """Return whether it died between these steps, or the controller had given up its set by then."""
        if self.died is not None and since <= self.died <= until:
            return True
        others = [rank.died for rank in self.home.ranks if rank.died is not None]
        return self.home.on_loss != "shrink" and any(died <= until for died in others)
