"""Start an engine whose set believes that its ranks are on several nodes; run under mpiexec by the tests.

IPMPI_TEST_LEADERS holds the leader of each rank, as ``0,0,2,2``.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable

from ipmpi.cli import ipengine
from ipmpi.engine import world
from ipmpi.mpienv import LaunchedRank

LEADERS = [int(part) for part in os.environ["IPMPI_TEST_LEADERS"].split(",")]
ONE_TREE = os.environ.get("IPMPI_TEST_ONE_TREE", "1") == "1"


def start_world(mode: str, launched: LaunchedRank | None, python: str, warn: Callable[[str], None]) -> world.World:
    real = world.start_world(mode, launched, python, warn)
    return dataclasses.replace(real, leaders=LEADERS, one_tree=ONE_TREE)


if __name__ == "__main__":
    vars(ipengine)["start_world"] = start_world
    sys.exit(ipengine.main())
