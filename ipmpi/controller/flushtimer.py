"""When the controller collects effects, if no event occurs before."""

from __future__ import annotations

from collections.abc import Callable

from ..transport.loop import Loop, Timer


class FlushTimer:
    """A timer that is set to the earliest of many times.

    Args:
        flush: called then; at an earlier time it does no harm.
        not_flushed: called with what ``flush`` has raised.
    """

    def __init__(
        self, loop: Loop, flush: Callable[[], None], not_flushed: Callable[[BaseException], object]
    ) -> None:
        self._loop = loop
        self._flush, self._not_flushed = flush, not_flushed
        self._timer: Timer | None = None

    def set(self, deadline: float | None) -> None:
        """Flush at that time at the latest; None for no time."""
        timer = self._timer
        if deadline is None or (timer is not None and timer.when <= deadline):
            return
        if timer is not None:
            timer.cancel()
        self._timer = self._loop.call_at(deadline, self._time_is_up, self._not_flushed)

    def _time_is_up(self) -> None:
        self._timer = None
        self._flush()
