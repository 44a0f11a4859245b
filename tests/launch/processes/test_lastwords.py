"""What launchers, libraries and ranks write when a rank has ended; the words are those of the real programs."""

from __future__ import annotations

import pytest

from ipmpi.launch.processes.lastwords import told_by_itself, told_by_launcher

RULE = "-" * 74
DOUBLE = "=" * 83
PRTERUN = f"""{RULE}
prterun noticed that process rank 2 with PID 31315 on node vm exited on
signal 11 (Segmentation fault).
{RULE}
"""
PRTERUN_EXIT = f"""{RULE}
prterun detected that one or more processes exited with non-zero status,
thus causing the job to be terminated. The first process to do so was:

   Process name: [prterun-vm-31468@1,2]
   Exit code:    3
{RULE}
"""
PRTERUN_ABORT = f"""{RULE}
MPI_ABORT was invoked on rank 0 in communicator MPI COMMUNICATOR 3 SPLIT FROM 0
  Proc: [[32183,1],2]
  Errorcode: 5

NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.
{RULE}
{RULE}
prterun has exited due to process rank 2 with PID 0 on node vm calling
"abort".
{RULE}
"""
MPIRUN_4 = f"""{RULE}
mpirun noticed that process rank 2 with PID 0 on node vm exited on signal 9 (Killed).
{RULE}
"""
MPIRUN_4_ABORT = """\
MPI_ABORT was invoked on rank 2 in communicator MPI_COMM_WORLD
with errorcode -5.
"""
HYDRA = f"""
{DOUBLE}
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 31834 RUNNING AT vm
=   EXIT CODE: 11
=   CLEANING UP REMAINING PROCESSES
=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES
{DOUBLE}
YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Segmentation fault (signal 11)
This typically refers to a problem with your application.
"""
INTEL = f"""
{DOUBLE}
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   RANK 2 PID 77 RUNNING AT node1
=   KILLED BY SIGNAL: 8 (Floating point exception)
{DOUBLE}
"""
MPICH_ABORT = "Abort(7) on node 2 (rank 2 in comm 0): application called MPI_Abort(MPI_COMM_WORLD, 7) - process 2"
SRUN = """\
slurmstepd: error: *** STEP 3.0 ON node1 CANCELLED AT 2026-01-01T00:00:00 ***
srun: error: node1: tasks 0-1,3: Terminated
srun: error: node1: task 2: Segmentation fault (core dumped)
"""
SRUN_EXIT = "srun: error: node1: task 2: Exited with exit code 3\n"


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (PRTERUN, "rank 2 (pid 31315 on vm) was killed by SIGSEGV"),
        (PRTERUN_EXIT, "rank 2 ended with exit code 3"),
        (PRTERUN_ABORT, "rank 2 called MPI_Abort with code 5"),
        (MPIRUN_4, "rank 2 (on vm) was killed by SIGKILL"),
        (MPIRUN_4_ABORT, "rank 2 called MPI_Abort with code -5"),
        (HYDRA, "process 31834 on vm was killed by SIGSEGV"),
        (INTEL, "rank 2 (pid 77 on node1) was killed by SIGFPE"),
        (MPICH_ABORT, "rank 2 called MPI_Abort with code 7"),
        (MPICH_ABORT + "\n" + HYDRA, "rank 2 called MPI_Abort with code 7"),
        (SRUN, "rank 2 (on node1) was killed by SIGSEGV"),
        (SRUN_EXIT, "rank 2 (on node1) ended with exit code 3"),
        ("x3005c0s7b0n0.hsn: rank 2 died from signal 11\n", "rank 2 (on x3005c0s7b0n0.hsn) was killed by SIGSEGV"),
        ("x3005c0s7b0n0.hsn: rank 2 exited with code 3\n", "rank 2 (on x3005c0s7b0n0.hsn) ended with exit code 3"),
    ],
)
def test_the_words_of_launchers(output: str, told: str) -> None:
    assert str(told_by_launcher("something else before\n" + output)) == told


def test_who_was_killed_for_another_one_is_not_blamed() -> None:
    killed = "srun: error: node1: task 0: Killed\n"
    blamed = told_by_launcher(killed + SRUN)
    assert blamed is not None
    assert blamed.rank == 2
    assert blamed.is_sure
    alone = told_by_launcher(killed)
    assert alone is not None
    assert alone.rank == 0
    assert not alone.is_sure


def test_other_output_blames_nobody() -> None:
    assert (
        told_by_launcher("rank 2 died from boredom\nAbort? no\nsrun: error: node1: task 2: Unknown thing\n")
        is None
    )


def test_what_python_says_about_a_crash() -> None:
    assert told_by_itself("x\nFatal Python error: Segmentation fault\n\nCurrent thread") == "was killed by SIGSEGV"
    assert told_by_itself("Fatal Python error: none_dealloc: odd\n") == "crashed (none_dealloc: odd)"
    logged = "2026-01-01 00:00:00 ipmpi: MPI_Abort was called on this rank, with code 3\n"
    assert told_by_itself(logged) == "called MPI_Abort with code 3"
    assert told_by_itself("all is well: Fatal Python error: Aborted\n") == ""
