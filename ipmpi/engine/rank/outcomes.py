"""Outcomes of tasks, as ranks report them to their node agent."""

from __future__ import annotations

from typing import Any, Final

from ipmpi import limits, serialize
from ipmpi.engine.session.failures import failed
from ipmpi.engine.session.texts import shorten
from ipmpi.errors import TaskAborted
from ipmpi.protocol.operations import Failed
from ipmpi.protocol.packed import pack_failure, unpack_failure
from ipmpi.serialize import Buffer

Payload = bytes | list[Buffer] | MemoryError | OSError
"""The arguments of a task: a pickle, the segments of a large one, or the error that replaces them."""

Outcome = tuple[int, Any]
"""One of the numbers below, and its value."""

DONE: Final = 0
"""Value: the pickled result; empty for None."""
LARGE: Final = 1
"""Value: the segments of a large result. They are not a copy: send them before anything else runs."""
FAILED: Final = 2
"""Value: the payload of :func:`~ipmpi.protocol.packed.pack_failure`."""
REFUSED: Final = 3
"""The condition of the task does not hold here."""
REJECTED: Final = 4
"""Value: the text of its TaskRejectError."""
SKIPPED: Final = 5
"""It was revoked before it began."""
HIT: Final = 8
"""Added to one of these numbers in a control block: it was interrupted while it ran."""

TEXT: Final = 8 * limits.KIB
_TRACEBACK: Final = 24 * limits.KIB


def packed_failure(error: BaseException, traceback: str | None = None) -> bytes:
    """Return the payload of a task that raised ``error``, at most ``limits.TASK_PAYLOAD`` bytes."""
    described, body = failed(error)
    described = Failed(
        described.type_name,
        shorten(described.text, TEXT),
        shorten(described.traceback if traceback is None else traceback, _TRACEBACK),
    )
    payload = pack_failure(described, [serialize.in_one_piece(body)] if body else [])
    return payload if len(payload) <= limits.TASK_PAYLOAD else pack_failure(described, [])


def overruled(outcome: Outcome, verdict: BaseException) -> Outcome:
    """Return the outcome of a task that was interrupted for a reason: it fails with ``verdict``.

    A cancelled task that succeeded nevertheless keeps its value.
    """
    kind, data = outcome
    if kind in (REFUSED, REJECTED) or (kind != FAILED and isinstance(verdict, TaskAborted)):
        return outcome
    where = unpack_failure(data)[0].traceback if kind == FAILED else None
    return FAILED, packed_failure(verdict, where)
