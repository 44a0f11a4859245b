"""Waves on shallow water, in a basin with closed walls, as an MPI program that can be steered.

``mpiexec -n 8 python shallow_water.py STEPS [FILE]``: each rank owns some rows. While it runs, a client can change
how deep the water is and how much the ground holds it back, throw a stone into it (``drop``), and watch its energy
fall.
"""

import sys

import numpy as np
from mpi4py import MPI

from ipmpi import steering

N = 96  # cells in each direction
SIDE = 10.0  # metres
G = 9.81
H = SIDE / N
DT = 0.005

comm = MPI.COMM_WORLD
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
above = comm.rank - 1 if comm.rank > 0 else MPI.PROC_NULL
below = comm.rank + 1 if comm.rank < comm.size - 1 else MPI.PROC_NULL
first = N * comm.rank // comm.size
rows = N * (comm.rank + 1) // comm.size - first

eta = np.zeros((rows + 2, N))  # height of the surface above rest; one row of a neighbour at each side
v = np.zeros((rows + 1, N))  # southward velocity, between this row and the one above it
u = np.zeros((rows, N + 1))  # eastward velocity


def drop(x, y, height=0.2, width=0.6):
    """Add a bump at ``x``, ``y`` metres from the north-western corner."""
    across = (np.arange(N) + 0.5) * H
    down = (first + np.arange(rows) + 0.5) * H
    eta[1:-1] += height * np.exp(-((across - x) ** 2 + (down[:, None] - y) ** 2) / width**2)


def advance(depth, drag):
    """Take one step: velocities from the slope of the surface, then the surface from what flows together."""
    comm.Sendrecv(eta[1], dest=above, recvbuf=eta[-1], source=below)
    comm.Sendrecv(eta[-2], dest=below, recvbuf=eta[0], source=above)
    kept = 1 - drag * DT
    u[:, 1:-1] = kept * u[:, 1:-1] - G * DT / H * (eta[1:-1, 1:] - eta[1:-1, :-1])
    v[:] = kept * v - G * DT / H * (eta[1:] - eta[:-1])
    if above == MPI.PROC_NULL:
        v[0] = 0  # walls
    if below == MPI.PROC_NULL:
        v[-1] = 0
    eta[1:-1] -= depth * DT / H * (u[:, 1:] - u[:, :-1] + v[1:] - v[:-1])


def write_checkpoint(step):
    """Write what a later run needs to go on from here: one file, by rank 0. Return its name there."""
    import h5py

    parts = comm.gather((eta[1:-1], u, v[1:]))
    if comm.rank > 0:
        return None
    path = f"water-{step}.h5"
    with h5py.File(path, "w") as file:
        for name, blocks in zip(("eta", "u", "v"), zip(*parts, strict=True), strict=True):
            file[name] = np.concatenate(blocks)
        file.attrs["step"] = step
    return path


def energy(depth):
    """Energy of this rank's water, per density and area of a cell."""
    return 0.5 * (G * np.sum(eta[1:-1] ** 2) + depth * (np.sum(u[:, 1:] ** 2) + np.sum(v[1:] ** 2)))


drop(3.0, 4.0)
with steering.attach(depth=0.5, drag=0.0) as s:
    s.publish(eta=eta[1:-1], offset=(first, 0), shape=(N, N))
    s.publish(drop=drop)
    s.on_checkpoint(write_checkpoint)
    for _step in s.loop(steps):
        advance(s.depth, s.drag)
        s.publish(energy=energy(s.depth))

if len(sys.argv) > 2:
    blocks = comm.gather(eta[1:-1])
    if comm.rank == 0:
        np.concatenate(blocks).tofile(sys.argv[2])
