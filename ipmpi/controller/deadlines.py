"""The ends of engine sets' jobs, and notices about them (no I/O; the time is an argument).

A set reports once how many seconds are left. Sets of one job, or job array, with about the same end (engines
without MPI are a set each) share a notice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec

from ..ids import IdSet
from ..protocol import messages as m, operations
from ..ranges import engines_named
from .effects import Announce
from .registry import Registry

WARNINGS = (600.0, 120.0)
"""Seconds before the end at which clients get a notice; those in the past are skipped."""

OVERTIME = 60.0
"""Seconds around the end in which the loss of an engine counts as the job's end, which Slurm delays."""

_TOGETHER = 5.0
"""Seconds by which notices may be early, to be combined with others."""

_WARNED = 0.0
"""Stands for the batch system's own warning, in place of seconds."""

_TEXT = 64
"""Characters of a job's id that are kept."""

_LINE = 300
"""Characters of a failure in a notice."""


class _End:
    """The end of one set's job, and its notices: (time, seconds before the end)."""

    def __init__(self, ends_at: float | None, job: str, notices: list[tuple[float, float]], warned: bool) -> None:
        self.ends_at = ends_at
        self.job = job
        self.notices = notices
        self.warned = warned


class Deadlines:
    """The known ends of all sets' jobs."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._ends: dict[int, _End] = {}
        self._next: float | None = None

    def told(self, key: int, message: m.JobEnds, now: float) -> float | None:
        """A set has reported when its job ends; return that time."""
        seconds = message.seconds
        known = seconds is not None and math.isfinite(seconds)
        ends_at = now + max(0.0, seconds) if known and seconds is not None else None
        notices = [] if ends_at is None else [(ends_at - s, s) for s in WARNINGS if now < ends_at - s]
        if message.warned:
            notices.append((now + 1.0, _WARNED))
        self._ends[key] = _End(ends_at, message.job[:_TEXT], notices, message.warned)
        times = [when for when, _ in notices]
        self._next = min(times if self._next is None else [*times, self._next], default=None)
        return ends_at

    def forget(self, key: int) -> None:
        """Remove a lost set."""
        self._ends.pop(key, None)

    def left(self, key: int, now: float) -> float | None:
        """Return the seconds until the end of a set's job; None if unknown."""
        end = self._ends.get(key)
        return None if end is None or end.ends_at is None else max(0.0, end.ends_at - now)

    def is_over(self, key: int, now: float) -> bool:
        """Return whether a loss in this set is the end of its job, so that no task is suspected."""
        left = self.left(key, now)
        return left is not None and left <= OVERTIME

    def is_ending(self, key: int) -> bool:
        """Return whether the batch system has warned that a set's job ends soon."""
        end = self._ends.get(key)
        return end is not None and end.warned

    def job(self, key: int) -> str:
        """Return the batch system's id of a set's job, or ""."""
        end = self._ends.get(key)
        return "" if end is None else end.job

    def due(self, now: float) -> list[Announce]:
        """Return the notices that are due."""
        if self._next is None or now < self._next:
            return []
        found: dict[tuple[str, float], list[int]] = {}
        for key, end in self._ends.items():
            for notice in [notice for notice in end.notices if notice[0] <= now + _TOGETHER]:
                end.notices.remove(notice)
                found.setdefault((_array(end.job), notice[1]), []).append(key)
        self._next = min((when for end in self._ends.values() for when, _ in end.notices), default=None)
        return [Announce(self._sentence(array, before, keys, now)) for (array, before), keys in found.items()]

    def _sentence(self, array: str, before: float, keys: list[int], now: float) -> str:
        jobs = {self.job(key) for key in keys}
        job = array if len(jobs) > 1 else jobs.pop()
        sets = [self._registry.sets[key] for key in keys if key in self._registry.sets]
        ids = IdSet(engine for engine_set in sets for engine in engine_set.ids()).ids()
        which = f"{f'job {job}' if job else 'the job'} of {engines_named(ids)}"
        if before != _WARNED:
            return f"{which} ends in {before / 60:.0f} minutes"
        lefts = [left for key in keys if (left := self.left(key, now)) is not None]
        return f"the batch system warns that {which} ends soon" + (f" (in {min(lefts):.0f} s)" if lefts else "")

    def next_deadline(self) -> float | None:
        """Return when to call :meth:`due` at the latest."""
        return self._next


def _array(job: str) -> str:
    """Return the job array of an element, as of ``17_3`` or ``9[3].server``; other jobs unchanged."""
    return re.sub(r"\[\d+\]", "[]", re.sub(r"_\d+$", "", job))


def failure(ids: Sequence[int], label: str, outcome: bytes) -> Announce:
    """Return the notice about a function that failed before the end of a job."""
    text = "it is not known how"
    try:
        decoded = operations.decode_outcome(outcome)
    except msgspec.DecodeError:
        decoded = operations.Nothing()
    if isinstance(decoded, operations.Failed):
        lines = decoded.traceback.strip().splitlines() or [f"{decoded.type_name}: {decoded.text}"]
        text = lines[-1][:_LINE]
    return Announce(f"{label} failed on {engines_named(ids)}: {text}")
