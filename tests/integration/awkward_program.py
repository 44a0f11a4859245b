"""A program that does what it should not: rank 0 ticks half as often, and publishes what others do not.

It ends when a client has called ``stop()``; ranks wait for each other at the end only.
"""

import sys
import time

from mpi4py import MPI

from ipmpi import steering

comm = MPI.COMM_WORLD
every = int(sys.argv[1]) if comm.rank == 0 else 1
with steering.attach(patience=1.0, dt=1.0, n=(1 if comm.rank == 0 else 1.5)) as s:
    step = 0
    while not s.stop_requested and step < 100_000:
        if step % every == 0:
            s.tick()
        if every > 1 or comm.size > 1:
            comm.Barrier()  # coupled, as most programs are
        time.sleep(0.002)
        step += 1
        s.publish(shared=float(step + comm.rank), table=[[1]], huge=10**400 if comm.rank else 1)
        if comm.rank == 0:
            s.publish(only_here=1.0)
print("left at", step, flush=True)
