"""Controller, journal, clients and engine sets over a network that fails: many simulated steps.

A seed says all that happens. A violation tells how to play it again::

    IPMPI_SIMULATION_SEED=137 pytest tests/controller/test_network_simulation.py

``IPMPI_SIMULATED_STEPS`` is the number of steps; ``make soak`` makes ten million.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ipmpi.client.session import session
from ipmpi.client.session.commandoutput import CommandOutput
from ipmpi.client.session.opennumbers import OpenNumbers
from ipmpi.client.tasks import submitter
from ipmpi.controller import comeback
from ipmpi.controller.bundle import BundleGroup
from ipmpi.controller.comeback import ComeBack
from ipmpi.controller.commands import resumed
from ipmpi.controller.commands.resumed import ResumedCommands
from ipmpi.controller.commands.router import Router
from ipmpi.controller.enginememory import EngineMemory
from ipmpi.controller.farm.arguments import ArgumentMemory
from ipmpi.controller.farm.groups import TaskGroup
from ipmpi.controller.farm.recovery import FarmRecovery
from ipmpi.controller.farm.reservations import Reservations
from ipmpi.controller.interruptions import Interruptions
from ipmpi.controller.journalwriter import JournalWriter
from ipmpi.controller.namedtasks import NamedTasks
from ipmpi.controller.taskjournal import TaskJournal
from ipmpi.engine.agent import agent, deliveries, settasks
from ipmpi.engine.agent.commandbook import CommandBook
from ipmpi.engine.farm.scheduler import SetScheduler
from ipmpi.errors import JournalDamaged
from ipmpi.journal.rows import EndRow
from ipmpi.protocol import messages as m, packed
from ipmpi.protocol.connection import Connection
from ipmpi.protocol.outbox import Outbox
from tests.controller.client_stage import StageLink
from tests.controller.command_stage import check_commands, check_reserved
from tests.controller.journal_stage import JournalStage
from tests.controller.network_stage import NetworkStage
from tests.controller.rank_stage import INLINE, LARGE, BodyMemory, StageRank
from tests.controller.stage_loop import StageLoop
from tests.controller.task_stage import check_tasks, find_all
from tests.controller.test_taskjournal import given_before_they_are_written
from tests.figures import report
from tests.journal.memory_store import MemoryStore

TURNS = 2_500
STEPS = int(os.environ.get("IPMPI_SIMULATED_STEPS", "400000"))
SEED = os.environ.get("IPMPI_SIMULATION_SEED", "")
PARTS = 10
FOUND = (
    187, 676, 100_322, 100_334, 100_372, 100_468, 100_480, 100_645, 100_722, 2_000_003, 2_000_013, 2_000_050,
    2_000_074, 2_000_245, 2_000_475, 2_000_539, 7_000_004,
)  # fmt: skip
"""Seeds that have found something, in what they play or in what is said of it."""

pytestmark = pytest.mark.timeout(60 + STEPS // 4_000)


@pytest.fixture(autouse=True)
def stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "time", JournalStage.clock)
    monkeypatch.setattr(session, "Loop", StageLoop)
    monkeypatch.setattr(session, "DialledSession", StageLink)
    monkeypatch.setattr(session, "say", lambda text: None)
    monkeypatch.setattr(agent, "LocalRank", StageRank)
    monkeypatch.setattr(deliveries, "SharedMemory", BodyMemory)
    monkeypatch.setattr(settasks, "SharedMemory", BodyMemory)
    monkeypatch.setattr("ipmpi.limits.INLINE_BODY", INLINE)


def play(seed: int) -> NetworkStage:
    """Let clients submit tasks and commands while all kinds of things fail; check what must hold at the end."""
    stage = NetworkStage(seed)
    try:
        _play(stage)
    except Exception as error:
        error.add_note(
            f"at step {stage.steps} of seed {seed}; to play it again:\n"
            f"    IPMPI_SIMULATION_SEED={seed} pytest tests/controller/test_network_simulation.py"
        )
        raise
    return stage


def _play(stage: NetworkStage) -> None:
    chance = stage.random.random
    tasks, commands = itertools.count(), itertools.count(1)
    for _ in range(TURNS):
        if chance() < 0.1:
            submit_task(stage, next(tasks))
        if chance() < stage.commands and stage.engines:
            send_command(stage, next(commands))
        if chance() < stage.requests:
            ask_something(stage)
        stage.turn()
    end(stage)
    check_tasks(stage)
    check_commands(stage)


def end(stage: NetworkStage) -> None:
    """Let all come to its end, with reservations and without; then, what clients have left behind."""
    stage.calm_down()
    check_reserved(stage)
    for client in list(stage.commanding):
        if stage.has_forgotten:  # nobody has released what is reserved again
            stage.client_dies(client)
        while client.has_reserved:
            client.release()
    stage.settle()
    find_all(stage)


def submit_task(stage: NetworkStage, number: int) -> None:
    """Let a client submit a task, of which some fail, depend on others, have large arguments or results."""
    chance = stage.random.random
    client = stage.random.choice(stage.clients)
    name = f"{client.key}.{number}" + ("!" if chance() < 0.1 else "") + ("R" if chance() < stage.large else "")
    mine = list(client.tasks.values())[-10:]
    after = [stage.random.choice(mine).ref] if mine and chance() < 0.2 else []
    retries = stage.random.choice([0, 0, 1, 2])
    stage.by_name[name] = client.submit(name, after, retries=retries, large=chance() < stage.large)


def send_command(stage: NetworkStage, number: int) -> None:
    """Let a client send a command to one, several or all engines, some with large arguments or answers."""
    chance, engines = stage.random.random, stage.engines
    client = stage.random.choice(stage.commanding)
    to_all = chance() < 0.2
    targets = engines if to_all else sorted(stage.random.sample(engines, stage.random.randint(1, len(engines))))
    argument = stage.random.choice([0, 0, 30, 30, LARGE])
    client.send(
        f"c{client.key}.{number}.", targets, to_all=to_all, argument=argument,
        fails=chance() < stage.failures, large=chance() < 0.1,
    )  # fmt: skip


def ask_something(stage: NetworkStage) -> None:
    """Let a client abort tasks, interrupt engines or commands, reserve engines or release them."""
    choice, engines = stage.random.choice, stage.engines
    kind = choice(["abort", "abort", "interrupt", "reserve", "release", "release"])
    client = choice(stage.commanding)
    some = sorted(stage.random.sample(engines, stage.random.randint(1, len(engines)))) if engines else []
    if kind == "abort":
        owner = choice(stage.clients)
        if owner.tasks:
            owner.abort(choice(list(owner.tasks.values())[-10:]), choice(["cancel", "drop", "interrupt"]))
    elif kind == "release":
        client.release()
    elif not engines:
        return
    elif kind == "reserve":
        client.reserve(some)
    elif client.sent and stage.random.random() < 0.5:
        sent = choice(client.sent[-5:])
        client.interrupt(sent.engines, [sent.number])
    else:
        client.interrupt(some, None)


def played(first: int, least: int) -> tuple[int, Counter[str], int]:
    """Play seeds from this one on, until there were so many steps; steps, faults and tasks."""
    steps, faults, tasks = 0, Counter[str](), 0
    for seed in itertools.count(first):
        if steps >= least:
            break
        stage = play(seed)
        steps += stage.steps
        faults += stage.faults
        tasks += sum(len(client.tasks) for client in stage.clients)
    return steps, faults, tasks


@pytest.mark.parametrize("part", range(1 if SEED else PARTS))
def test_nothing_that_is_promised_is_broken(part: int) -> None:
    """Acknowledged: never lost. Recorded: once. Messages: in order, once. Each wait ends."""
    if SEED:
        play(int(SEED))
        return
    steps, faults, tasks = played(part * 1_000_000, STEPS // PARTS)
    assert (
        min(
            faults[what]
            for what in (
                "links cut",
                "dialled beside a link",
                "half-open",
                "kills",
                "ranks killed",
                "sets killed",
                "clients killed",
            )
        )
        > 0
    )
    report("simulation", steps=steps, tasks=tasks, **{what.replace(" ", "_"): n for what, n in faults.items()})


@pytest.mark.parametrize("seed", FOUND)
def test_nothing_is_found_again(seed: int) -> None:
    play(seed)


def test_a_seed_says_all_that_happens() -> None:
    first, second = play(1), play(1)
    assert (first.steps, first.faults, first.runs) == (second.steps, second.faults, second.runs)


# --- planted bugs ----------------------------------------------------------------------------------------------


def dropped_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    """What arrives is never acknowledged."""
    patch.setattr(Connection, "owes_acknowledgement", property(lambda self: False))


def acknowledged_too_early(patch: pytest.MonkeyPatch) -> None:
    """A frame is forgotten although only a part of it has arrived."""
    right = Outbox.acknowledge
    patch.setattr(Outbox, "acknowledge", lambda self, received: right(self, min(received + 1, self.sent)))


def accepted_too_early(patch: pytest.MonkeyPatch) -> None:
    """Tasks are accepted before they are on the disk."""
    patch.setattr(JournalWriter, "write", lambda self, changes: True)


def given_too_early(patch: pytest.MonkeyPatch) -> None:
    """Tasks are given to engines before they are on the disk, and accepted when they are."""
    patch.setattr(TaskJournal, "_write_submissions", given_before_they_are_written())


def recorded_twice(patch: pytest.MonkeyPatch) -> None:
    """An end is written two times."""
    right = TaskJournal._note_ends

    def wrong(self: TaskJournal, effects: Any) -> Any:
        found = right(self, effects)
        for ends in self._ends._by_serial.values():
            ends.append(ends[0])
        return found

    patch.setattr(TaskJournal, "_note_ends", wrong)


def lost_wake_up(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks again when the time has come."""
    patch.setattr(TaskJournal, "next_deadline", lambda self, now: None)
    patch.setattr(ComeBack, "next_deadline", lambda self: None)


def sent_again_without_looking(patch: pytest.MonkeyPatch) -> None:
    """A new link begins with all that was not acknowledged, whatever the peer says that it has."""
    right = Connection.resume
    patch.setattr(Connection, "resume", lambda self, received: right(self, self._outbox._acknowledged))


def lost_wake_up_of_a_command(patch: pytest.MonkeyPatch) -> None:
    """An engine has answered, and is not given what waits for it."""

    def wrong(self: Router, engines: Any) -> None:
        for queue in self._queues.each(engines):
            queue.running = None

    patch.setattr(Router, "_go_on", wrong)


def command_confirmed_too_early(patch: pytest.MonkeyPatch) -> None:
    """A client says that commands have ended that have not."""
    right = OpenNumbers.begin
    patch.setattr(OpenNumbers, "begin", lambda self: (right(self)[0],) * 2)


def run_again_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    """A set does not remember what its ranks were given."""
    patch.setattr(CommandBook, "given", lambda *_: None)


def order_swapped(patch: pytest.MonkeyPatch) -> None:
    """After a restart, commands are queued in the order in which clients have told them."""
    patch.setattr(resumed, "ordered", lambda agains, _held: list(agains))


def order_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What comes between two commands does so for this controller only."""
    right = resumed.ordered

    def wrong(agains: Any, held: Any) -> Any:
        found = right(agains, held)
        for again in found:
            again.serial = 0
        return found

    patch.setattr(resumed, "ordered", wrong)


def answers_dropped(patch: pytest.MonkeyPatch) -> None:
    """What a set tells again of its answers is not passed on."""
    patch.setattr(ResumedCommands, "answered", lambda *_: True)


def body_taken_for_complete(patch: pytest.MonkeyPatch) -> None:
    """A set says that ranks were given a command whose argument has not arrived."""
    patch.setattr(CommandBook, "_not_given", lambda *_: None)


def printed_twice(patch: pytest.MonkeyPatch) -> None:
    """A client shows again what it is told again."""
    patch.setattr(CommandOutput, "may_come_again", lambda self: None)


def lost_arguments(patch: pytest.MonkeyPatch) -> None:
    """Arguments that were spilled are not found again."""

    def missing(self: MemoryStore, serial: int) -> Any:
        raise JournalDamaged(f"group {serial} of tasks is missing")

    patch.setattr(MemoryStore, "group", missing)


def arguments_of_others(patch: pytest.MonkeyPatch) -> None:
    """Arguments of another group are read in place of those that were spilled."""
    right = MemoryStore.group

    def wrong(self: MemoryStore, serial: int) -> Any:
        row = right(self, serial)
        others = [each for each in self.contents.groups if len(each.body or b"") == len(row.body or b"")]
        return row._replace(body=others[0].body)

    patch.setattr(MemoryStore, "group", wrong)


def spilled_and_run_twice(patch: pytest.MonkeyPatch) -> None:
    """A group whose arguments were read again is queued again as a whole."""
    right = ArgumentMemory.fetch

    def wrong(self: ArgumentMemory, group: TaskGroup) -> None:
        was_spilled = group.is_spilled
        right(self, group)
        if was_spilled:
            group.states[:] = bytes(group.count)

    patch.setattr(ArgumentMemory, "fetch", wrong)


def large_argument_not_sent_again(patch: pytest.MonkeyPatch) -> None:
    """A client that is asked for the argument of a task once more does nothing."""
    patch.setattr(submitter.TaskSubmitter, "body_wanted", lambda *_: True)


def large_argument_of_others(patch: pytest.MonkeyPatch) -> None:
    """A client that is asked for the argument of a task sends that of its first one."""
    right = submitter.TaskSubmitter.body_wanted

    def wrong(self: submitter.TaskSubmitter, number: int) -> bool:
        group = self._by_number.get(number)
        large = [each for each in self._by_number.values() if each.segments]
        if group is not None and large:
            group.segments = large[0].segments
        return right(self, number)

    patch.setattr(submitter.TaskSubmitter, "body_wanted", wrong)


def cancelled_before_sets_are_back(patch: pytest.MonkeyPatch) -> None:
    """Tasks are cancelled that may run on a set which has not come back after a restart."""
    patch.setattr(comeback, "_TASKS", (*comeback._TASKS, m.AbortTasks))


def other_commands_interrupted(patch: pytest.MonkeyPatch) -> None:
    """Whoever interrupts one command interrupts all that runs there."""
    right = Router.interrupt
    patch.setattr(Router, "interrupt", lambda self, targets, *_: right(self, targets))


def interruption_not_answered(patch: pytest.MonkeyPatch) -> None:
    """A request to interrupt engines is forgotten."""
    patch.setattr(Interruptions, "_answer", lambda self, request: self._requests.clear())


def lost_with_its_rank(patch: pytest.MonkeyPatch) -> None:
    """The tasks of a rank that has died are not run again."""
    patch.setattr(SetScheduler, "_return", lambda *_: None)


def waits_for_lost_engines(patch: pytest.MonkeyPatch) -> None:
    """Commands are not told that an engine is lost."""
    right = Router._will_not_run

    def wrong(self: Router, work: Any, engines: Any, error: str, *rest: Any) -> None:
        if error != "EngineLost":
            right(self, work, engines, error, *rest)

    patch.setattr(Router, "_will_not_run", wrong)


def retries_forgotten(patch: pytest.MonkeyPatch) -> None:
    """After a restart, no task has used any of its retries."""
    patch.setattr(FarmRecovery, "has_used", lambda *_: False)


def reservation_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Engines that come back after a restart are not reserved any more."""
    patch.setattr(Reservations, "again", lambda *_: None)


def reserved_twice(patch: pytest.MonkeyPatch) -> None:
    """A request that is made again after a restart counts again."""
    patch.setattr(EngineMemory, "_is_new", lambda *_: True)


def goes_on_unasked(patch: pytest.MonkeyPatch) -> None:
    """Tasks go on without their client, although they were to end with it."""
    patch.setattr(submitter.TaskSubmitter, "end_with_client", lambda self: None)


def ends_with_its_client(patch: pytest.MonkeyPatch) -> None:
    """The tasks of a client that has vanished end as if it had said goodbye."""
    right = NamedTasks.leave
    patch.setattr(NamedTasks, "leave", lambda self, client, orderly: right(self, client, orderly=True))


def denied_with_its_argument(patch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a task with a large argument is told that it has not run, although its result is kept."""
    right = TaskJournal.ends

    def wrong(self: TaskJournal, group: BundleGroup) -> list[tuple[EndRow, bool]]:
        found = right(self, group)
        submitted: Any = m.decode(self._store.group(group.serial).message)
        if submitted.lengths or not found:
            return found
        undone = m.TasksUndone(group.number, packed.pack([0]), "ConnectionError", "")
        return [(EndRow(group.serial, m.encode(undone), b""), True)]

    patch.setattr(TaskJournal, "ends", wrong)


PLANTED: dict[Callable[[pytest.MonkeyPatch], None], int] = {
    dropped_acknowledgement: 0, acknowledged_too_early: 0, accepted_too_early: 0, given_too_early: 0,
    recorded_twice: 0,
    lost_wake_up: 0, sent_again_without_looking: 0, lost_wake_up_of_a_command: 0,
    command_confirmed_too_early: 6, run_again_after_a_restart: 0, order_swapped: 7, order_forgotten: 6,
    answers_dropped: 0, body_taken_for_complete: 12, printed_twice: 7, lost_arguments: 0,
    arguments_of_others: 0, spilled_and_run_twice: 7, large_argument_not_sent_again: 0,
    large_argument_of_others: 0, cancelled_before_sets_are_back: 314, other_commands_interrupted: 7,
    interruption_not_answered: 0, lost_with_its_rank: 0, waits_for_lost_engines: 10, retries_forgotten: 9,
    reservation_forgotten: 72, reserved_twice: 753, goes_on_unasked: 78, ends_with_its_client: 0,
    denied_with_its_argument: 69,
}  # fmt: skip
"""Each with the first seed that finds it, so that it is found soon."""


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Exception) as found:  # noqa: PT011 - each kind shows itself in its way
        played(PLANTED[plant], 200_000)
    assert any("IPMPI_SIMULATION_SEED=" in note for note in found.value.__notes__)
