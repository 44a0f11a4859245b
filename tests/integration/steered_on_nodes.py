"""The program that tests steer, as if two ranks each were on a node of their own.

Usage: as steered_program.py.
"""

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipmpi.engine.mpi.world import World
from ipmpi.steering import attaching

really_join = attaching.join_program


def join_program(comm: Any, environ: Mapping[str, str]) -> World:
    """Return the ranks, two of them on each node."""
    world = really_join(comm, environ)
    world.leaders = [rank - rank % 2 for rank in range(world.size)]
    return world


attaching.join_program = join_program
runpy.run_path(str(Path(__file__).with_name("steered_program.py")), run_name="__main__")
