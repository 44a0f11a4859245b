"""What becomes of calls that were under way when the controller was killed, and started again from its journal."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Final

from ...protocol.connection import Prepared
from .waiting import SessionFuture

_REPEATABLE: Final = frozenset(
    {"GetIds", "QueueStatus", "ClusterInfo", "TaskStatus", "Recheck", "AbortTasks", "TaskHistory", "ResumeTasks"}
)  # fmt: skip
"""Requests that may be made twice."""

LOST: Final = (
    "the controller was killed and has started again. Its journal has tasks, which go on, but no commands and "
    "requests: it is not known whether this one was performed. Look at the engines, and repeat it if need be"
)


def to_repeat(requests: dict[int, Future[Any]]) -> tuple[list[Prepared], list[Future[Any]]]:
    """Return the requests to send again, and the futures of the others, which are removed."""
    again: list[Prepared] = []
    lost: list[Future[Any]] = []
    for number, future in list(requests.items()):
        sent = future.sent if isinstance(future, SessionFuture) else None
        if isinstance(sent, Prepared) and sent.kind in _REPEATABLE:
            again.append(sent)
        else:
            del requests[number]
            lost.append(future)
    return again, lost
