"""Heat on a square plate whose edges are held at 0, as an MPI program that can be steered.

``mpiexec -n 8 python heat.py STEPS [FILE [STEP NU]]``: each rank owns some rows. ``heat.c`` and ``heat.f90``
compute the same numbers.
"""

import sys

import numpy as np
from mpi4py import MPI

from ipmpi import steering

N = 64  # points inside of the plate, in each direction
DT = 2e-5
H = 1 / (N + 1)

comm = MPI.COMM_WORLD
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
above = comm.rank - 1 if comm.rank > 0 else MPI.PROC_NULL
below = comm.rank + 1 if comm.rank < comm.size - 1 else MPI.PROC_NULL
first = N * comm.rank // comm.size
rows = N * (comm.rank + 1) // comm.size - first

T = np.zeros((rows + 2, N + 2))  # rows of this rank, and one more at each side
T[1 : max(0, min(rows, N // 2 - first)) + 1, 1 : N // 4 + 1] = 1  # a hot corner


def advance(r):
    """Take one explicit step of T_t = nu (T_xx + T_yy), where r = nu dt / h**2; return the largest change."""
    comm.Sendrecv(T[1], dest=above, recvbuf=T[-1], source=below)
    comm.Sendrecv(T[-2], dest=below, recvbuf=T[0], source=above)
    rows = T[:-2, 1:-1] + T[2:, 1:-1]
    columns = T[1:-1, :-2] + T[1:-1, 2:]
    change = r * ((rows + columns) - 4 * T[1:-1, 1:-1])
    T[1:-1, 1:-1] += change
    return float(abs(change).max())


def save(step):
    """Write the rows of this rank; return the name of the file."""
    name = f"heat-{step}-{comm.rank}.npy"
    np.save(name, T[1:-1, 1:-1])
    return name


with steering.attach(nu=1.0) as s:
    s.publish(T=T, offset=(first, 0), shape=(N, N), halo=1)
    s.on_checkpoint(save)
    for step in s.loop(steps):
        if len(sys.argv) > 4 and step == int(sys.argv[3]):
            s.nu = float(sys.argv[4])
        s.publish(residual=advance(s.nu * DT / (H * H)))

if len(sys.argv) > 2:
    blocks = comm.gather(T[1:-1, 1:-1])
    if comm.rank == 0:
        np.concatenate(blocks).tofile(sys.argv[2])
