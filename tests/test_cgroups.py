"""Memory control groups, in folders like those of Linux."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipmpi.cgroups import memory_groups
from ipmpi.memory import available_bytes

GIB = 1 << 30
NO_LIMIT = 9223372036854771712
"""What version 1 says where there is no limit."""


class Machine:
    """A /proc, and groups in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.groups = folder / "memory groups"
        (self.proc / "self").mkdir(parents=True)
        self.groups.mkdir()
        (self.proc / "meminfo").write_text("MemTotal: 67108864 kB\nMemAvailable:   33554432 kB\n")

    def mounts(self, kind: str, root: str = "/", options: str = "rw") -> None:
        folder = str(self.groups).replace(" ", "\\040")
        (self.proc / "self" / "mountinfo").write_text(
            "22 1 0:20 / / rw - ext4 /dev/sda1 rw\n"
            "23 22 0:21 / /sys/fs/cgroup/cpu rw shared:3 - cgroup cgroup rw,cpu\n"
            f"24 22 0:22 {root} {folder} rw shared:4 - {kind} cgroup {options}\n"
        )

    def process(self, pid: int | str, groups: str) -> None:
        (self.proc / str(pid)).mkdir(exist_ok=True)
        (self.proc / str(pid) / "cgroup").write_text(groups)

    def group(self, name: str, **files: object) -> None:
        folder = self.groups / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (folder / f"memory.{file}").write_text(f"{content}\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_job_of_version_2_has_its_limit_outside_of_the_group_of_its_process(machine: Machine) -> None:
    machine.mounts("cgroup2")
    machine.process(7, "0::/slurm/job_1/step_0/task_3\n")
    events = "low 0\nmax 5\noom 2\noom_kill 1\noom_group_kill 0"
    machine.group("slurm/job_1/step_0/task_3", events=events, max="max", current=3 * GIB, peak=4 * GIB)
    machine.group("slurm/job_1/step_0", events="oom_kill 1", max="max", current=3 * GIB)
    machine.group("slurm/job_1", events="oom_kill 4", max=8 * GIB, current=7 * GIB)
    machine.group("slurm", events="oom_kill 9", max="max", current=9 * GIB)
    task, step, job, slurm = memory_groups(7, str(machine.proc))
    assert (task.limit(), task.usage(), task.peak(), task.oom_kills()) == (None, 3 * GIB, 4 * GIB, 1)
    assert (job.limit(), job.usage(), job.peak(), job.oom_kills()) == (8 * GIB, 7 * GIB, None, 4)
    assert [step.oom_kills(), slurm.oom_kills()] == [1, 9]


def test_version_1_beside_a_version_2_that_counts_no_memory(machine: Machine) -> None:
    machine.mounts("cgroup", options="rw,memory")
    machine.process(7, "9:cpu:/other\n4:memory:/job:1\n0::/unified\n")
    control = "oom_kill_disable 0\nunder_oom 0\noom_kill 2"
    machine.group("job:1", oom_control=control, limit_in_bytes=GIB, usage_in_bytes=500, max_usage_in_bytes=GIB)
    machine.group(".", oom_control=control, limit_in_bytes=NO_LIMIT, usage_in_bytes=2 * GIB)
    job, root = memory_groups(7, str(machine.proc))
    assert (job.limit(), job.usage(), job.peak(), job.oom_kills()) == (GIB, 500, GIB, 2)
    assert (root.limit(), root.usage()) == (None, 2 * GIB)


@pytest.mark.parametrize(
    ("root", "path"),
    [
        pytest.param("/docker/abc", "/docker/abc", id="a container that sees the names of its host"),
        pytest.param("/", "/", id="a container with a namespace of its own"),
        pytest.param("/..", "/../other", id="a process of another namespace"),
        pytest.param("/docker/abc", "/docker/abcdef", id="a group with a similar name"),
    ],
)
def test_in_a_container_the_folder_itself_is_the_group(machine: Machine, root: str, path: str) -> None:
    machine.mounts("cgroup2", root)
    machine.process(7, f"0::{path}\n")
    machine.group(".", events="oom_kill 0", max=2 * GIB, current=GIB)
    (group,) = memory_groups(7, str(machine.proc))
    assert group.limit() == 2 * GIB


def test_what_cannot_be_seen_is_no_group(machine: Machine) -> None:
    assert memory_groups(7, str(machine.proc)) == []
    other = Machine(machine.proc.parent / "other")
    other.mounts("cgroup2")
    assert memory_groups(7, str(other.proc)) == [], "no such process"
    other.process(7, "3:cpu:/\n")
    assert memory_groups(7, str(other.proc)) == []


def test_memory_that_can_be_had_is_within_all_limits_around_a_process(machine: Machine) -> None:
    machine.mounts("cgroup2")
    machine.process("self", "0::/job/task\n")
    machine.group("job/task", events="oom_kill 0", max=6 * GIB, current=2 * GIB)
    assert available_bytes(str(machine.proc)) == 4 * GIB
    machine.group("job", events="oom_kill 0", max=10 * GIB, current=9 * GIB)
    inner = Machine(machine.proc.parent / "inner")
    assert available_bytes(str(inner.proc)) == 32 * GIB, "without groups, that of the machine"
    assert available_bytes(str(machine.proc)) == 4 * GIB, "groups are looked up once"


def test_memory_here() -> None:
    assert 0 < available_bytes() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
