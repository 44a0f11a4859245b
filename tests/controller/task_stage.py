"""Clients that submit tasks, for :mod:`tests.controller.network_stage`, and what must hold of these tasks."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ipmpi import limits
from ipmpi.client.tasks.resuming import _Follower, _group
from ipmpi.client.tasks.submitter import TaskSubmitter
from ipmpi.client.tasks.taskgroup import SubmitTerms, TaskRef
from ipmpi.protocol import messages as m
from tests.controller.client_stage import StageClient
from tests.controller.rank_stage import LARGE, Run, told

if TYPE_CHECKING:
    from tests.controller.network_lines import Line
    from tests.controller.network_stage import NetworkStage


class TaskEnding:
    """Hears of the end of one task; every call is kept."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def arrived(self, engine: int, ok: bool, payload: Any) -> None:
        del engine
        whole = payload if isinstance(payload, bytes) else b"".join(bytes(part) for part in payload)
        self.heard.append(("ok" if ok else "failed", whole))

    def undone(self, error: BaseException) -> None:
        self.heard.append((type(error).__name__, str(error)))


@dataclass(eq=False)
class StageTask:
    """A task, and what became of it. In its name, "!" says that it fails, and "R" that its result is large."""

    name: str
    client: TaskClient
    ref: TaskRef
    ending: TaskEnding
    retries: int
    is_large: bool
    """Its argument is a stream."""
    parents: list[StageTask]
    aborted: set[str] = field(default_factory=set)
    never: bool = False
    """Its client was told that it will never run."""
    runs: list[Run] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    """The steps in which a controller was killed that had not written what the task has used of its retries."""

    @property
    def number(self) -> tuple[int, int, int]:
        """By which the controller knows it."""
        return self.client.key, *self.ref

    @property
    def result(self) -> bytes:
        return told(self.name, LARGE if "R" in self.name else 0)


class TaskClient(StageClient):
    """A client with tasks. Without ``detach``, they end with it."""

    def __init__(self, stage: NetworkStage, line: Line, *, detach: bool = True) -> None:
        super().__init__(stage, line)
        self.detach = detach
        self.submitter = TaskSubmitter(self.session)
        self.session.tasks = self.submitter
        if not detach:
            self.submitter.end_with_client()
        self.tasks: dict[str, StageTask] = {}
        self.followed: dict[tuple[int, int], TaskEnding] = {}
        """By the serial of the group and the index."""

    @property
    def is_busy(self) -> bool:
        return super().is_busy or self.submitter.is_busy

    def submit(self, name: str, after: Sequence[TaskRef], *, retries: int, large: bool) -> StageTask:
        options = m.TaskOptions(b"op", "", retries=retries, after=[tuple(ref) for ref in after])
        ending = TaskEnding()
        payload: Any = [told(name, LARGE)] if large else told(name, 0)
        ref = self.submitter.submit_one(SubmitTerms(options), payload, ending)
        parents = [each for each in self.tasks.values() if each.ref in after]
        task = self.tasks[name] = StageTask(name, self, ref, ending, retries, large, parents)
        if self.stage.random.random() < 0.3:
            self.submitter._open = None  # the next one goes into another message
        return task

    def abort(self, task: StageTask, how: str) -> None:
        task.aborted.add(how)
        answer = self.submitter.abort(task.ref.group, [task.ref.number], how)
        self.requests.append(answer)

        def answered(future: Future[list[int]]) -> None:
            if how == "cancel" and future.exception() is None and task.ref.number in future.result():
                task.never = True

        answer.add_done_callback(answered)

    def is_accepted(self, task: StageTask) -> bool:
        """Whether the controller has told it that it has this task, or how it ended."""
        group = self.submitter._by_number.get(task.ref.group)
        return bool(task.ending.heard) or (group is not None and group.sent and group.copy is None)

    def has_left(self, task: StageTask) -> bool:
        """Whether the controller had this task, of which it has not heard the end.

        It is not told which large ones the controller has; those that have run were there.
        """
        is_there = bool(task.runs) if task.is_large else self.is_accepted(task)
        return is_there and not task.ending.heard

    def follow(self, name: str) -> Future[Any]:
        """Resume tasks of another client, as :class:`ipmpi.client.tasks.resuming.Resuming` does."""
        answer = self.session.request(lambda i: m.ResumeTasks(i, name, 0))

        def answered(future: Future[Any]) -> None:
            if future.exception() is not None:
                return
            groups = [_group(serial, tasks, label) for serial, tasks, _, _, label in future.result()["groups"]]
            for group in groups:
                endings = [TaskEnding() for _ in range(group.left)]
                group.handlers += endings
                self.followed |= {(-group.number, i): ending for i, ending in enumerate(endings)}
            self.submitter.adopt(groups)
            self.session.post(_Follower(self.submitter, deque((group, 3 << 20) for group in groups)).start)

        answer.add_done_callback(answered)
        self.requests.append(answer)
        return answer


# --- what must hold ----------------------------------------------------------------------------------------------


def check_tasks(stage: NetworkStage) -> None:
    """Each task has ended once, and has run no more often than there was a reason for."""
    for client in [*stage.clients, *stage.vanished]:
        for task in client.tasks.values():
            check_runs(stage, task)
            if client.vanished is None:
                check_end(stage, task)


def check_end(stage: NetworkStage, task: StageTask) -> None:
    heard, where = task.ending.heard, _told(stage, task)
    assert len(heard) == 1, where
    kind, text = heard[0]
    how = [run.how for run in task.runs]
    interrupts = "interrupt" in task.aborted
    if kind == "ok":
        assert text == task.result, where
        assert "done" in how, where
        assert not task.never, where
    elif kind == "failed":
        assert how.count("failed") > task.retries or interrupts, where
        assert not task.never, where
    elif kind == "TaskAborted":
        assert task.aborted, where
    elif kind == "EngineLost":
        # Engines that wait for its argument have it as well.
        deaths = stage.faults["ranks killed"] + stage.faults["sets killed"]
        assert max(stage.struck[task.name], task.is_large * deaths) >= limits.MAX_CRASHES, where
    elif kind == "DependencyError":
        assert task.parents, where
        assert not task.runs, where
    else:
        assert kind == "JournalFull", where
        assert not task.runs, where
    if task.never:  # what it had begun was lost with its engine, or on its way, or has failed
        assert all(run.how == "failed" or is_excused(stage, task, run, stage.steps) for run in task.runs), where


def _told(stage: NetworkStage, task: StageTask) -> str:
    heard = [(kind, text[:80]) for kind, text in task.ending.heard]
    since = min((run.begun for run in task.runs), default=0)
    killed = [step for step in stage.killed if step >= since]
    return f"{task.name}: {heard}, {sorted(task.aborted)}, {task.runs}; kills {killed}"


def is_excused(stage: NetworkStage, task: StageTask, run: Run, until: int) -> bool:
    """Whether a task may run again after this run.

    It was lost with its engine, or its large result on its way; or another controller had never heard of its set.
    """
    if run.rank.is_lost(run.begun, until) or run.rank.home.was_stranger(run.begun, until):
        return True
    if "R" not in task.name:
        return False
    goes_on = any(run.begun <= step <= until for step in run.rank.home.begun)
    return goes_on or stage.has_killed(run.begun, until) or task.client.vanished is not None


def check_runs(stage: NetworkStage, task: StageTask) -> None:
    """Each run after the first one needs a reason."""
    failures = 0
    for run, again in itertools.pairwise(task.runs):
        # A set that was given up may go on for a while, and nobody may have heard of its end.
        if is_excused(stage, task, run, again.begun) or again.rank.is_lost(again.begun, again.begun):
            continue
        assert run.how in ("failed", "interrupted"), _told(stage, task)
        # One more run, if the controller was killed before the next one, or before the failure was written.
        killed = stage.has_killed(run.begun, again.begun) or any(step >= run.begun for step in task.forgotten)
        failures += not killed
        assert failures <= task.retries, _told(stage, task)


def find_all(stage: NetworkStage) -> None:
    """Another client finds what those have left that are gone: all tasks of which they had not heard the end."""
    for gone in stage.vanished:
        finder = stage.add_task_client()
        answer = finder.follow(f"unnamed-{gone.key}")
        stage.settle()
        lacked = [task for task in gone.tasks.values() if gone.has_left(task)]
        if answer.exception() is not None:
            assert not (lacked and gone.detach), f"{[task.name for task in lacked]} are not there"
            continue
        assert gone.detach, f"tasks of client {gone.key} have not ended with it"
        assert {len(ending.heard) for ending in finder.followed.values()} <= {1}
        found = Found(stage, gone, finder)
        assert all(count == 1 for count in found.results.values())
        for task in lacked:
            # A large one that was on its last way to its client is not there either, as the controller had passed
            # all of it on.
            if (
                task.runs
                and task.runs[-1].how == "done"
                and not task.aborted
                and task.number not in stage.passed_on
            ):
                is_there = found.end(task) == ("ok", task.result)
                assert is_there or found.may_lack(task), f"{task.name} has run, and nobody can find its result"


class Found:
    """What a client has found of the tasks of one that is gone. ``results``: how often it has each."""

    def __init__(self, stage: NetworkStage, gone: TaskClient, finder: TaskClient) -> None:
        self._stage = stage
        self._followed = finder.followed
        groups = [stage.journal.named._bundles.group(gone.key, task.ref.group) for task in gone.tasks.values()]
        self._serials = {group.number: group.serial for group in groups if group is not None}
        ends = [ending.heard[0] for ending in finder.followed.values()]
        self.results = Counter(text for kind, text in ends if kind == "ok")

    def end(self, task: StageTask) -> tuple[str, Any]:
        """How a task has ended; ("", "") if it is not there."""
        ending = self._followed.get((self._serials.get(task.ref.group, 0), task.ref.number))
        return ("", "") if ending is None else ending.heard[0]

    def may_lack(self, task: StageTask) -> bool:
        """Whether the result of a task that has run was lost before it was written, and it cannot run again."""
        name = self._serials.get(task.ref.group, 0), task.ref.number
        store: Any = self._stage.store
        ended = store.ended.get(name, self._stage.steps)
        is_lost = is_excused(self._stage, task, task.runs[-1], ended)
        return is_lost and name not in store.results and self._cannot_run_again(task)

    def _cannot_run_again(self, task: StageTask) -> bool:
        """Whether its argument has gone with its client, or that of one that must run before it."""
        kind, _ = self.end(task)
        if kind == "DependencyError":
            return any(self._cannot_run_again(parent) for parent in task.parents)
        return kind == "ConnectionError" and task.is_large
