"""Started programs and the signals that tell about them."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

import pytest

from ipmpi.exits import how_it_ended
from ipmpi.launch.processes.process import ChildProcess, Signals, session, tail

linux = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")


def test_the_end_of_a_child_is_an_event(tmp_path: Path) -> None:
    with Signals() as signals:
        child = ChildProcess.start("it", [sys.executable, "-c", "print('hello'); exit(3)"], tmp_path / "out")
        assert select.select([signals], [], [], 10)[0]
        assert signal.SIGCHLD in signals.read()
        assert child.exit_code() == 3
    assert (tmp_path / "out").read_text() == "hello\n"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_stop_signals_are_events_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert select.select([signals], [], [], 10)[0]
        assert signals.read() == [signal.SIGINT]
        assert signals.read() == []
    assert signal.getsignal(signal.SIGINT) is before


def test_hangup_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@linux
def test_killing_a_session_leaves_nothing_of_a_launcher(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input_marker=0; "
    code += (
        "import time; time.sleep(60)'], process_group=0)" if sys.version_info >= (3, 11) else "time.sleep(60)'])"
    )
    with Signals() as signals:
        child = ChildProcess.start("launcher", [sys.executable, "-c", code], tmp_path / "out")
        while not tail(tmp_path / "out"):
            select.select([], [], [], 0.01)
        assert len(session(child.pid)) == 2
        os.kill(child.pid, signal.SIGKILL)
        while child.exit_code() is None:
            select.select([signals], [], [], 1)
            signals.read()
    (orphan,) = session(child.pid)
    child.kill_session("not in its command line")
    assert [member.pid for member in session(child.pid)] == [orphan.pid]
    descriptor = os.pidfd_open(orphan.pid)
    child.kill_session("input_marker")
    assert select.select([descriptor], [], [], 10)[0]
    os.close(descriptor)
    assert session(child.pid) == []


def test_tail_gives_the_last_lines_of_any_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(10_000)) + b"\xff end\n\n")
    assert tail(path, 2) == ["line 9999", "\ufffd end"]
    assert tail(tmp_path / "missing") == []


def test_words_for_exit_codes() -> None:
    assert how_it_ended(0) == "exit code 0"
    assert how_it_ended(-15) == "killed by SIGTERM"
    assert how_it_ended(-40) == "killed by signal 40"
