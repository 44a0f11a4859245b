"""What the controller says of the queues of engines, for those who ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ids import Ids


def queue_statuses(rows: Sequence[Any], wanted: Sequence[int] | None) -> list[tuple[int, dict[str, Any]]]:
    """Return ``(id, status)`` of engines, from the answer to :class:`~ipmpi.protocol.messages.QueueStatus`.

    Args:
        rows: the answer.
        wanted: the engines, in this order; None for all, ascending.
    """
    found = {
        engine: {"queue": list(waiting), "pending": running or "None", **_busy(*more)}
        for engines, running, waiting, *more in rows
        for engine in Ids.unpacked(engines)
    }
    order = sorted(found) if wanted is None else wanted
    return [(engine, found[engine]) for engine in order if engine in found]


def _busy(going: Sequence[str] = (), seconds: float | None = None) -> dict[str, Any]:
    sending = {"sending": list(going)} if going else {}
    return sending if seconds is None else {"seconds": round(seconds, 1), **sending}
