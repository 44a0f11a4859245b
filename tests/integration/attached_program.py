"""A program whose ranks do not all attach in the same way; it computes the same whatever comes of that.

Usage: attached_program.py MODE. ``thread``: rank 1 attaches in a thread. ``twice``: all ranks attach again.
``then all``: ranks 0 and 1 attach together, then all ranks. ``part``: ranks 0 and 1 only. ``halves``: two
programs.
"""

import sys
import threading
import time

from mpi4py import MPI

from ipmpi import steering

mode = sys.argv[1]
comm = MPI.COMM_WORLD
first = comm.Split(comm.rank < 2)
s = None


def attach(to=comm):
    """Attach, and show a value that says which of several handles a client has found."""
    global s
    handle = steering.attach(to, dt=1.0)
    handle.publish(rank=float(handle.rank), size=float(handle.size))
    return handle


if mode == "thread" and comm.rank == 1:
    found = []
    thread = threading.Thread(target=lambda: found.append(attach()))
    thread.start()
    thread.join()
    s = found[0]
elif mode in ("thread", "twice"):
    s = attach()
elif comm.rank < 2 or mode == "halves":
    s = attach(first)
if mode in ("twice", "then all"):
    again = attach()
    assert again.rank == comm.rank
    assert again.size == comm.size
    s = s or again

step = 0
while step < 100 or (mode != "thread" and comm.bcast(step < 20_000 and not (s and s.stop_requested))):
    if s is not None:
        s.tick()
    comm.Barrier()
    time.sleep(0.001)
    step += 1
if s is not None:
    s.detach()
comm.Barrier()
print(f"rank {comm.rank} ends", flush=True)
