"""Why nothing goes on, said from stacks and recorded calls; and nothing said while something may."""

from __future__ import annotations

import signal
from typing import Any

import msgspec
import pytest

from ipmpi.client.session.verdict import Answered, Look, judge, mpi_name
from ipmpi.protocol.inquiries import ENDED, IDLE, RUNNING, STOPPED, RankStack, StackFrame
from ipmpi.protocol.mpicalls import MpiCall

HANG = 60.0
ALL = Answered()


def call(name: str = "Allreduce", number: int = 118, **more: Any) -> MpiCall:
    given = {
        "comm": "comm", "number": number, "name": name, "count": None, "dtype": "", "root": None, "peer": None,
        "tag": None, "file": "/x/heat.py", "line": 41, "function": "step", "since": 60.0, "open": True, **more,
    }  # fmt: skip
    return MpiCall(**given)


def at(line: int, text: str = "", function: str = "step", *calls: MpiCall, file: str = "/x/heat.py") -> RankStack:
    frames = [StackFrame(function, file, line, text), StackFrame("<module>", "<ipmpi 3>", 1)]
    return RankStack(RUNNING, 0, -1, "execute", 61, frames, "", list(calls))


def in_call(**more: Any) -> RankStack:
    return at(41, "comm.Allreduce(a, b)", "step", call(**more))


ELSEWHERE = at(37, "time.sleep(999)")


def said(
    stacks: dict[int, RankStack], before: dict[int, RankStack] | None = None, answered: Answered = ALL
) -> str:
    """The sentence, without its head and end; the engines were where they are, if nothing else is given."""
    text = judge(Look(30.0, stacks if before is None else before), Look(60.0, stacks), answered, HANG)
    if not text:
        return ""
    head, _, rest = text.partition(": ")
    assert head in ("no progress for 60 s", "no progress seen for 30 s", "no progress")
    assert rest.endswith(". mec.where() shows more")
    return rest.removesuffix(". mec.where() shows more")


def test_another_collective_is_named() -> None:
    stacks = {engine: in_call() for engine in range(1023)}
    stacks[1023] = at(52, "comm.Bcast(a)", "step", call("Bcast", root=0, line=52))
    assert said(stacks) == (
        "ranks [0-1022] are in Allreduce #118 (heat.py:41); rank 1023 is in Bcast #118 (heat.py:52)"
    )


def test_who_has_not_entered_is_named_with_its_place() -> None:
    stacks = {**{engine: in_call() for engine in range(1023)}, 1023: ELSEWHERE}
    assert said(stacks) == (
        "ranks [0-1022] are in Allreduce #118 (heat.py:41); "
        "rank 1023 has not entered it; it is in step() heat.py:37: time.sleep(999)"
    )
    stacks[1023] = at(37, "", "step", call(number=117, open=False))
    assert "rank 1023 has not entered it; " in said(stacks)
    stacks[1023] = at(37, "", "step", call(number=119, open=False))
    assert said(stacks).endswith("; rank 1023 is in step() heat.py:37"), "it has left it behind"


@pytest.mark.parametrize(
    ("name", "usual", "odd", "texts"),
    [
        ("Bcast", {"root": 0}, {"root": 1}, ("with root 0", "with root 1")),
        ("Allreduce", {"count": 10, "dtype": "float64"}, {"count": 12, "dtype": "float64"},
         ("with a count of 10", "with a count of 12")),
        ("Allreduce", {"count": 10, "dtype": "float64"}, {"count": 10, "dtype": "float32"},
         ("with items of type float64", "with items of type float32")),
    ],
)  # fmt: skip
def test_what_was_given_differently_is_named(
    name: str, usual: dict[str, Any], odd: dict[str, Any], texts: tuple[str, str]
) -> None:
    stacks = {engine: in_call(name=name, **usual) for engine in range(4)}
    stacks[2] = in_call(name=name, line=52, **odd)
    assert said(stacks) == (
        f"ranks [0-1, 3] are in {name} #118 {texts[0]} (heat.py:41); "
        f"rank 2 is in {name} #118 {texts[1]} (heat.py:52)"
    )


def test_the_first_difference_is_named_also_if_most_have_gone_on() -> None:
    """A small broadcast ends at those whose data has come; they wait in the next call, for the others."""
    past = call("Bcast", 7, root=0, open=False, since=0.0)
    stacks = {engine: at(60, "", "step", past, call("Barrier", 8, line=60)) for engine in range(3)}
    stacks[3] = at(52, "", "step", call("Bcast", 7, root=1, line=52))
    assert said(stacks) == (
        "ranks [0-2] have called Bcast #7 with root 0 (heat.py:41); rank 3 is in Bcast #7 with root 1 (heat.py:52)"
    )


def test_names_of_types_that_mean_the_same_are_no_difference() -> None:
    stacks = {0: in_call(count=1, dtype="float64"), 1: in_call(count=1, dtype="MPI_DOUBLE"), 2: ELSEWHERE}
    assert said(stacks).startswith("ranks [0-1] are in Allreduce #118 (heat.py:41); rank 2 has not entered it")


def test_a_request_is_compared_by_the_call_that_has_made_it() -> None:
    stacks = {0: in_call(name="Ibarrier"), 1: in_call(name="Wait (Ibarrier)"), 2: ELSEWHERE}
    assert "rank 2 has not entered it" in said(stacks)


def test_messages_without_their_other_end_are_named() -> None:
    stacks = {
        0: in_call(name="Ssend", number=0, peer=2, tag=7),
        1: in_call(name="Barrier"),
        2: in_call(name="Barrier"),
    }
    assert said(stacks) == (
        "ranks [1-2] are in Barrier #118 (heat.py:41); "
        "rank 0 is in Ssend to 2, tag 7 (heat.py:41), which rank 2 has not received"
    )
    stacks[0] = in_call(name="Recv", number=0, peer=2, tag=7)
    assert said(stacks).endswith("is in Recv from 2, tag 7 (heat.py:41), which rank 2 has not sent")
    stacks[0] = in_call(name="Recv", number=0, peer=-1, tag=-1)
    assert said(stacks).endswith("rank 0 is in Recv from any (heat.py:41)")


def test_stopped_ended_failed_and_finished_engines_are_named() -> None:
    stopped = msgspec.structs.replace(ELSEWHERE, state=STOPPED, signal=signal.SIGSTOP)
    stacks = {0: in_call(), 1: stopped, 2: RankStack(ENDED)}
    assert said(stacks, answered=Answered({3: "ValueError: x"}, [4, 5])) == (
        "rank 0 is in Allreduce #118 (heat.py:41); "
        "rank 1 is stopped (SIGSTOP) in step() heat.py:37: time.sleep(999); the process of rank 2 has ended; "
        "rank 3 has raised ValueError: x; ranks [4-5] have finished"
    )
    assert said({0: in_call()}, answered=Answered({}, [1])) == (
        "rank 0 is in Allreduce #118 (heat.py:41); rank 1 has finished"
    )
    assert said({1: stopped}) == "rank 1 is stopped (SIGSTOP) in step() heat.py:37: time.sleep(999)"


def test_one_look_is_enough_where_calls_are_recorded() -> None:
    stacks = {0: in_call(), 1: in_call(name="Bcast")}
    assert judge(None, Look(60.0, stacks), ALL, HANG)
    assert not judge(None, Look(60.0, {**stacks, 2: ELSEWHERE}), ALL, HANG), "where that one was, is not known"


# --- without recorded calls ----------------------------------------------------------------------------------


def test_lines_that_wait_in_mpi_are_told_if_they_differ() -> None:
    stacks = {
        0: at(41, "MPI.COMM_WORLD.Allreduce(a, b)"),
        1: at(41, "MPI.COMM_WORLD.Allreduce(a, b)"),
        2: ELSEWHERE,
    }
    assert (
        said(stacks)
        == "ranks [0-1] are in Allreduce (heat.py:41); rank 2 is in step() heat.py:37: time.sleep(999)"
    )
    only = {engine: stacks[0] for engine in range(3)}
    assert said(only) == "", "they may be in a loop"
    assert said(only, answered=Answered({3: "NameError: a"})) == (
        "ranks [0-2] are in Allreduce (heat.py:41); rank 3 has raised NameError: a"
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("comm.Allreduce(", "Allreduce"),
        ("x = MPI.COMM_WORLD.bcast(x)", "bcast"),
        ("mycomm.recv(source=1)", "recv"),
        ("total = comm.reduce(x)", "reduce"),
        ("data = sock.recv(9)", ""),
        ("np.add.reduce(x)", ""),
        ("await asyncio.gather(a)", ""),
        ("event.wait()", ""),
        ("time.sleep(9)", ""),
    ],
)
def test_a_line_is_one_of_mpi_or_not(text: str, name: str) -> None:
    assert mpi_name(at(1, text)) == name


def test_a_function_of_mpi_under_a_library_is_found() -> None:
    stack = at(41, "lmp.command('run 9')")
    native = msgspec.structs.replace(stack, frames=[StackFrame("PMPI_Wait", "libmpi.so", 0), *stack.frames])
    assert mpi_name(native) == "Wait"


# --- nothing is said -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stacks", "before"),
    [
        pytest.param({0: ELSEWHERE, 1: ELSEWHERE}, None, id="a computation without MPI"),
        pytest.param({0: in_call(), 1: in_call(since=2.0)}, None, id="one has called only just now"),
        pytest.param({0: in_call(), 1: in_call()}, None, id="all have entered the same call, and may move data"),
        pytest.param({0: in_call(since=2.0), 1: ELSEWHERE}, None, id="a short wait"),
        pytest.param({0: in_call(), 1: ELSEWHERE}, {0: in_call(), 1: at(37, function="other")}, id="one goes on"),
        pytest.param(
            {0: in_call(), 1: at(37, "", "step", call(number=9, open=False))}, {0: in_call(), 1: ELSEWHERE},
            id="one has called something meanwhile",
        ),
        pytest.param({0: in_call(), 1: RankStack(IDLE)}, None, id="one has not begun, or has just ended"),
        pytest.param({0: in_call(), 1: at(37)}, {0: in_call()}, id="one was not seen before"),
        pytest.param(
            {0: in_call(), 1: msgspec.structs.replace(ELSEWHERE, frames=[], note="refused")}, None,
            id="one cannot be read",
        ),
        pytest.param(
            {0: at(41, "comm.Barrier()"), 1: at(42, "comm.Barrier()")},
            {0: at(42, "comm.Barrier()"), 1: at(41, "comm.Barrier()")},
            id="lines change",
        ),
        pytest.param({}, None, id="nobody is left"),
    ],
)  # fmt: skip
def test_nothing_is_said_while_something_may_go_on(
    stacks: dict[int, RankStack], before: dict[int, RankStack] | None
) -> None:
    assert said(stacks, before) == ""


def test_all_that_wait_for_each_others_messages_are_told() -> None:
    stacks = {engine: in_call(name="Recv", number=0, peer=1 - engine, tag=0) for engine in range(2)}
    assert said(stacks) == (
        "rank 0 is in Recv from 1, tag 0 (heat.py:41), which rank 1 has not sent; "
        "rank 1 is in Recv from 0, tag 0 (heat.py:41), which rank 0 has not sent"
    )


def test_short_patience_does_not_make_a_short_wait_a_long_one() -> None:
    stacks = {0: in_call(since=0.0), 1: in_call(name="Bcast", since=0.0)}
    assert judge(None, Look(1.0, stacks), ALL, 1.0) == ""


def test_nothing_is_said_if_an_agent_is_silent() -> None:
    assert judge(None, Look(60.0, {0: in_call()}, [1]), ALL, HANG) == ""


def test_a_loop_in_one_function_that_never_ends_is_where_it_was() -> None:
    before = {0: in_call(), 1: at(37, "n += 1")}
    assert "rank 1 has not entered it; it is in step() heat.py:38: x = n" in said(
        {0: in_call(), 1: at(38, "x = n")}, before
    )
