"""Checks of arguments that refer to tasks, by id or future (no I/O)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..session.given import shown
from ..session.targets import as_engine_id
from .futures import TaskFuture


def task_id(value: Any) -> int:
    """Return a task id as an int; accepts NumPy integers, raises TypeError for anything else."""
    number = as_engine_id(value)
    if number is None:
        raise TypeError(f"an integer task id expected: {shown(value)}")
    return number


def task_ids(value: Any) -> set[int]:
    """Return the set of one or several ids; raises TypeError for anything else."""
    if as_engine_id(value) is not None:
        return {task_id(value)}
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise TypeError(f"integer task ids expected, one or a sequence: {shown(value)}")
    return {task_id(each) for each in value}


def listed(tasks: Any) -> Iterable[Any]:
    """Return the tasks given by None, one task or several; raises TypeError for anything else."""
    if tasks is None:
        return ()
    if isinstance(tasks, TaskFuture) or as_engine_id(tasks) is not None:
        return (tasks,)
    if isinstance(tasks, (str, bytes)) or not hasattr(tasks, "__iter__"):
        raise TypeError(f"task ids or futures of tasks expected, one or a sequence: {shown(tasks)}")
    found: Iterable[Any] = tasks
    return found


def check_follow(task: Any) -> None:
    """Raise TypeError if this is neither one task nor None."""
    if task is not None and not isinstance(task, TaskFuture) and as_engine_id(task) is None:
        raise TypeError(f"follow names one task, a future or an id, on whose engine to run; not {shown(task)}")


def several(ids: list[int]) -> str:
    """Format ids for a message: the first twenty."""
    return ", ".join(map(shown, ids[:20])) + (", ..." if len(ids) > 20 else "")
