"""The program of the ranks of the MPI check: reports facts, and tests what happens when a rank dies.

Started as ``LAUNCHER -n 2 PYTHON -m ipmpi.launch.doctor.mpi_probe``: MPI may abort this process, and on some login
nodes it does. Each fact is one line on stdout, printed as soon as it is known, so that an abort loses only later
facts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from ipmpi.environment import mpienv
from ipmpi.processid import birth

MARK = "ipmpi-probe "
"""Prefix of the lines, since launchers and MPI libraries print lines of their own."""

_SEEN_DEAD = 2.0
"""Seconds to wait for the end of a rank's process."""
_ENDED_WITH_IT = 1.5
"""Seconds in which launchers end the other ranks, if they do; usually less than half a second."""
_WAITS = 3
"""Seconds after which a call of MPI counts as waiting forever."""


def tell(**facts: Any) -> None:
    """Print one line by a single write, since other ranks write to the same pipe."""
    told = {"host": os.uname().nodename, "pid": os.getpid(), "at": time.time(), **facts}
    line = MARK + json.dumps(told) + "\n"
    os.write(sys.stdout.fileno(), line.encode())


def main() -> int:
    """Run one rank; return its exit code."""
    launched = mpienv.detect(os.environ)
    tell(launched=None if launched is None else launched._asdict())
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        tell(error=str(error))
        return 1
    tell(library=MPI.Get_library_version(), library_file=_library_file())
    level = mpi4py.rc.thread_level if mpi4py.rc.threads else "single"
    MPI.Init_thread(getattr(MPI, f"THREAD_{level.upper()}"))
    world = MPI.COMM_WORLD
    names = ("single", "funneled", "serialized", "multiple")
    levels = {getattr(MPI, f"THREAD_{name.upper()}"): name for name in names}
    tell(size=world.Get_size(), rank=world.Get_rank(), thread_level=levels[MPI.Query_thread()])
    if world.Get_size() > 1 and "--die" in sys.argv[1:]:
        _see_a_death(MPI)
    MPI.Finalize()
    return 0


def _library_file() -> str:
    """Return the path of the loaded MPI library."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
            paths = {line.split(None, 5)[5].strip() for line in lines if "/" in line}
    except OSError:
        return ""
    names = ("libmpi.so", "libmpich.so", "libmpi_abi.so")
    return min((path for path in paths if os.path.basename(path).startswith(names)), default="")


def _see_a_death(mpi: Any) -> None:
    """Kill the last rank; rank 0 reports whether it survives, and the MPI error about the dead one."""
    world = mpi.COMM_WORLD
    places = world.allgather((os.uname().nodename, os.getpid()))
    world.Barrier()
    if world.Get_rank() == world.Get_size() - 1:
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    if world.Get_rank() == 0:
        host, pid = places[-1]
        deadline = time.monotonic() + _SEEN_DEAD
        while host == places[0][0] and birth(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(_ENDED_WITH_IT)
        tell(outlived=True)
        tell(raised="waits")
        signal.alarm(_WAITS)  # the only way to end a wait in C
        try:
            world.Barrier()
            raised = ""
        except mpi.Exception as error:
            raised = mpi.Get_error_string(error.Get_error_class()).split(":")[0].strip("\0 ")
        tell(raised=raised)
    else:
        time.sleep(_SEEN_DEAD + _ENDED_WITH_IT)
    os._exit(0)  # MPI_Finalize would wait for the dead


if __name__ == "__main__":
    sys.exit(main())
