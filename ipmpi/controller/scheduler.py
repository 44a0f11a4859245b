"""The task farm's queue (layer L2, no I/O): first in, first out, to whichever engine is free.

A task runs at least once and is answered exactly once. A task that fails is queued again at the tail while it
has retries; one whose engine is lost is queued again at the head and uses none, but after it has taken
:data:`POISON` engines down with it, it is given up: it is most likely the cause.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ..errors import ClientError
from .work import TaskWork

POISON = 3


class Scheduler:
    """Tasks that wait, tasks that run, and counts of those that are done."""

    def __init__(self) -> None:
        self._waiting: deque[TaskWork] = deque()
        self._running: dict[int, TaskWork] = {}
        self._by_name: dict[tuple[int, int], TaskWork] = {}
        self.succeeded = 0
        self.failed = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, task: TaskWork) -> None:
        """A new task; ClientError if its client has one of this number under way."""
        if (task.client, task.id) in self._by_name:
            raise ClientError(f"task {task.id} is under way already")
        self._by_name[task.client, task.id] = task
        self._waiting.append(task)

    def next(self) -> TaskWork | None:
        """The task to give to an engine that is free now."""
        while self._waiting:
            task = self._waiting.popleft()
            if not task.aborted:
                self._running[task.serial] = task
                return task
        return None

    def retry(self, task: TaskWork) -> bool:
        """Queue a failed task again if it has retries left."""
        self._running.pop(task.serial, None)
        if task.retries <= 0 or task.aborted:
            return False
        task.retries -= 1
        self._waiting.append(task)
        return True

    def engine_lost(self, task: TaskWork) -> bool:
        """Queue a task again whose engine is gone; False if it is to be given up."""
        self._running.pop(task.serial, None)
        task.engines_lost += 1
        if task.aborted or task.engines_lost >= POISON:
            return False
        self._waiting.appendleft(task)
        return True

    def finished(self, task: TaskWork, ok: bool) -> None:
        """A task has its answer."""
        self._running.pop(task.serial, None)
        if task.aborted:
            return  # counted when it was aborted; its number may name another task by now
        self._by_name.pop((task.client, task.id), None)
        if ok:
            self.succeeded += 1
        else:
            self.failed += 1

    def abort(self, client: int, number: int) -> tuple[str, TaskWork | None]:
        """Forget a task: 'aborted', 'running' (its answer will be dropped) or 'unknown'."""
        task = self._by_name.pop((client, number), None)
        if task is None:
            return "unknown", None
        task.aborted = True
        self.failed += 1
        if task.serial in self._running:
            return "running", task
        return "aborted", task

    def of_client(self, client: int) -> list[TaskWork]:
        """All unanswered tasks of a client."""
        return [task for (owner, _), task in self._by_name.items() if owner == client]

    def status(self) -> dict[str, Any]:
        """Ids that wait and run, and counts of the rest."""
        return {
            "scheduled": [task.id for task in self._waiting if not task.aborted],
            "pending": [task.id for task in self._running.values() if not task.aborted],
            "succeeded": self.succeeded,
            "failed": self.failed,
        }
