"""What a process finds out about itself before MPI starts, and what MPI says then: one line of JSON."""

from __future__ import annotations

import json
import os
import sys

from ipmpi.environment.mpienv import detect

found = detect(os.environ)
told: dict[str, object] = {"found": None if found is None else found._asdict(), "node": os.uname().nodename}
if sys.argv[1] == "mpi":
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    told |= {"rank": world.rank, "size": world.size, "local_rank": node.rank, "local_size": node.size}
line = json.dumps(told) + "\n"
os.write(1, line.encode())  # in one piece: lines of several ranks must not mix
