"""When the jobs of engine sets end, and what clients are told of it (no I/O; the time is an argument).

A set says how many seconds are left, and is not asked again. Sets of one job, or job array, that say the same at
about the same time (engines without MPI are a set each) are told of in one sentence.
"""

from __future__ import annotations

import math
import re

import msgspec

from ..protocol import messages as m, operations
from ..ranges import engines_named
from .effects import Announce
from .registry import Registry

WARNINGS = (600.0, 120.0)
"""Seconds before the end at which clients are told; not of those that are past when the set comes."""

OVERTIME = 60.0
"""Seconds around the end in which the loss of an engine is the job's end. Slurm's clock strikes as inexactly."""

_TOGETHER = 5.0
"""Seconds by which warnings are early, so that they can be put into one sentence with others."""

_WARNED = 0.0
"""Stands in the place of seconds for the batch system's own warning."""

_TEXT = 64
"""Characters of a job's id that are kept."""

_LINE = 300
"""Characters of a failure that are told."""


class _End:
    """The end of one set's job, and what is to be told when: (when, seconds before the end)."""

    def __init__(self, ends_at: float | None, job: str, notices: list[tuple[float, float]]) -> None:
        self.ends_at = ends_at
        self.job = job
        self.notices = notices


class Deadlines:
    """The ends of all sets' jobs, as far as they are known."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._ends: dict[int, _End] = {}
        self._next: float | None = None

    def told(self, key: int, message: m.JobEnds, now: float) -> float | None:
        """A set has said when its job ends; returns that time."""
        seconds = message.seconds
        known = seconds is not None and math.isfinite(seconds)
        ends_at = now + max(0.0, seconds) if known and seconds is not None else None
        notices = [] if ends_at is None else [(ends_at - s, s) for s in WARNINGS if now < ends_at - s]
        if message.warned:
            notices.append((now + 1.0, _WARNED))
        self._ends[key] = _End(ends_at, message.job[:_TEXT], notices)
        times = [when for when, _ in notices]
        self._next = min(times if self._next is None else [*times, self._next], default=None)
        return ends_at

    def forget(self, key: int) -> None:
        """A set is gone."""
        self._ends.pop(key, None)

    def left(self, key: int, now: float) -> float | None:
        """Seconds until the end of a set's job; None if that is not known."""
        end = self._ends.get(key)
        return None if end is None or end.ends_at is None else max(0.0, end.ends_at - now)

    def is_over(self, key: int, now: float) -> bool:
        """Whether a loss in this set is the end of its job, and nothing that ran there is to blame."""
        left = self.left(key, now)
        return left is not None and left <= OVERTIME

    def job(self, key: int) -> str:
        """The batch system's id of a set's job, or nothing."""
        end = self._ends.get(key)
        return "" if end is None else end.job

    def due(self, now: float) -> list[Announce]:
        """What clients are to be told by now."""
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
        ids = sorted(engine.id for engine_set in sets for engine in engine_set.engines.values())
        which = f"{f'job {job}' if job else 'the job'} of {engines_named(ids)}"
        if before != _WARNED:
            return f"{which} ends in {before / 60:.0f} minutes"
        lefts = [left for key in keys if (left := self.left(key, now)) is not None]
        return f"the batch system warns that {which} ends soon" + (f" (in {min(lefts):.0f} s)" if lefts else "")

    def next_deadline(self) -> float | None:
        """When to call :meth:`due` at the latest."""
        return self._next


def _array(job: str) -> str:
    """The job array of an element, like ``17_3`` of Slurm and ``9[3].server`` of PBS; any other job itself."""
    return re.sub(r"\[\d+\]", "[]", re.sub(r"_\d+$", "", job))


def failure(ids: list[int], label: str, outcome: bytes) -> Announce:
    """What clients are told of a function that failed before the end of a job."""
    text = "it is not known how"
    try:
        decoded = operations.decode_outcome(outcome)
    except msgspec.DecodeError:
        decoded = operations.Nothing()
    if isinstance(decoded, operations.Failed):
        lines = decoded.traceback.strip().splitlines() or [f"{decoded.type_name}: {decoded.text}"]
        text = lines[-1][:_LINE]
    return Announce(f"{label} failed on {engines_named(ids)}: {text}")
