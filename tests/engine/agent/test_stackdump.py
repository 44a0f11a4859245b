"""What py-spy and faulthandler write becomes frames, and the user's own are kept."""

from __future__ import annotations

import faulthandler
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

import ipmpi
from ipmpi.engine.agent.stackdump import INNER, OUTER, NotAStackError, of_faulthandler, of_py_spy, users
from ipmpi.protocol.inquiries import StackFrame

OWN = str(Path(ipmpi.__file__).parent / "engine" / "rank" / "rank.py")
MPI = "/usr/lib/libmpi.so.40"


def told(name: str, file: str, line: int, module: str | None = None) -> dict[str, Any]:
    return {"name": name, "filename": file, "line": line, "module": module, "short_filename": None}


def dump(*threads: tuple[int, list[dict[str, Any]]]) -> bytes:
    return json.dumps(
        [{"os_thread_id": number, "frames": frames} for number, frames in threads], indent=2
    ).encode()


def test_the_frames_are_those_of_the_thread() -> None:
    data = dump(
        (8, [told("wait", "threading.py", 5)]), (7, [told("step", "heat.py", 41), told("<module>", "a", 2)])
    )
    assert of_py_spy(data, 7) == [StackFrame("step", "heat.py", 41), StackFrame("<module>", "a", 2)]
    assert of_py_spy(data, 9) == [StackFrame("wait", "threading.py", 5)], "the only one that could be meant"


def test_warnings_before_the_stack_are_no_part_of_it() -> None:
    assert of_py_spy(b"[2026-11-27 WARN py_spy] odd\n" + dump((7, [told("f", "a.py", 1)])), 7)


def test_a_function_of_c_has_its_library_for_a_file() -> None:
    assert of_py_spy(dump((7, [told("call", "callproc.c", 943, "/x/_ctypes.so")])), 7) == [
        StackFrame("call", "/x/_ctypes.so", 0)
    ]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            b"Error: Failed\n\nCaused by:\n    0: Permission denied\n\nStack backtrace:\n   0: x",
            "Permission denied",
        ),
        (b"", "py-spy has said nothing"),
        (b"[]", "[]"),
        (b'[{"os_thread_id": 7}]', "os_thread_id"),
    ],
)
def test_what_is_no_stack_says_why(said: bytes, why: str) -> None:
    with pytest.raises(NotAStackError, match=r"^[^\n]*$") as refused:
        of_py_spy(said, 7)
    assert why in str(refused.value)
    assert "backtrace" not in str(refused.value)


def test_a_stack_of_faulthandler_has_the_same_frames() -> None:
    def inner() -> bytes:
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=False)
            file.seek(0)
            return file.read()

    frames = of_faulthandler(inner())
    assert [frame.function for frame in frames[:2]] == [
        "inner",
        "test_a_stack_of_faulthandler_has_the_same_frames",
    ]
    assert frames[0].file.endswith("test_stackdump.py")
    assert frames[1].line == frames[0].line + 4
    assert of_faulthandler(b"Stack (most recent call first):\n  <no Python frame>\n") == []


def test_the_frames_around_the_users_code_and_within_it_are_left_out() -> None:
    step, cell = StackFrame("step", "heat.py", 41), StackFrame("<module>", "<ipmpi 3>", 1)
    around = [StackFrame("_run", OWN, 5), StackFrame("run", OWN, 9), StackFrame("<module>", "runpy.py", 88)]
    assert users([step, cell, *around]) == [step, cell]
    wait = StackFrame("wait", OWN, 77)
    assert users([wait, step, cell, *around]) == [step, cell], "it waits in a communicator of ours"
    assert users([step, StackFrame("callback", OWN, 3), cell, *around]) == [step, cell]
    assert users([step, cell]) == [step, cell], "no frame of ours around it"
    assert users([wait, *around]) == [wait], "what ipmpi does by itself"
    assert users([]) == []


def test_functions_of_the_interpreter_and_what_mpi_calls_are_left_out() -> None:
    step, cell = StackFrame("step", "heat.py", 41), StackFrame("<module>", "<ipmpi 3>", 1)
    call = StackFrame("PMPI_Allreduce", MPI, 0)
    cython = StackFrame("Allreduce", "/x/MPI.so", 0)
    inside = [StackFrame("sched_yield", "libc.so.6", 0), StackFrame("PMPI_Sendrecv", MPI, 0)]
    python = StackFrame("PyObject_Call", "/x/libpython3.11.so.1.0", 0)
    around = [
        python,
        StackFrame("_run", OWN, 5),
        python,
        StackFrame("main", OWN, 2),
        StackFrame("_start", "ld.so", 0),
    ]
    assert users([*inside, call, cython, python, step, python, cell, *around]) == [call, cython, step, cell]


def test_of_a_deep_stack_both_ends_are_told() -> None:
    deep = [StackFrame(f"f{number}", "deep.py", 1) for number in range(1000)]
    kept = users(deep)
    assert kept == deep[:INNER] + deep[-OUTER:]
