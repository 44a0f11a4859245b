"""What is said of the end of a rank."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.engine.agent.deathcertificate import (
    Evidence,
    MemoryFacts,
    Thinning,
    certificate,
    command_in_words,
    last_lines,
)
from ipmpi.exits import ABORT
from ipmpi.protocol import messages as m, operations
from ipmpi.protocol.mpicalls import MpiCall

GIB = 1 << 30
SEGFAULT = (
    "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n"
    '  File "/home/ada/heat.py", line 41 in step\n'
)
ABORTED = f'{ABORT}\nStack (most recent call first):\n  File "/home/ada/heat.py", line 7 in give_up\n'
LOGGED = "2026-11-27 18:00:00 ipengine: all is well\n"
UNKNOWN = "its process ended, and how is not known: a crash, MPI_Abort, or out of memory"
OWN_LIMIT = MemoryFacts(int(250.9 * GIB), 251 * GIB, 251 * GIB, "control group", oom=True)
SHARED_LIMIT = MemoryFacts(3 * GIB, 8 * GIB, 8 * GIB, "control group", oom=True)
ROOMY = MemoryFacts(3 * GIB, 8 * GIB, 64 * GIB, "machine")
WITHOUT_SPACE = MemoryFacts(GIB, 8 * GIB, 64 * GIB, "machine", int(3.9 * GIB), 4 * GIB)
CALL = MpiCall(
    "world", 118, "Allreduce", 1, "float64", None, None, None, "/home/ada/heat.py", 41, "step", 31.0, True
)


def said(**found: Any) -> tuple[m.Death, str]:
    return certificate(37, 4711, "n3", Evidence(**{"ran": "task simulate", "seconds": 41.2, **found}))


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"status": signal.SIGKILL}, "it was killed by SIGKILL"),
        (
            {"status": signal.SIGKILL, "memory": OWN_LIMIT},
            "the kernel's OOM killer ended it (SIGKILL), as there was no memory left; "
            "its memory was 250.9 of 251 GiB (the limit of its control group)",
        ),
        (
            {"status": signal.SIGKILL, "memory": SHARED_LIMIT},
            "the kernel's OOM killer ended it (SIGKILL), as there was no memory left; "
            "its memory was 3 GiB, 8 of 8 GiB were in use in its whole control group",
        ),
        ({"status": None, "memory": SHARED_LIMIT}, "the kernel's OOM killer ended it (SIGKILL), as there was no "
         "memory left; its memory was 3 GiB, 8 of 8 GiB were in use in its whole control group"),
        (
            {"status": signal.SIGKILL, "memory": ROOMY},
            "it was killed by SIGKILL; its memory was 3 GiB, 8 of 64 GiB were in use on its machine",
        ),
        ({"status": signal.SIGSEGV, "memory": ROOMY}, "it was killed by SIGSEGV; its memory was 3 GiB"),
        (
            {"status": signal.SIGSEGV | 0x80, "memory": SHARED_LIMIT},
            "it was killed by SIGSEGV (core dumped); its memory was 3 GiB, 8 of 8 GiB were in use in its whole "
            "control group",
        ),
        (
            {"status": signal.SIGABRT, "memory": WITHOUT_SPACE},
            "it was killed by SIGABRT; its memory was 1 GiB, its address space was 3.9 of 4 GiB (ulimit -v)",
        ),
        ({"status": signal.SIGSEGV, "log": SEGFAULT}, "it was killed by SIGSEGV in step (heat.py:41)"),
        ({"status": None, "log": SEGFAULT}, "it was killed by SIGSEGV in step (heat.py:41)"),
        ({"status": 3 << 8}, "its process ended with exit code 3, as by os._exit() or by exit() in C"),
        ({"status": None}, UNKNOWN),
        ({"status": 5 << 8, "abort": 5}, "it called MPI_Abort with code 5"),
        ({"status": 9, "abort": 5, "log": ABORTED}, "it called MPI_Abort with code 5 in give_up (heat.py:7)"),
        (
            {"status": 5 << 8, "printed": "x\nAbort(5) on node 2 (rank 2 in comm 496): application called "
             "MPI_Abort(MPI_COMM_WORLD, 5) - process 2"},
            "it called MPI_Abort with code 5",
        ),
    ],
)  # fmt: skip
def test_the_sentence(found: dict[str, Any], sentence: str) -> None:
    assert said(**found)[1] == f"{sentence}; it ran task simulate for 41 s"


@pytest.mark.parametrize(
    "found",
    [
        pytest.param({"status": signal.SIGKILL, "log": SEGFAULT}, id="of a child process"),
        pytest.param({"status": signal.SIGKILL, "log": ABORTED}, id="an Abort of a child process"),
        pytest.param({"status": None, "log": SEGFAULT + LOGGED}, id="the process went on"),
        pytest.param({"status": 5 << 8, "abort": 5, "log": SEGFAULT}, id="not that of the abort"),
    ],
)
def test_a_stack_that_does_not_belong_to_the_end_is_left_out(found: dict[str, Any]) -> None:
    death, sentence = said(**found)
    assert death.stack == ""
    assert "heat.py" not in sentence


def test_who_was_killed_by_somebody_else_is_no_victim_of_the_kernel() -> None:
    """The count of the kernel's kills went up, and this one has crashed."""
    death, sentence = said(status=signal.SIGSEGV, memory=SHARED_LIMIT)
    assert not death.oom
    assert "OOM" not in sentence


def test_an_mpi_call_in_which_it_was_and_nothing_to_run() -> None:
    assert said(status=9, call=CALL)[1].endswith(
        "it ran task simulate for 41 s, and was in Allreduce #118 (heat.py:41)"
    )
    assert said(status=9, ran="")[1].endswith("; it ran nothing then")


def test_the_facts_are_there_for_programs() -> None:
    death, _ = said(status=signal.SIGKILL, memory=OWN_LIMIT, printed="step 1\nstep 2")
    assert death == m.Death(
        37, 4711, "n3", 9, None, None, True, int(250.9 * GIB), 251 * GIB, 251 * GIB, "task simulate", 41.2,
        "step 1\nstep 2",
    )  # fmt: skip
    assert said(status=3 << 8)[0].exit_code == 3
    crashed = said(status=signal.SIGSEGV, log=LOGGED + SEGFAULT)[0]
    assert (crashed.signal, crashed.stack) == (signal.SIGSEGV, SEGFAULT.strip())


def test_a_long_stack_and_long_output_are_cut() -> None:
    frames = "".join(f'  File "/home/ada/deep.py", line {n} in down\n' for n in range(10_000))
    death, sentence = said(status=signal.SIGSEGV, log=SEGFAULT + frames)
    assert len(death.stack) == limits.DEATH_STACK
    assert "step (heat.py:41)" in sentence
    lines = last_lines(b"".join(b"%d\n" % n for n in range(100)))
    assert lines.splitlines() == [str(n) for n in range(80, 100)]
    assert last_lines(b"x" * 100_000) == "x" * limits.DEATH_LINE + "..."
    assert len(last_lines("é\n".encode() + b"\xff" * 300 + b"\n" + b"y" * 399 + b"\n" * 18).encode()) < 3000
    assert len(last_lines(("é" * 399 + "\n").encode() * 20).encode()) <= limits.DEATH_PRINTED


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = step(x)", 'execute "x = step(x)"'),
        ("# what\nimport os\n\n%timeit\nstep()\nmore()", 'execute "step()..."'),
        ("import os", 'execute "import os"'),
        ("y" * 100, f'execute "{"y" * 60}..."'),
        ("", "execute"),
    ],
)
def test_a_command_in_words(source: str, words: str) -> None:
    assert command_in_words("execute", operations.encode(operations.Execute(source))) == words


def test_another_command_in_words() -> None:
    assert command_in_words("push", operations.encode(operations.Push())) == "push"
    assert command_in_words("of another release", b"\xc1") == "of another release"


def test_many_deaths_at_a_time_are_passed_on_without_what_is_long() -> None:
    thinning = Thinning()
    death = m.Death(1, 2, "n", 9, printed="much", stack="more")
    lost = m.RanksLost([1], "it was killed", death=death)
    told = [thinning.passed_on(lost, 0.1 * n) for n in range(limits.DEATHS_WHOLE + 5)]
    assert told[: limits.DEATHS_WHOLE] == [lost] * limits.DEATHS_WHOLE
    assert {(each.reason, each.death) for each in told[limits.DEATHS_WHOLE :]} == {
        ("it was killed", m.Death(1, 2, "n", 9))
    }
    assert thinning.passed_on(lost, limits.DEATHS_WITHIN) == lost
    nothing = m.RanksLost([1], "its node is gone")
    assert thinning.passed_on(nothing, 1.0) is nothing
