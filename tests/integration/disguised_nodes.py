"""Start an engine whose set believes that its ranks are on several nodes; run under mpiexec by the tests.

IPMPI_TEST_LEADERS holds the leader of each rank, as ``0,0,2,2``. With IPMPI_TEST_FIREWALL, nodes do not reach each
other.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable

from ipmpi.cli import ipengine
from ipmpi.engine import nodelinks, world
from ipmpi.mpienv import LaunchedRank

LEADERS = [int(part) for part in os.environ["IPMPI_TEST_LEADERS"].split(",")]
FIREWALL = "IPMPI_TEST_FIREWALL" in os.environ


def start_world(mode: str, launched: LaunchedRank | None, python: str, warn: Callable[[str], None]) -> world.World:
    real = world.start_world(mode, launched, python, warn)
    return dataclasses.replace(real, leaders=LEADERS)


class Unreachable(nodelinks.NodeLinks):
    """Whoever dials finds nobody."""

    def _listen(self) -> None:
        super()._listen()
        self._stop_listening()


if __name__ == "__main__":
    vars(ipengine)["start_world"] = start_world
    if FIREWALL:
        vars(nodelinks)["NodeLinks"] = Unreachable
    sys.exit(ipengine.main())
