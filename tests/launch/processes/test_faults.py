"""Which rank ended first, by files that were written, and whose log tells of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipmpi.launch.processes.faults import Faults

KILLED = "prterun noticed that process rank 2 with PID 12 on node vm exited on signal 9 (Killed).\n"


class Launch:
    """The files of a launch of four ranks: pids 10 to 13."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "engines.log"
        self.output.write_text("")
        self.logs = [self.start(rank, 10 + rank) for rank in range(4)]
        self.faults = Faults(lambda: [self.output], lambda: sorted(folder.glob("ipengine-*.log")))

    def start(self, rank: int, pid: int) -> Path:
        path = self.folder / f"ipengine-1-vm-{rank}-{pid}.log"
        path.write_text(f"MPI started with rank = {rank} and size = 4\n")
        return path


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return Launch(tmp_path)


def test_nothing_is_known_of_a_launch_that_runs(launch: Launch) -> None:
    assert launch.faults.look() == []
    assert launch.faults.log() is None


def test_the_launcher_names_the_rank(launch: Launch) -> None:
    launch.output.write_text(KILLED)
    assert launch.faults.look() == ["rank 2 (pid 12 on vm) was killed by SIGKILL"]
    assert launch.faults.look() == [], "it is told once"
    assert launch.faults.log() == launch.logs[2]


def test_a_process_is_known_by_its_log(launch: Launch) -> None:
    launch.output.write_text("= PID 13 RUNNING AT vm = EXIT CODE: 3\n")
    assert launch.faults.look() == ["rank 3 (pid 13 on vm) ended with exit code 3"]
    assert launch.faults.log() == launch.logs[3]


def test_a_crash_that_only_the_rank_itself_tells_of(launch: Launch) -> None:
    launch.logs[1].write_text("Fatal Python error: Segmentation fault\n\n" + "  File ...\n" * 300)
    launch.faults.lost(1, 11, "vm")
    assert launch.faults.look() == ["rank 1 (pid 11 on vm) was killed by SIGSEGV"]
    assert launch.faults.log() == launch.logs[1]


def test_who_the_launcher_has_killed_itself_is_not_blamed_when_the_first_one_is_known(launch: Launch) -> None:
    launch.output.write_text("= RANK 1 PID 11 RUNNING AT vm = KILLED BY SIGNAL: 9 (Killed)\n")
    launch.faults.lost(2, 12, "vm")
    launch.faults.lost(1, 11, "vm")
    assert launch.faults.look() == ["rank 2 (pid 12 on vm) ended first"]
    assert launch.faults.log() == launch.logs[2]


def test_what_the_controller_lost_first_is_worth_a_look_even_if_nobody_else_says_a_word(launch: Launch) -> None:
    launch.faults.lost(2, 12, "vm")
    assert launch.faults.look() == []
    assert launch.faults.log() == launch.logs[2]


def test_a_new_start_has_nothing_to_do_with_what_was_written_before(launch: Launch) -> None:
    launch.output.write_text(KILLED)
    assert launch.faults.look()
    launch.faults.begin()
    assert launch.faults.look() == []
    again = launch.start(2, 22)
    with launch.output.open("a") as output:
        output.write("The first process to do so was: Process name: [prterun-vm-1@1,2] Exit code: 3\n")
    assert launch.faults.look() == ["rank 2 (pid 22) ended with exit code 3"]
    assert launch.faults.log() == again


def test_the_rank_that_was_lost_first_is_known_where_the_launcher_has_not_said_anything(launch: Launch) -> None:
    assert launch.faults.first() == []
    launch.faults.lost(2, 12, "vm")
    launch.faults.lost(0, 10, "vm")
    assert launch.faults.look() == []
    assert launch.faults.first() == ["rank 2 (pid 12 on vm) ended first"]
    launch.faults.begin()
    assert launch.faults.first() == []
