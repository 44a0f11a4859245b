"""When ranks are looked at, and whose end the kernel's out-of-memory killer explains."""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from ipmpi import limits
from ipmpi.engine.agent import memorywatch
from ipmpi.engine.agent.deathcertificate import MemoryFacts
from ipmpi.engine.agent.memorywatch import Headroom, MemoryWatch, OomKills, Pace, Reading, read_memory
from ipmpi.transport.loop import Timer

MIB = 1 << 20


class Clock:
    """A loop whose time the test sets."""

    def __init__(self) -> None:
        self.time = 0.0
        self.timers: list[Timer] = []

    def now(self) -> float:
        return self.time

    def call_later(self, delay: float, call: Callable[[], object]) -> Timer:
        self.timers.append(Timer(self.time + delay, call))
        return self.timers[-1]

    def turn(self) -> float:
        """Make the next call, and return how long that took."""
        timer = self.timers.pop()
        assert not self.timers, "one timer is enough"
        waited, self.time = timer.when - self.time, timer.when
        assert timer.call is not None
        timer.call()
        return waited


class Rank:
    def __init__(self, pid: int = 0) -> None:
        self.pid = pid or os.getpid()
        self.is_wanted = True
        self.began: float | None = 0.0


def watch(clock: Clock, *ranks: Rank) -> MemoryWatch:
    made = MemoryWatch(clock, lambda: ranks)  # type: ignore[arg-type]
    for rank in ranks:
        made.add(rank.pid)
    return made


def test_nobody_looks_while_nothing_runs() -> None:
    clock, rank = Clock(), Rank()
    watched = watch(clock, rank)
    assert not clock.timers
    watched.wake()
    watched.wake()
    assert clock.turn() == pytest.approx(limits.MEMORY_LOOK)
    intervals = [clock.turn() for _ in range(8)]
    assert max(intervals) <= limits.MEMORY_LOOK_LONGEST
    rank.is_wanted = False
    clock.turn()
    assert not clock.timers
    watched.wake()
    assert clock.turn() == pytest.approx(limits.MEMORY_LOOK)


def test_a_rank_is_looked_at_less_and_less_often_until_it_begins_something_new() -> None:
    pace, looks, now, began = Pace(), [], 0.0, 0.0
    for _ in range(8):
        now = pace.due(began, now)
        looks.append(round(now, 3))
        pace.read(began, now)
    assert looks == [0.1, 0.3, 0.7, 1.5, 3.1, 5.1, 7.1, 9.1]
    assert pace.due(10.0, 10.0) == pytest.approx(10.1)
    pace.read(10.0, 10.1)
    assert pace.due(10.0, 10.1) == pytest.approx(10.3)
    assert pace.due(10.15, 10.15) == pytest.approx(10.4), "those with short tasks are not looked at all the time"
    assert pace.due(None, 11.0) == pytest.approx(11.3), "nobody tells when it begins what it was given"


def test_who_begins_something_is_looked_at_soon_though_the_next_look_is_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, rank, other = Clock(), Rank(1000), Rank(1001)
    read: list[int] = []
    monkeypatch.setattr(memorywatch, "read_memory", lambda pid: read.append(pid) or Reading(MIB))
    monkeypatch.setattr(memorywatch, "memory_groups", lambda pid: [])
    monkeypatch.setattr(memorywatch, "_machine", lambda: (1000 * MIB, 500 * MIB))
    watched = watch(clock, rank, other)
    other.is_wanted = False
    watched.wake()
    while clock.time < 20.0:
        clock.turn()
    assert 10 < len(read) < 20
    del read[:]
    other.is_wanted, other.began = True, clock.time
    watched.wake()
    clock.timers = [timer for timer in clock.timers if timer.call is not None]
    clock.turn()
    assert read[:1] == [1001]


def test_a_rank_that_was_never_looked_at_has_no_memory_that_is_known() -> None:
    clock, rank = Clock(), Rank()
    watched = watch(clock, rank)
    facts = watched.ended(rank.pid)
    assert (facts.peak_rss, facts.oom) == (0, False)
    assert facts.limit >= facts.used > 0
    assert watched.ended(rank.pid) == MemoryFacts(), "not one of ours"


def test_the_peak_and_the_limits_of_a_real_process() -> None:
    code = "import resource; x = bytearray(b'1') * 90_000_000; del x; print('ready', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        resource.prlimit(process.pid, resource.RLIMIT_AS, (1 << 40, 1 << 40))
        clock, rank = Clock(), Rank(process.pid)
        watched = watch(clock, rank)
        watched.wake()
        clock.turn()
        process.kill()
        process.wait()
        clock.turn()  # nothing to be seen any more, which is no reason to stop
        facts = watched.ended(process.pid)
    assert 85 * MIB < facts.peak_rss < 300 * MIB
    assert facts.address_limit == 1 << 40
    assert facts.peak_rss < facts.address_space < 1 << 40
    assert read_memory(process.pid) is None


def test_memory_that_runs_out_soon_is_looked_at_sooner() -> None:
    headroom = Headroom()
    assert [headroom.next_look(1000 * MIB, float(now)) for now in range(3)] == [math.inf] * 3
    assert headroom.next_look(200 * MIB, 3.0) == pytest.approx(0.25 / 4)
    assert headroom.next_look(1 * MIB, 3.1) == pytest.approx(0.02), "not more often"
    assert headroom.next_look(900 * MIB, 4.0) == math.inf, "some was freed"


def test_all_are_looked_at_before_memory_has_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, rank = Clock(), Rank(1000)
    reads: list[float] = []
    monkeypatch.setattr(memorywatch, "read_memory", lambda pid: reads.append(clock.time) or Reading(MIB))
    monkeypatch.setattr(memorywatch, "memory_groups", lambda pid: [])
    monkeypatch.setattr(
        memorywatch, "_machine", lambda: (1000 * MIB, max(0, int(200 * MIB * (5 - max(0.0, clock.time - 8)))))
    )
    watched = watch(clock, rank)
    watched.wake()
    while clock.time < 13.0:
        clock.turn()
    assert any(12.9 < when < 13.0 for when in reads), reads
    assert len(reads) < 40


def test_each_kill_of_the_kernel_s_explains_one_end() -> None:
    kills = OomKills(3)
    assert not kills.take(3)
    assert kills.take(4)
    assert not kills.take(4), "that one was killed by the launcher, because of the first"
    assert kills.take(6)
    assert kills.take(6)


def test_a_kill_that_meant_a_child_process_explains_nothing_later() -> None:
    kills = OomKills(0)
    kills.seen(1, 10.0)
    kills.seen(1, 20.0)
    assert kills.take(1), "a large process needs seconds to end"
    kills.seen(2, 100.0)
    kills.seen(2, 131.0)
    assert not kills.take(2)
    assert kills.take(3)


def test_the_group_of_the_rank_counts_and_not_that_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks in groups of their own, in the group of the job. The launcher kills the second one."""
    counts = {"task0": 0, "task1": 0, "job": 5}

    class Group:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def limit(self) -> int | None:
            return 8 * MIB if self.folder == "job" else None

        def usage(self) -> int:
            return 7 * MIB

        def peak(self) -> int:
            return 8 * MIB

        def oom_kills(self) -> int | None:
            return counts.get(self.folder)

    monkeypatch.setattr(memorywatch, "memory_groups", lambda pid: [Group(f"task{pid - 1000}"), Group("job")])
    watched = watch(Clock(), Rank(1000), Rank(1001))
    counts.update(task0=1, job=6)
    other = watched.ended(1001)
    assert not other.oom
    victim = watched.ended(1000)
    assert victim.oom
    assert (victim.used, victim.limit, victim.scope) == (8 * MIB, 8 * MIB, "control group")


def test_a_group_that_ends_with_its_process_is_replaced_by_that_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"task": 0, "job": 5}

    class Group:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def limit(self) -> None:
            return None

        usage = peak = limit

        def oom_kills(self) -> int | None:
            return counts.get(self.folder)

    monkeypatch.setattr(memorywatch, "memory_groups", lambda pid: [Group("task"), Group("job")])
    watched = watch(Clock(), Rank(1000))
    del counts["task"]
    counts["job"] = 6
    assert watched.ended(1000).oom
