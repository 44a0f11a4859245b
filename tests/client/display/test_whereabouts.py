"""Where engines are, as text: equal places once."""

from __future__ import annotations

import linecache
import signal

import msgspec
import pytest

from ipmpi.client.display.ranksets import RankSet
from ipmpi.client.display.whereabouts import Whereabouts, call_text, with_own_lines
from ipmpi.protocol.inquiries import ENDED, IDLE, RUNNING, STOPPED, RankStack, StackFrame
from ipmpi.protocol.mpicalls import ANY, NOBODY, MpiCall

STEP = StackFrame("step", "/home/me/heat.py", 41, "comm.Allreduce(a, b)")
CELL = StackFrame("<module>", "<ipmpi 3>", 1, "step()")
CALL = MpiCall(
    "world", 118, "Allreduce", 1, "float64", None, None, None, "/home/me/heat.py", 41, "step", 31.0, True
)


def running(*frames: StackFrame, seconds: int = 31, runs: str = "execute", **more: object) -> RankStack:
    return RankStack(RUNNING, 0, -1, runs, seconds, list(frames), **more)  # type: ignore[arg-type]


def test_equal_places_are_one_line_whenever_they_were_read() -> None:
    other = StackFrame("step", "/home/me/heat.py", 37, "time.sleep(99)")
    stacks = {engine: running(STEP, CELL, seconds=31 + engine % 2) for engine in range(1023)}
    where = Whereabouts({1023: running(other, CELL), **stacks})
    assert str(where).splitlines() == [
        "[0-1022]  heat.py:41 in step: comm.Allreduce(a, b)  (execute, 32 s)",
        "[1023]  heat.py:37 in step: time.sleep(99)  (execute, 31 s)",
    ]
    assert list(where.groups) == [RankSet(range(1023)), RankSet([1023])]
    assert where.groups[RankSet([1023])].frames[0] == other
    assert where[5].frames[0].line == 41
    assert len(where) == 1024


def test_times_that_differ_are_told() -> None:
    where = Whereabouts({0: running(STEP, seconds=3), 1: running(STEP, seconds=40)})
    assert str(where) == "[0-1]  heat.py:41 in step: comm.Allreduce(a, b)  (execute, 3-40 s)"


@pytest.mark.parametrize(
    ("stack", "text"),
    [
        (RankStack(IDLE), "[5]  idle"),
        (RankStack(IDLE, seconds=0), "[5]  idle"),
        (RankStack(IDLE, seconds=12), "[5]  idle for 12 s"),
        (RankStack(ENDED), "[5]  its process has ended"),
        (RankStack(STOPPED, signal.SIGTSTP, 40), "[5]  stopped (SIGTSTP) for 40 s"),
        (RankStack(STOPPED), "[5]  stopped"),
        (
            RankStack(STOPPED, signal.SIGSTOP, 40, "execute", 50, [CELL]),
            "[5]  stopped (SIGSTOP) for 40 s  <ipmpi 3>:1: step()  (execute, 50 s)",
        ),
        (
            running(note="Permission denied", runs="task fit"),
            "[5]  where it is cannot be read: Permission denied  (task fit, 31 s)",
        ),
        (
            running(STEP, calls=[CALL]),
            "[5]  in Allreduce #118 for 31 s  heat.py:41 in step: comm.Allreduce(a, b)  (execute, 31 s)",
        ),
        (running(calls=[CALL]), "[5]  in Allreduce #118 for 31 s  heat.py:41 in step  (execute, 31 s)"),
        (
            running(STEP, calls=[msgspec.structs.replace(CALL, open=False)]),
            "[5]  heat.py:41 in step: comm.Allreduce(a, b)  (execute, 31 s)",
        ),
    ],
)
def test_each_state_has_its_words(stack: RankStack, text: str) -> None:
    assert str(Whereabouts({5: stack})) == text


def test_the_line_is_the_users_also_if_a_library_is_in_it() -> None:
    inverse = StackFrame("inv", "/usr/lib/python3/site-packages/numpy/linalg/_linalg.py", 561, "signature")
    assert str(Whereabouts({0: running(inverse, STEP, CELL)})) == (
        "[0]  heat.py:41 in step: comm.Allreduce(a, b)  > _linalg.py:561 in inv  (execute, 31 s)"
    )
    call = StackFrame("PMPI_Allreduce", "/x/libmpi.so.40", 0)
    assert "  > libmpi.so.40 in PMPI_Allreduce  " in str(Whereabouts({0: running(call, STEP, CELL)}))
    assert str(Whereabouts({0: running(inverse)})).startswith("[0]  _linalg.py:561 in inv: signature  ")


def test_all_functions_are_shown_on_request() -> None:
    assert Whereabouts({0: running(STEP, CELL)}).text(stacks=True).splitlines()[1:] == [
        "      heat.py:41 in step",
        "      <ipmpi 3>:1",
    ]


def test_engines_whose_agents_are_silent_are_named() -> None:
    assert str(Whereabouts({0: RankStack(IDLE)}, [2, 1])).splitlines() == [
        "[0]  idle",
        "[1-2]  their node agents have not answered within 5 s",
    ]
    assert str(Whereabouts({})) == "there are no engines"


def test_names_cannot_do_anything_to_the_terminal() -> None:
    frame = StackFrame("f\x1b[2J", "/x/\x1b]0;a.py", 1, "\x1b[3J")
    text = str(Whereabouts({0: running(frame, runs="task \x07")}))
    assert "\x1b" not in text
    assert "\x07" not in text


@pytest.mark.parametrize(
    ("name", "peer", "tag", "text"),
    [
        ("Send", 3, 7, "Send to 3, tag 7"),
        ("Recv", ANY, ANY, "Recv from any"),
        ("Isend", NOBODY, 0, "Isend to nobody, tag 0"),
    ],
)
def test_messages_have_their_other_end(name: str, peer: int, tag: int, text: str) -> None:
    assert call_text(msgspec.structs.replace(CALL, number=0, name=name, peer=peer, tag=tag)) == text


def test_lines_that_were_typed_here_are_shown_and_files_of_here_are_not() -> None:
    name = "<ipython-input-7>"
    linecache.cache[name] = (9, None, ["def f():\n", "    wait()\n"], name)
    linecache.cache["/x/heat.py"] = (9, 1.0, ["a\n", "another file of this name\n"], "/x/heat.py")
    try:
        stack = with_own_lines(running(StackFrame("f", name, 2), StackFrame("g", "/x/heat.py", 2), CELL))
        assert [frame.text for frame in stack.frames] == ["wait()", "", "step()"]
        assert with_own_lines(running(StackFrame("f", name, 99))).frames[0].text == ""
    finally:
        del linecache.cache[name], linecache.cache["/x/heat.py"]
