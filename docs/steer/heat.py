"""The heat equation on a rod, each rank a piece of it; it is steered by five lines."""

import time

import numpy as np
from mpi4py import MPI

from ipmpi import steering

comm = MPI.COMM_WORLD
left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
T = np.zeros(1002)  # with a ghost cell at each end
if comm.rank == 0:
    T[1:101] = 100.0

with steering.attach(dt=1.0, nu=0.25) as s:

    @s.on_checkpoint
    def save(step: int) -> str:
        """Write the part of this rank."""
        name = f"heat-{step}-{comm.rank}.npy"
        np.save(name, T)
        return name

    for step in s.loop(1_000_000):
        comm.Sendrecv(T[-2:-1], right, recvbuf=T[:1], source=left)
        comm.Sendrecv(T[1:2], left, recvbuf=T[-1:], source=right)
        change = s.dt * s.nu * (T[:-2] - 2 * T[1:-1] + T[2:])
        T[1:-1] += change
        s.publish(T=T, step=step, residual=float(abs(change).max()))
        time.sleep(0.001)  # a larger problem takes longer
