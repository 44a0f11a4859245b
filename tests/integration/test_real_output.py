"""What real ranks print, in Python, C, Fortran and subprocesses, on its way to the client."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipmpi import limits
from ipmpi.client.session.commandoutput import Block
from ipmpi.errors import EngineLost
from ipmpi.protocol.messages import STDERR, STDOUT

if TYPE_CHECKING:
    from real_clusters import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

FORTRAN = """
subroutine said() bind(c)
  write(*, '(a)') 'from Fortran'
end subroutine
"""


def test_what_c_and_subprocesses_print_is_captured_in_order(cluster: Cluster) -> None:
    mec = cluster.mec()
    mec.execute("import ctypes, os, sys; libc = ctypes.CDLL(None)")
    code = (
        "print('python 1'); libc.printf(b'C %d\\n', 2); os.system('echo shell 3')\n"
        "os.write(1, b'descriptor 4\\n')\n"
        "print('python 5'); libc.printf(b'no newline')\nos.system('echo error >&2')"
    )
    for result in mec.execute(code):
        assert result["stdout"] == "python 1\nC 2\nshell 3\ndescriptor 4\npython 5\nno newline"
        assert result["stderr"] == "error\n"


def test_what_fortran_prints_is_captured(
    cluster: Cluster, tmp_path: Path, need: Callable[[str, object], None]
) -> None:
    compiler = shutil.which("gfortran") or ""
    need("no gfortran here", compiler)
    source, library = tmp_path / "said.f90", tmp_path / "said.so"
    source.write_text(FORTRAN)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    mec = cluster.mec()
    code = f"import ctypes, time; said = ctypes.CDLL({str(library)!r}).said; said(); time.sleep(5)"
    pending = mec.execute(code, block=False, targets=0)
    first: list[float] = []
    pending.outputs[0].listen(lambda blocks: first.extend(time.monotonic() for _ in blocks))
    assert pending.r[0]["stdout"] == "from Fortran\n"
    assert time.monotonic() - first[0] > 3, "it came when the command was over"


def test_lines_come_while_a_command_runs(cluster: Cluster) -> None:
    mec = cluster.mec()
    mec.execute("import time, ctypes; libc = ctypes.PyDLL(None)")
    code = (
        "libc.printf(b'begin %f\\n', ctypes.c_double(time.time())) if id == 1 else print('begin')\nlibc.sleep(2)"
    )
    pending = mec.execute(code, block=False)
    came: list[tuple[float, Block]] = []
    pending.outputs[0].listen(lambda blocks: came.extend((time.time(), block) for block in blocks))
    pending.wait(30)
    assert sorted(engine for _, block in came for engine in block.engines) == [0, 1, 2, 3]
    ((when, block),) = [each for each in came if each[1].engines == (1,)]
    assert when - float(block.text.split()[1]) < 1.0, "while the rank was in C and held the GIL"
    assert block.kind == STDOUT


def test_an_unfinished_line_comes_as_well(cluster: Cluster) -> None:
    mec = cluster.mec()
    code = "import sys, time\nprint('10%', end='', flush=True)\n"
    code += "print('warning', end='', file=sys.stderr, flush=True); time.sleep(3)"
    pending = mec.execute(code, block=False, targets=0)
    came: list[tuple[float, Block]] = []
    pending.outputs[0].listen(lambda blocks: came.extend((time.monotonic(), block) for block in blocks))
    pending.wait(30)
    end = time.monotonic()
    assert sorted((block.kind, block.text) for _, block in came) == [(STDOUT, "10%"), (STDERR, "warning")]
    assert all(end - when > 1.5 for when, _ in came)


def test_get_result_has_the_output_of_earlier_commands(cluster: Cluster) -> None:
    mec = cluster.mec()
    mec.reset()  # ranks that have run different commands number them differently
    mec.execute("print('first', id); import os; os.system('echo shell')")
    mec.execute("print('second')")
    number = mec.get_result()[0]["number"]
    assert [one["stdout"] for one in mec.get_result(number)] == ["second\n"] * 4
    assert [one["stdout"] for one in mec.get_result(number - 1)] == [f"first {e}\nshell\n" for e in mec.get_ids()]


def test_a_rank_that_prints_without_end_fills_no_memory_and_slows_nobody(cluster: Cluster) -> None:
    mec = cluster.mec()
    flood = (
        "line = 'x' * 99 + '\\n'\nprint('begin')\nfor _ in range(2000): print(line * 1000, end='')\nprint('end')"
    )
    pending = mec.execute(flood, block=False, targets=0)
    longest = 0.0
    while not pending.done():
        begun = time.monotonic()
        mec.execute("1", targets=1)
        longest = max(longest, time.monotonic() - begun)
    assert longest < 2.0
    text = pending.r[0]["stdout"]
    assert text.startswith("begin\nxxx")
    assert text.endswith("x\nend\n")
    assert "bytes left out here] ..." in text
    assert len(text) < limits.RESULT_TEXT + 200


def test_equal_lines_cost_the_client_once(cluster: Cluster) -> None:
    mec = cluster.mec()
    sizes = []
    for _ in range(5):  # ranks that get no processor for a moment print later than others: their lines come again
        pending = mec.execute("for n in range(100): print('step', n)", block=False)
        pending.wait(30)
        blocks = pending.outputs[0].blocks
        sizes.append(sum(len(block.text) for block in blocks))
        assert {engine for block in blocks for engine in block.engines} == {0, 1, 2, 3}
    assert min(sizes) < 2 * len("step 10\n") * 100


def test_the_log_has_what_is_printed_between_commands_also_of_ranks_that_are_stuck(cluster: Cluster) -> None:
    mec, tc = cluster.mec(), cluster.tc()
    tc.map(lambda number: print(f"task {number}"), range(8))
    assert all("task" not in one["stdout"] for one in mec.execute("import ctypes; libc = ctypes.PyDLL(None)"))
    stuck = mec.execute("libc.sleep(5)", block=False, targets=[1, 2])
    begun = time.monotonic()
    log = mec.log()
    assert time.monotonic() - begun < 2
    assert sorted(log) == mec.get_ids()
    assert sorted(line for text in log.values() for line in text.splitlines()) == [f"task {n}" for n in range(8)]
    assert not stuck.done()


def test_a_rank_that_asks_for_input_is_told_at_once_that_there_is_none(cluster: Cluster) -> None:
    pending = cluster.mec().execute("input('how many? ')", block=False)
    assert pending.wait(20)
    assert {type(error) for error in pending.failures.values()} == {EOFError}
    assert "how many? " in "".join(block.text for block in pending.outputs[0].blocks)


def test_the_last_words_of_a_rank_that_dies_arrive(cluster: Cluster) -> None:
    # The last test here: launchers end all ranks when one dies.
    mec = cluster.mec()
    pending = mec.execute("import os\nprint('last words'); os.kill(os.getpid(), 9)", block=False, targets=3)
    pending.wait(30)
    assert isinstance(pending.failures[3], EngineLost)
    assert [block.text for block in pending.outputs[0].blocks] == ["last words\n"]
