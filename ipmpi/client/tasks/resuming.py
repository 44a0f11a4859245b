"""Tasks that were submitted before, perhaps by another process: what there is, and following it again."""

from __future__ import annotations

import datetime
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, NamedTuple

from ...errors import ConnectionError, internal_error
from ...protocol import messages as m
from ..session import given
from ..session.pieces import in_pieces
from .futures import TaskFuture
from .mapresults import MapResults
from .submitter import TaskSubmitter
from .taskgroup import SubmittedGroup, SubmitTerms, TaskRef

_AT_A_TIME: Final = 8 << 20
"""Bytes of results that are asked for at a time: enough to fill a link, and nothing beside what the controller may
have waiting for a client."""

_GROUPS: Final = 256
"""Groups that are asked for at a time."""


class NamedTasks(NamedTuple):
    """Tasks that were submitted under one name; those of a client without names are together.

    Attributes:
        name: for :meth:`TaskClient.resume`.
        submitted: when the first of them was, by the clock of the controller, in local time.
        host, user: from where, and by whom.
        waiting, running, done, failed: numbers of tasks; ``done`` are those that have succeeded, ``failed`` also
            those that were cancelled.
        is_there: whether the client that submitted them is connected, or may still come back.
    """

    name: str
    submitted: datetime.datetime
    host: str
    user: str
    waiting: int
    running: int
    done: int
    failed: int
    is_there: bool

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.waiting} waiting, {self.running} running, {self.done} done, "
            f"{self.failed} failed; submitted {self.submitted:%Y-%m-%d %H:%M} by {self.user}@{self.host}"
        )


Resumed = list[TaskFuture[Any]] | MapResults[Any]


class Resuming:
    """Asks a controller for tasks that were submitted before. May be used from any thread."""

    def __init__(self, submitter: TaskSubmitter) -> None:
        self._submitter = submitter
        self._open: dict[str, tuple[list[int], Resumed]] = {}
        """What is being followed: the same again if it is asked for twice."""

    def history(self) -> list[NamedTasks]:
        """Return the tasks of all who hold this furl, in the order of submission."""
        rows, _ = in_pieces(lambda after: self._submitter.request(partial(_history, after)).result(), "names")
        return [_named(*row) for _, *row in rows]

    def forget(self, name: str) -> int:
        """Cancel those that have not ended, and have nothing of them kept; return how many there were."""
        tasks: int = self._submitter.request(lambda i: m.ForgetTasks(i, task_name(name))).result()
        return tasks

    def resume(self, name: str) -> Resumed:
        """Return the results of tasks: those that there are at once, and the others as they come."""
        name = task_name(name)
        known = self._open.get(name)
        if known is not None and self._submitter.has_open(known[0]):
            return known[1]
        rows, _ = in_pieces(
            lambda after: self._submitter.request(partial(_resume, name, after)).result(), "groups"
        )
        groups: list[SubmittedGroup] = []
        resumed: Resumed
        if all(is_map for _, _, is_map, _, _ in rows):
            resumed = MapResults(self._submitter)
            for serial, tasks, _, _, label in rows:
                groups.append(_group(serial, tasks, label, resumed))
            resumed.adopt(groups)
        else:
            resumed = []
            for serial, tasks, _, _, label in rows:
                groups.append(_group(serial, tasks, label))
                for index in range(tasks):
                    future: TaskFuture[Any] = TaskFuture(self._submitter, label)
                    future.ref = TaskRef(-serial, index)
                    groups[-1].handlers.append(future)
                    resumed.append(future)
        self._open[name] = [group.number for group in groups], resumed
        self._submitter.adopt(groups)
        sizes = [size for _, _, _, size, _ in rows]
        follower = _Follower(self._submitter, deque(zip(groups, sizes, strict=True)))
        self._submitter.post(follower.start)
        return resumed


def _history(after: int, number: int) -> m.TaskHistory:
    return m.TaskHistory(number, after)


def _named(
    name: str, submitted: float, host: str, user: str, tasks: int, done: int, failed: int, running: int,
    is_there: bool,
) -> NamedTasks:  # fmt: skip
    when = datetime.datetime.fromtimestamp(submitted).astimezone()
    return NamedTasks(name, when, host, user, tasks - done - failed - running, running, done, failed, is_there)


def _resume(name: str, after: int, number: int) -> m.ResumeTasks:
    return m.ResumeTasks(number, name, after)


def _group(serial: int, tasks: int, label: str, results: MapResults[Any] | None = None) -> SubmittedGroup:
    terms = SubmitTerms(m.TaskOptions(b"", label))
    base = 0 if results is None else results.extend(tasks)
    group = SubmittedGroup(-serial, terms, None if results is None else results.relay, base)
    group.left = tasks
    group.sent = True
    return group


class _Follower:
    """Asks for groups, some at a time; in the session's thread."""

    def __init__(self, submitter: TaskSubmitter, waiting: deque[tuple[SubmittedGroup, int]]) -> None:
        self._submitter = submitter
        self._waiting = waiting

    def start(self) -> None:
        """Ask for the first two portions, so that one is on its way while the other is asked for."""
        for _ in range(2):
            self._ask()

    def _ask(self) -> None:
        asked: list[SubmittedGroup] = []
        size = 0
        while self._waiting and len(asked) < _GROUPS and size < _AT_A_TIME:
            group, its = self._waiting.popleft()
            asked.append(group)
            size += its
        if not asked:
            return

        def answered(reply: Future[None]) -> None:
            error = reply.exception()
            if error is None:
                self._ask()
            elif isinstance(error, ConnectionError) and self._submitter.goes_on:
                self._submitter.post(self._ask)  # later: what is asked for now would be asked for twice
            else:
                groups = [*asked, *(group for group, _ in self._waiting)]
                self._waiting.clear()
                self._submitter.give_up(groups, internal_error(error))

        self._submitter.follow(asked).add_done_callback(answered)


def task_name(name: object, what: str = "the name of tasks") -> str:
    """Return a name of tasks.

    Raises:
        TypeError: it is not a str.
        ValueError: it is empty, too long, or has characters that cannot be printed.
    """
    found = given.text(name, what)
    if not found:
        raise ValueError(f"{what} is missing; tc.history() lists the names that there are")
    return found
