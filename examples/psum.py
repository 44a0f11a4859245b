"""A parallel sum: every engine has a part of an array, MPI adds the parts.

    $ ipcluster -n 4
    $ python examples/psum.py

Data that engines need from each other should go from engine to engine. Through the client it would cross the
network twice; by MPI it takes the fast interconnect, and the client only says "now".
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from screen import Screen, ranks_in_order


def psum(a: Any, comm: Any) -> float:
    """Return the sum of ``a`` over all ranks of a communicator; every rank has to call it."""
    # Capital-letter MPI functions work on buffers: no pickling, as fast as C.
    mine, total = np.array([np.sum(a)]), np.zeros(1)
    comm.Allreduce(mine, total)
    return float(total[0])


def main(mec: Any, _tc: Any, screen: Screen) -> bool:
    engines = ranks_in_order(mec)
    screen.typed("mec.scatter('a', numpy.arange(1e6))")
    mec.scatter("a", np.arange(1e6))
    mec.execute("import numpy as np")
    mec.push_function({"psum": psum})
    screen.typed("mec.execute('s = psum(a, mpi.COMM_WORLD)')")
    mec.execute("s = psum(a, mpi.COMM_WORLD) if mpi else float(np.sum(a))")
    screen.typed("mec.pull('s')")
    sums = mec.pull("s")
    screen(repr(sums))
    # 0 + 1 + ... + 999999; every partial sum is a whole number below 2**53, so nothing is rounded.
    return screen.result(
        f"{len(engines)} engine(s) agree on {sums[0]:.0f}", sums == [499999500000.0] * len(engines)
    )


if __name__ == "__main__":
    from ipmpi import client

    sys.exit(0 if main(client.MultiEngineClient(), client.TaskClient(), Screen()) else 1)
