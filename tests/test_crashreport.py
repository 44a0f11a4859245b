"""What is read from the logs of processes that have crashed: real ones where that matters."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ipmpi.crashreport import Frame, last_crash
from ipmpi.exits import ABORT

OWN = (
    '  File "/x/ipmpi/engine/session/console.py", line 140 in _run\n'
    '  File "/x/ipmpi/cli/ipengine.py", line 9 in main\n'
)
CRASH = (
    "2026-11-27 17:06:10 ipengine: engine registration succeeded, got id: 1\n"
    "Fatal Python error: Segmentation fault\n\n"
    "Thread 0x00007f9038cb6b81 (most recent call first):\n"
    '  File "/home/ada/other.py", line 3 in wait\n\n'
    "Current thread 0x00007f9038cb6b80 (most recent call first):\n"
    '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at\n'
    '  File "/home/ada/heat.py", line 41 in step\n'
    '  File "<ipmpi 3>", line 1 in <module>\n' + OWN + "\nExtension modules: numpy.core (total: 1)\n"
)


def test_a_crash_has_the_user_s_line_and_no_frames_of_ipmpi() -> None:
    crash = last_crash(CRASH)
    assert crash is not None
    assert crash.signal == signal.SIGSEGV
    assert crash.is_last
    assert crash.place == "step (heat.py:41)"
    assert crash.frames[1:] == [Frame("/home/ada/heat.py", 41, "step"), Frame("<ipmpi 3>", 1, "<module>")]
    assert crash.traceback()[0] == '  File "<ipmpi 3>", line 1, in <module>'
    assert "other.py" in crash.text, "other threads may be the cause"
    assert "/x/ipmpi/" not in crash.text
    assert "Extension" not in crash.text
    assert last_crash(crash.text) == crash, "clients read it again"


def test_of_several_crashes_the_last_one_counts_and_whether_its_process_went_on() -> None:
    child = "Fatal Python error: Aborted\n\nCurrent thread 0x1 (most recent call first):\n  <no Python frame>\n"
    crash = last_crash(CRASH + child + "2026-11-27 18:00:00 ipengine: stopping: it was asked to\n")
    assert crash is not None
    assert (crash.signal, crash.is_last, crash.place) == (signal.SIGABRT, False, "")
    assert last_crash("2026-11-27 17:06:10 ipengine: stopping\n") is None


def test_the_stack_of_a_call_of_mpi_abort_begins_below_what_ipmpi_does_there() -> None:
    text = (
        f"{ABORT}\nStack (most recent call first):\n"
        '  File "/x/ipmpi/cli/ipengine.py", line 170 in _note_abort\n'
        '  File "/x/ipmpi/engine/mpi/abort.py", line 50 in abort\n'
        '  File "/home/ada/heat.py", line 12 in give_up\n' + OWN
    )
    crash = last_crash(text)
    assert crash is not None
    assert (crash.signal, crash.is_abort, crash.place) == (0, True, "give_up (heat.py:12)")
    assert len(crash.frames) == 1


@pytest.mark.parametrize(
    ("source", "number"), [("ctypes.string_at(0)", signal.SIGSEGV), ("os.abort()", signal.SIGABRT)]
)
def test_what_this_python_writes(tmp_path: Path, source: str, number: int) -> None:
    program = tmp_path / "heat.py"
    program.write_text(
        f"import ctypes, faulthandler, os\nfaulthandler.enable()\ndef step():\n    {source}\nstep()\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == -number
    crash = last_crash(done.stderr)
    assert crash is not None
    assert crash.signal == number
    assert crash.place == "step (heat.py:4)"
