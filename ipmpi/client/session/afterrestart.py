"""What becomes of calls that were under way when the controller was killed, and started again from its journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from ...ids import Ids
from ...protocol import messages as m
from ...protocol.connection import Prepared
from ...protocol.frames import Buffer
from .sentcommand import SentCommand
from .waiting import SessionFuture

_REPEATABLE: Final = frozenset(
    {"GetIds", "QueueStatus", "ClusterInfo", "TaskStatus", "Recheck", "AbortTasks", "TaskHistory", "ResumeTasks",
     "CommandHistory", "Reserve", "Release"}
)  # fmt: skip
"""Requests that may be made twice, with the same number: the controller knows of those for which that matters."""

LOST: Final = (
    "the controller was killed and has started again. Tasks and commands go on, but it is not known whether this "
    "request was performed. Look at the engines, and repeat it if need be"
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


def send_commands_again(
    commands: Iterable[SentCommand],
    send: Callable[[m.AnyMessage, Sequence[Buffer]], None],
    send_streamed: Callable[[m.AnyMessage, Sequence[Buffer]], None],
) -> None:
    """Tell another controller all commands that have not ended, with their bodies inline or as streams."""
    followed: list[m.FollowCommand] = []
    for command in commands:
        command.output.may_come_again()
        if isinstance(command.message, m.FollowCommand):
            followed.append(command.message)
            continue
        is_inline = bool(command.inline) or not sum(command.sizes)
        (send if is_inline else send_streamed)(_again(command, command.message), command.body)
    send(m.CommandsTold(), ())
    for message in followed:
        send(message, ())


def _again(command: SentCommand, sent: m.Command) -> m.CommandAgain:
    """Return the message that sends a command again, with what is known here of its engines."""
    engines = None if command.order is None else Ids.of(command.order)
    lacks = Ids.of([engine for engine in command.order or () if engine not in command.replies])
    return m.CommandAgain(
        sent.id, sent.targets, sent.method, sent.label, sent.operation, sent.sizes, sent.one_idle, sent.below,
        engines, lacks, Ids.of(sorted(command.cleared)),
    )  # fmt: skip


def note_failure(commands: Mapping[int, SentCommand], number: int, engines: Iterable[int]) -> None:
    """These engines have failed in a command: note it with those that were sent after it and are still open."""
    failed = commands.get(number)
    if failed is None or not isinstance(failed.message, m.Command):
        return
    label = failed.message.label
    is_later = False
    for other in commands.values():
        if is_later:
            for engine in engines:
                if engine not in other.replies:  # else it has run there before
                    other.cleared.setdefault(engine, label)
        is_later = is_later or other is failed
