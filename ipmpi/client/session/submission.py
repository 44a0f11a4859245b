"""An operation for engines, before it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ...ids import Ids
from ...protocol import messages as m, operations
from ...protocol.frames import Buffer, size_of
from .prepared import check_text


class Submission(NamedTuple):
    """An operation for engines (None: all), and how messages display it.

    ``past``: no operation, but a command that was given before, which is to be followed.
    """

    operation: operations.Operation
    targets: list[int] | None
    method: str
    label: str
    body: Sequence[Buffer] = ()
    one_idle: bool = False
    past: m.FollowCommand | None = None


def message_of(submission: Submission, number: int, below: int) -> m.Command | m.FollowCommand:
    """Return the message that sends it under a number; all commands with numbers below ``below`` have ended.

    Raises:
        ClientError: it has text that cannot be sent.
    """
    if submission.past is not None:
        return msgspec.structs.replace(submission.past, id=number)
    operation = operations.encode(submission.operation)
    check_text(operation, submission.method)
    targets = None if submission.targets is None else Ids.of(submission.targets)
    sizes = [size_of([part]) for part in submission.body]
    return m.Command(
        number, targets, submission.method, submission.label, operation, sizes, submission.one_idle, below
    )
