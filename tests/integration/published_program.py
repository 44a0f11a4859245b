"""A program that tests steer: waves on a plane, of which each rank of a Cartesian communicator has a block.

Usage: published_program.py STEPS DELAY. DELAY: seconds of a step.
"""

import sys
import time

import numpy as np
from mpi4py import MPI

from ipmpi import steering

cart = MPI.COMM_WORLD.Create_cart(MPI.Compute_dims(MPI.COMM_WORLD.size, 2), reorder=False)
steps, delay = int(sys.argv[1]), float(sys.argv[2])
SIZE, HALO = 12, 1
i, j = (SIZE * at for at in cart.coords)
shape = tuple(SIZE * length for length in cart.dims)
row, column = np.ogrid[i : i + SIZE, j : j + SIZE]
u = np.full((SIZE + 2, SIZE + 2), -1.0)  # with ghost cells
line = np.zeros(SIZE)
start = cart.rank * SIZE

with steering.attach(cart) as s:
    for step in s.loop(steps):
        u[1:-1, 1:-1] = step + 1 + 1e-3 * row + 1e-6 * column
        line[:] = step + 1 + 1e-3 * (start + np.arange(SIZE))
        # By its offset, and by the communicator with which the program is attached.
        s.publish(u=u, offset=(i, j), shape=shape, halo=HALO)
        s.publish(by_cart=u, halo=HALO)
        s.publish(line=line, offset=start)
        s.publish(wrong=line, offset=0)
        time.sleep(delay)
