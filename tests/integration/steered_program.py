"""A program that tests steer: the heat equation in one dimension, on all ranks, with delays by chance.

Usage: steered_program.py STEPS DELAY [CHANGES]. DELAY: most seconds of a step. CHANGES: ``STEP:NU,...``, scripted.
"""

import hashlib
import os
import random
import sys
import time

import numpy as np
from mpi4py import MPI

from ipmpi import steering

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
steps, delay = int(sys.argv[1]), float(sys.argv[2])
scripted = dict(pair.split(":") for pair in sys.argv[3].split(",")) if len(sys.argv) > 3 and sys.argv[3] else {}
replay = os.environ.get("TEST_REPLAY") or None

CELLS = 20_000  # what is exchanged does not fit into MPI's own buffers, so it needs both sides
chance = random.Random(rank)
T = np.random.default_rng(rank).random(CELLS + 2)
left, right = (rank - 1) % size, (rank + 1) % size

with steering.attach(dt=0.1, nu=0.5, scale=np.ones(2), replay=replay) as s:

    @s.on_checkpoint
    def checkpoint(step: int) -> tuple[int, float]:
        return step, float(T[1])

    sent, done = MPI.REQUEST_NULL, 0
    for step in s.loop(steps):
        if str(step) in scripted:
            s.nu = float(scripted[str(step)])
        sent.Wait()  # a message of the step before may still be on its way while this rank holds
        ghosts = T[1:-1].copy()
        sent = comm.Isend(ghosts, right, 1)
        received = np.empty(CELLS)
        comm.Recv(received, left, 1)
        T[1:-1] += s.dt * s.nu * (0.25 * (T[:-2] - 2 * T[1:-1] + T[2:]) + 1e-3 * received) * s.scale[0]
        if delay:
            time.sleep(delay * chance.random())
        done = step + 1
        s.publish(T=T, step=step, nu_used=s.nu, residual=float(T[1]))
    sent.Wait()

digest = comm.gather(hashlib.sha256(T.tobytes()).hexdigest())
if rank == 0:
    print("final", hashlib.sha256("".join(digest).encode()).hexdigest(), "after", done, flush=True)
