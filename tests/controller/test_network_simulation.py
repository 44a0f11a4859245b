"""Controller, journal, clients and engine sets over a network that fails: a million simulated steps.

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
from ipmpi.controller.comeback import ComeBack
from ipmpi.controller.commands import resumed
from ipmpi.controller.commands.resumed import ResumedCommands
from ipmpi.controller.commands.router import Router
from ipmpi.controller.farm.arguments import ArgumentMemory
from ipmpi.controller.farm.groups import TaskGroup
from ipmpi.controller.taskjournal import TaskJournal
from ipmpi.engine.agent.commandbook import CommandBook
from ipmpi.errors import JournalDamaged
from ipmpi.protocol.connection import Connection
from ipmpi.protocol.outbox import Outbox
from tests.controller.command_stage import INLINE, LARGE, StageLink, StageLoop, check_commands
from tests.controller.journal_stage import JournalStage
from tests.controller.network_stage import NetworkStage
from tests.controller.test_taskjournal import check
from tests.figures import report
from tests.journal.memory_store import MemoryStore

TURNS = 2_500
STEPS = int(os.environ.get("IPMPI_SIMULATED_STEPS", "1000000"))
SEED = os.environ.get("IPMPI_SIMULATION_SEED", "")
PARTS = 10

pytestmark = pytest.mark.timeout(60 + STEPS // 4_000)


@pytest.fixture(autouse=True)
def stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "time", JournalStage.clock)
    monkeypatch.setattr(session, "Loop", StageLoop)
    monkeypatch.setattr(session, "DialledSession", StageLink)
    monkeypatch.setattr("ipmpi.limits.INLINE_BODY", INLINE)


def play(seed: int) -> NetworkStage:
    """Let clients submit tasks while all kinds of things fail; check what must hold at the end."""
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
    number = commands = 0
    parents: list[Any] = []
    for _ in range(TURNS):
        if chance() < 0.1:
            client = stage.random.choice(stage.clients)
            fails = "!" if chance() < 0.1 else ""
            after = []
            mine = [ref for key, ref in parents[-20:] if key is client]
            if mine and chance() < 0.2:
                after = [stage.random.choice(mine)]
            name = f"{stage.clients.index(client)}.{number}{fails}".encode()
            client.submit(name, after)
            parents.append((client, client.tasks[name][0]))
            number += 1
        if chance() < stage.commands and stage.engines:
            send_command(stage, commands := commands + 1)
        stage.turn()
    stage.settle()
    check(stage)
    check_commands(stage)


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
    steps, faults, tasks = played(part * STEPS, STEPS // PARTS)
    assert min(faults[what] for what in ("links cut", "dialled beside a link", "half-open", "kills")) > 0
    report("simulation", steps=steps, tasks=tasks, **{what.replace(" ", "_"): n for what, n in faults.items()})


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
    patch.setattr(TaskJournal, "_commit", lambda self: self._submitted.clear() or True)


def recorded_twice(patch: pytest.MonkeyPatch) -> None:
    """An end is written two times."""
    right = TaskJournal._note_ends

    def wrong(self: TaskJournal, effects: Any) -> Any:
        found = right(self, effects)
        for rows in self._ends.values():
            rows.append(rows[0])
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


PLANTED: list[Callable[[pytest.MonkeyPatch], None]] = [
    dropped_acknowledgement, acknowledged_too_early, accepted_too_early, recorded_twice, lost_wake_up,
    sent_again_without_looking, lost_wake_up_of_a_command, command_confirmed_too_early, run_again_after_a_restart,
    order_swapped, order_forgotten, answers_dropped, body_taken_for_complete, printed_twice, lost_arguments,
    arguments_of_others, spilled_and_run_twice,
]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Exception) as found:  # noqa: PT011 - each kind shows itself in its way
        played(0, 200_000)
    assert any("IPMPI_SIMULATION_SEED=" in note for note in found.value.__notes__)
