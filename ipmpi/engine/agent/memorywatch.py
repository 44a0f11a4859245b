"""How much memory the ranks of a node have, looked at while they run something.

A process that has ended has no memory any more, so it must be looked at before. While nothing runs nobody looks:
then there is no timer.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from ... import limits
from ...cgroups import MemoryGroup, memory_groups
from ...transport.loop import Loop, Timer
from .deathcertificate import MemoryFacts

_SOONEST = 0.02
_FADES = 30.0
"""Seconds after which nobody is expected to have been meant by a kill of the kernel's: it was a child process."""
_KIB = 1024


class Watched(Protocol):
    """The part of :class:`~ipmpi.engine.agent.localrank.LocalRank` that is needed here."""

    pid: int

    @property
    def is_wanted(self) -> bool:
        """Whether it has something to run."""


class Reading(NamedTuple):
    """The memory of a process: the most so far, what it has mapped at most, and what it may map (0: no limit)."""

    peak_rss: int = 0
    address_space: int = 0
    address_limit: int = 0


def read_memory(pid: int, proc: str = "/proc") -> Reading | None:
    """Return the memory of a process; None if it has none any more."""
    sizes: dict[str, int] = {}
    try:
        with open(f"{proc}/{pid}/status", errors="replace") as file:
            for line in file:
                if line.startswith(("VmPeak:", "VmHWM:")):
                    name, size, _ = line.split()
                    sizes[name] = int(size) * _KIB
    except (OSError, ValueError):
        return None
    if "VmHWM:" not in sizes:
        return None
    most = resource.RLIM_INFINITY
    with contextlib.suppress(OSError, AttributeError):
        most, _ = resource.prlimit(pid, resource.RLIMIT_AS)
    return Reading(sizes["VmHWM:"], sizes.get("VmPeak:", 0), 0 if most == resource.RLIM_INFINITY else most)


class OomKills:
    """Tells whose end a kill of the kernel's explains (no I/O): it is known only how many there were.

    Args:
        count: how many there were already.
    """

    def __init__(self, count: int) -> None:
        self._explained = count
        self._since = math.inf

    def seen(self, count: int, now: float) -> None:
        """There were so many by now, and nobody is known to have ended."""
        if count <= self._explained:
            self._since = math.inf
        elif self._since == math.inf:
            self._since = now
        elif now - self._since > _FADES:
            self._explained, self._since = count, math.inf

    def take(self, count: int) -> bool:
        """Somebody has been killed; return whether it was by the kernel."""
        if count <= self._explained:
            return False
        self._explained += 1
        return True


class Headroom:
    """When to look again (no I/O): sooner if memory runs out soon."""

    def __init__(self) -> None:
        self._interval = limits.MEMORY_LOOK
        self._before: tuple[float, int] | None = None

    def next_look(self, left: int | None, now: float) -> float:
        """Return the seconds until the next look; ``left`` bytes are free."""
        self._interval = min(2 * self._interval, limits.MEMORY_LOOK_LONGEST)
        before, self._before = self._before, None if left is None else (now, left)
        if before is None or left is None or now <= before[0] or left >= before[1]:
            return self._interval
        empty_in = left * (now - before[0]) / (before[1] - left)
        return max(_SOONEST, min(self._interval, empty_in / 4))


class Used(NamedTuple):
    """Of whom least is left: ``used`` of ``limit`` bytes, and who they are."""

    limit: int
    used: int
    scope: str

    @property
    def left(self) -> int:
        """Bytes that are free."""
        return self.limit - self.used


class MemoryWatch:
    """Looks at the memory of the ranks that run something.

    Args:
        ranks: returns those of this node.
    """

    def __init__(self, loop: Loop, ranks: Callable[[], Iterable[Watched]]) -> None:
        self._loop = loop
        self._ranks = ranks
        self._timer: Timer | None = None
        self._headroom = Headroom()
        self._readings: dict[int, Reading] = {}
        self._groups: dict[int, list[MemoryGroup]] = {}
        self._used: dict[str, Used] = {}
        """As it was at the last look, by the group of the rank."""
        self._kills: dict[str, OomKills] = {}

    def add(self, pid: int) -> None:
        """A rank has started."""
        self._groups[pid] = groups = memory_groups(pid)
        for folder, count in _oom_kills(groups):
            self._counted(folder, count)

    def _counted(self, folder: str, count: int) -> OomKills:
        if folder not in self._kills:
            self._kills[folder] = OomKills(count)
        return self._kills[folder]

    def wake(self) -> None:
        """A rank may have been given something to run."""
        if self._timer is None:
            self._headroom = Headroom()
            self._timer = self._loop.call_later(limits.MEMORY_LOOK, self._look)

    def _look(self) -> None:
        self._timer = None
        busy = [local.pid for local in self._ranks() if local.pid in self._groups and local.is_wanted]
        if not busy:
            return
        distinct: dict[str, list[MemoryGroup]] = {}
        for pid in busy:
            reading = read_memory(pid)
            if reading is None:
                continue  # it has ended, which is noticed now
            self._readings[pid] = reading
            groups = memory_groups(pid)
            if groups != self._groups[pid]:
                self.add(pid)
            distinct[_name(groups)] = groups
        now = self._loop.now()
        for groups in distinct.values():
            for folder, count in _oom_kills(groups):
                self._counted(folder, count).seen(count, now)
        self._used = {name: _tightest(groups) for name, groups in distinct.items()}
        limited = [each for pid in busy if (each := self._readings.get(pid)) is not None and each.address_limit]
        spaces = [each.address_limit - each.address_space for each in limited]
        left = min([*(used.left for used in self._used.values()), *spaces], default=None)
        self._timer = self._loop.call_later(self._headroom.next_look(left, now), self._look)

    def ended(self, pid: int) -> MemoryFacts:
        """Return what is known of a rank that has ended."""
        groups = self._groups.pop(pid, None)
        reading = self._readings.pop(pid, Reading())
        if groups is None:
            return MemoryFacts()
        kills = _oom_kills(groups)
        # The kernel counts a kill in all groups around it. Those further out have other processes as well.
        oom = bool(kills) and self._counted(*kills[0]).take(kills[0][1])
        if oom:
            for folder, count in kills[1:]:
                self._counted(folder, count).take(count)
        used = self._used.get(_name(groups)) or _tightest(groups)
        if oom:
            peaks = [group.peak() or 0 for group in groups if group.limit() == used.limit]
            used = used._replace(used=max(used.used, *peaks[:1]) if peaks else used.used)
        return MemoryFacts(reading.peak_rss, used.used, used.limit, used.scope, *reading[1:], oom)


def _name(groups: list[MemoryGroup]) -> str:
    return groups[0].folder if groups else ""


def _oom_kills(groups: list[MemoryGroup]) -> list[tuple[str, int]]:
    """How many processes the kernel has ended in each group, inner ones first; on the machine if there is none.

    The innermost group of a process may be removed with it.
    """
    found = [(group.folder, count) for group in groups if (count := group.oom_kills()) is not None]
    if found:
        return found
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return [("", int(line.split()[1]))]
    return []


def _tightest(groups: list[MemoryGroup]) -> Used:
    total, available = _machine()
    found = [Used(total, total - available, "machine")]
    for group in groups:
        limit, used = group.limit(), group.usage()
        if limit is not None and used is not None and limit < total:
            found.append(Used(limit, used, "control group"))
    return min(found, key=lambda each: each.left)


def _machine() -> tuple[int, int]:
    """The memory of this machine in bytes, and what is available of it."""
    sizes = {}
    with contextlib.suppress(OSError, ValueError), open("/proc/meminfo") as file:
        for line in file:
            if line.startswith(("MemTotal:", "MemAvailable:")):
                name, size, _ = line.split()
                sizes[name] = int(size) * _KIB
                if len(sizes) == 2:
                    return sizes["MemTotal:"], sizes["MemAvailable:"]
    page = os.sysconf("SC_PAGE_SIZE")
    return os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
