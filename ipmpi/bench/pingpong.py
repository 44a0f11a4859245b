"""Two ranks of MPI that send each other one byte; rank 0 prints the seconds of each round trip as a JSON list."""

from __future__ import annotations

import json
import sys
import time
from typing import Final

from mpi4py import MPI

BUDGET: Final = 4.0
"""Seconds after which fewer round trips have to do: ranks that share a core wait for their turns."""
GO_ON: Final = 1
ENOUGH: Final = 0


def main(count: int) -> None:
    """Send a byte there and back ``count`` times, after a tenth as many that are not counted."""
    comm = MPI.COMM_WORLD
    if comm.Get_rank() == 0:
        times = there_and_back(comm, count // 10 + count)
        print(json.dumps(times[count // 10 :] or times[-1:]), flush=True)
    else:
        answer(comm)


def there_and_back(comm: MPI.Comm, count: int) -> list[float]:
    """Seconds of each of ``count`` round trips, or of fewer, one at least."""
    byte, end = bytearray([GO_ON]), time.perf_counter() + BUDGET
    times: list[float] = []
    while len(times) < count and (not times or time.perf_counter() < end):
        start = time.perf_counter()
        comm.Send([byte, MPI.BYTE], dest=1)
        comm.Recv([byte, MPI.BYTE], source=1)
        times.append(time.perf_counter() - start)
    comm.Send([bytearray([ENOUGH]), MPI.BYTE], dest=1)
    return times


def answer(comm: MPI.Comm) -> None:
    """Send back each byte, until one says that it is enough."""
    byte = bytearray(1)
    while True:
        comm.Recv([byte, MPI.BYTE], source=0)
        if byte[0] == ENOUGH:
            return
        comm.Send([byte, MPI.BYTE], dest=0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
