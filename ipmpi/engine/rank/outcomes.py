"""What becomes of a task, as a rank says it and its node agent passes it on."""

from __future__ import annotations

from typing import Any, Final

from ipmpi import limits, serialize
from ipmpi.engine.session.failures import failed
from ipmpi.engine.session.texts import shorten
from ipmpi.errors import TaskAborted
from ipmpi.protocol.operations import Failed
from ipmpi.protocol.packed import pack_failure, unpack_failure
from ipmpi.serialize import Buffer

Payload = bytes | list[Buffer] | MemoryError
"""The arguments of one task: a pickle that came in a batch, the segments of a large one, or why it has none."""

Outcome = tuple[int, Any]
"""What became of a task, as one of the numbers below, and what goes with it."""

DONE: Final = 0
"""With the pickled value, or nothing for None."""
LARGE: Final = 1
"""With the segments of a large value. They are no copy: send them before anything else runs."""
FAILED: Final = 2
"""With the payload of :func:`~ipmpi.protocol.packed.pack_failure`."""
REFUSED: Final = 3
"""The condition of the task does not hold here."""
REJECTED: Final = 4
"""With the text of its TaskRejectError."""
SKIPPED: Final = 5
"""It was revoked before it began."""
HIT: Final = 8
"""Added to one of these numbers in a control block: it was interrupted while it ran."""

TEXT: Final = 8 * limits.KIB
_TRACEBACK: Final = 24 * limits.KIB


def packed_failure(error: BaseException, traceback: str | None = None) -> bytes:
    """The payload of a task that raised ``error``, of at most ``limits.TASK_PAYLOAD`` bytes."""
    described, body = failed(error)
    described = Failed(
        described.type_name,
        shorten(described.text, TEXT),
        shorten(described.traceback if traceback is None else traceback, _TRACEBACK),
    )
    payload = pack_failure(described, [serialize.in_one_piece(body)] if body else [])
    return payload if len(payload) <= limits.TASK_PAYLOAD else pack_failure(described, [])


def overruled(outcome: Outcome, verdict: BaseException) -> Outcome:
    """What becomes of a task that was interrupted for a reason: it fails with ``verdict``.

    One that was cancelled and ended well nevertheless keeps its value.
    """
    kind, data = outcome
    if kind in (REFUSED, REJECTED) or (kind != FAILED and isinstance(verdict, TaskAborted)):
        return outcome
    where = unpack_failure(data)[0].traceback if kind == FAILED else None
    return FAILED, packed_failure(verdict, where)
