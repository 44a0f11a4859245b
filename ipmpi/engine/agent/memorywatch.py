"""How much memory the ranks of a node have, looked at while they run something.

A process that has ended has no memory any more, so it must be looked at before. A rank is looked at soon after it
has begun something, then less and less often, and more often when memory runs out. While nothing runs there is no
timer, and what takes less than a tenth of a second is not looked at.
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
_APART = 3 * limits.MEMORY_LOOK
"""Seconds between two looks at a rank that begins something new all the time."""
_FADES = 30.0
"""Seconds after which nobody is expected to have been meant by a kill of the kernel's: it was a child process."""
_KIB = 1024


class Watched(Protocol):
    """The part of :class:`~ipmpi.engine.agent.localrank.LocalRank` that is needed here."""

    pid: int

    @property
    def is_wanted(self) -> bool:
        """Whether it has something to run."""

    @property
    def began(self) -> float | None:
        """When it began what it runs (time.monotonic); None if it runs nothing."""


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


class Pace:
    """When to look at one rank again (no I/O)."""

    def __init__(self) -> None:
        self._read_at = -math.inf
        self._interval = limits.MEMORY_LOOK

    def due(self, began: float | None, now: float) -> float:
        """Return when; ``began`` is when it began what it runs."""
        if began is None:
            return now + _APART  # it has not begun, or is between two tasks, and nobody tells when it begins
        if began > self._read_at:
            return max(began + limits.MEMORY_LOOK, self._read_at + _APART)
        return self._read_at + self._interval

    def read(self, began: float | None, now: float) -> None:
        """It was looked at."""
        is_new = began is None or began > self._read_at
        self._interval = limits.MEMORY_LOOK if is_new else self._interval
        self._interval = min(2 * self._interval, limits.MEMORY_LOOK_LONGEST)
        self._read_at = now


class Headroom:
    """When memory will have run out, by how fast it goes (no I/O)."""

    def __init__(self) -> None:
        self._before: tuple[float, int] | None = None

    def next_look(self, left: int, now: float) -> float:
        """Return the seconds after which to look at all, a quarter of those that are left; ``left`` bytes are."""
        before, self._before = self._before, (now, left)
        if before is None or now <= before[0] or left >= before[1]:
            return math.inf
        return max(_SOONEST, left * (now - before[0]) / (before[1] - left) / 4)


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
        self._all_at = math.inf
        """When to look at all, since memory runs out."""
        self._paces: dict[int, Pace] = {}
        self._readings: dict[int, Reading] = {}
        self._groups: dict[int, list[MemoryGroup]] = {}
        self._used: dict[str, Used] = {}
        """As it was at the last look, by the group of the rank."""
        self._kills: dict[str, OomKills] = {}

    def add(self, pid: int) -> None:
        """A rank has started."""
        self._paces.setdefault(pid, Pace())
        self._groups[pid] = groups = memory_groups(pid)
        for folder, count in _oom_kills(groups):
            self._counted(folder, count)

    def _counted(self, folder: str, count: int) -> OomKills:
        if folder not in self._kills:
            self._kills[folder] = OomKills(count)
        return self._kills[folder]

    def wake(self) -> None:
        """A rank may have been given something to run."""
        soon = self._loop.now() + limits.MEMORY_LOOK
        if self._timer is None or self._timer.when > soon:
            self._look_after(limits.MEMORY_LOOK)

    def _look_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer, now = None, self._loop.now()
        wanted = [local for local in self._ranks() if local.pid in self._paces and local.is_wanted]
        if not wanted:
            self._headroom, self._all_at = Headroom(), math.inf
            return
        look_at_all = now >= self._all_at
        due = [local for local in wanted if look_at_all or self._paces[local.pid].due(local.began, now) <= now]
        if due:
            for local in due:
                self._paces[local.pid].read(local.began, now)
            left = self._read([local.pid for local in due], now)
            self._all_at = now + self._headroom.next_look(left, now)
        nexts = [self._paces[local.pid].due(local.began, now) for local in wanted]
        self._look_after(max(_SOONEST, min(self._all_at, *nexts) - now))

    def _read(self, pids: list[int], now: float) -> int:
        """Look at these; return how many bytes are left for that of them that has least."""
        left = []
        distinct: dict[str, list[MemoryGroup]] = {}
        for pid in pids:
            reading = read_memory(pid)
            if reading is None:
                continue  # it has ended, which is noticed now
            self._readings[pid] = reading
            if reading.address_limit:
                left.append(reading.address_limit - reading.address_space)
            groups = memory_groups(pid)
            if groups != self._groups[pid]:
                self.add(pid)
            distinct[_name(groups)] = groups
        for name, groups in distinct.items():
            for folder, count in _oom_kills(groups):
                self._counted(folder, count).seen(count, now)
            self._used[name] = used = _tightest(groups)
            left.append(used.left)
        return max(0, min(left, default=0))

    def ended(self, pid: int) -> MemoryFacts:
        """Return what is known of a rank that has ended."""
        self._paces.pop(pid, None)
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
