"""Start an engine whose set believes that its ranks are on several nodes; run under mpiexec by the tests.

IPMPI_TEST_LEADERS holds the leader of each rank, as ``0,0,2,2``. With IPMPI_TEST_FIREWALL, nodes do not reach each
other. IPMPI_TEST_RELAY is ``PORT:FILE``: nodes reach each other through a relay at that port, which reads from the
file where to connect to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ipmpi.cli import ipengine
from ipmpi.engine.agent import launchid, nodelinks
from ipmpi.environment import mpienv
from ipmpi.furl import Furl

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


class Relayed(nodelinks.NodeLinks):
    """Whoever dials is sent to a relay."""

    def _listen(self) -> None:
        super()._listen()
        port, _, file = os.environ["IPMPI_TEST_RELAY"].partition(":")
        real = Furl.parse(self.address)
        Path(file).write_text(str(real.hints[0][1]))
        self.address = str(Furl(real.fingerprint, (("127.0.0.1", int(port)),), real.role, real.secret))


if __name__ == "__main__":
    vars(ipengine)["launch_id"] = launch_id
    vars(ipengine)["local_size"] = local_size
    if FIREWALL:
        # The agent imports it after it has been forked off.
        vars(nodelinks)["NodeLinks"] = Unreachable
    if "IPMPI_TEST_RELAY" in os.environ:
        vars(nodelinks)["NodeLinks"] = Relayed
    sys.exit(ipengine.main())
