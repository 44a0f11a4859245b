"""Start an engine whose set believes that its ranks are on several nodes; run under mpiexec by the tests.

IPMPI_TEST_LEADERS holds the leader of each rank, as ``0,0,2,2``. With IPMPI_TEST_FIREWALL, nodes do not reach each
other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from ipmpi.cli import ipengine
from ipmpi.engine.agent import launchid, nodelinks
from ipmpi.environment import mpienv

LEADERS = [int(part) for part in os.environ["IPMPI_TEST_LEADERS"].split(",")]
FIREWALL = "IPMPI_TEST_FIREWALL" in os.environ


def leader() -> int:
    launched = mpienv.detect(os.environ)
    assert launched is not None
    return LEADERS[launched.rank]


NODE = leader()


def launch_id(environ: Mapping[str, str], launcher: int, *, alone: bool = False) -> str:
    """Ranks of each node find an agent of their own, as they would on two machines."""
    return f"{launchid.launch_id(environ, launcher, alone=alone)}-node{NODE}"


def local_size(_environ: Mapping[str, str]) -> int:
    return LEADERS.count(NODE)


class Unreachable(nodelinks.NodeLinks):
    """Whoever dials finds nobody."""

    def _listen(self) -> None:
        super()._listen()
        self._stop_listening()


if __name__ == "__main__":
    vars(ipengine)["launch_id"] = launch_id
    vars(ipengine)["local_size"] = local_size
    if FIREWALL:
        # The agent imports it after it has been forked off.
        vars(nodelinks)["NodeLinks"] = Unreachable
    sys.exit(ipengine.main())
