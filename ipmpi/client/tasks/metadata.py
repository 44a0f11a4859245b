"""What is known of a task besides its result."""

from __future__ import annotations

from typing import Any, Literal

from ..session.calltimes import CallTimes

Status = Literal["ok", "error", "cancelled"]


def metadata(times: CallTimes, engine: int | None, status: Status | None) -> dict[str, Any]:
    """Return the dict that :attr:`TaskFuture.metadata` describes."""
    return {
        "engine_id": engine,
        "submitted": times.started,
        "completed": times.completed,
        "duration": times.wall_time,
        "status": status,
    }
