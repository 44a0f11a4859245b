"""A process is seen to run, sleep, be stopped, and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipmpi.engine.agent.procstate import ProcessState, process_state


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    # In a group of its own: the system ignores SIGTSTP in groups whose parents are all in other sessions, as that
    # of tests in the background may be.
    with subprocess.Popen(["sleep", "100"], preexec_fn=os.setpgrp) as process:
        yield process
        process.kill()


def until(pid: int, holds: Callable[[ProcessState], bool]) -> ProcessState:
    give_up = time.monotonic() + 5
    while not holds(state := process_state(pid)):
        assert time.monotonic() < give_up, state
    return state


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTSTP])
def test_what_has_stopped_it_is_known_and_since_when(sleeper: subprocess.Popen[bytes], number: int) -> None:
    until(sleeper.pid, lambda state: state.letter == "S")
    os.kill(sleeper.pid, number)
    state = until(sleeper.pid, lambda state: state.is_stopped)
    assert state.signal in (number, 0), "old kernels do not say it"
    assert -1.0 <= state.rested < 5
    if state.rested >= 0:
        later = until(sleeper.pid, lambda state: state.rested > 0.3)
        assert later.is_stopped
    os.kill(sleeper.pid, signal.SIGCONT)
    assert until(sleeper.pid, lambda state: not state.is_stopped).signal == 0


def test_the_end_of_a_process_is_seen_before_its_parent_has_waited(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    assert until(sleeper.pid, lambda state: state.has_ended).letter == "Z"
    sleeper.wait()
    assert process_state(sleeper.pid) == ProcessState("")


def test_a_system_that_shows_less_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) b) T 1")
    assert process_state(7, tmp_path) == ProcessState("T", 0, -1.0)
    (tmp_path / "7" / "stat").write_text("")
    assert process_state(7, tmp_path).has_ended


def test_a_process_that_was_moved_to_another_processor_has_no_time(tmp_path: Path) -> None:
    """The scheduler sets its clock to 0, which is not the time since the machine was started."""
    ours = tmp_path / "thread-self"
    ours.mkdir(parents=True)
    (ours / "sched").write_text("se.exec_start   :   76308255.524039\n")
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) S 1")
    for text, rested in (("76305255.524039", 3.0), ("0.000000", -1.0)):
        (tmp_path / "7" / "sched").write_text(f"se.exec_start   :   {text}\n")
        assert process_state(7, tmp_path).rested == rested


def test_nothing_is_kept_of_the_numbers_of_processes_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a Path are interned, and each question has a new thread: an agent would grow with each question."""
    kept: list[str] = []

    def intern(text: str) -> str:
        kept.append(text)
        return text

    monkeypatch.setattr(sys, "intern", intern)
    assert process_state(os.getpid()).letter
    assert not kept
