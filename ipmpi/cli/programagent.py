"""The process beside a program that is steered: the agent of its node.

:mod:`ipmpi.steering.starting` starts it as a new interpreter and not by a fork, as MPI may be running there
already, and threads. Its command line is not for people: a descriptor, and the settings as JSON.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
from pathlib import Path

from .. import furl
from ..engine.agent.agentsettings import AgentSettings
from ..engine.agent.agentstart import become_agent
from ..engine.agent.programnode import ProgramNode
from .boundedlog import bound_log_files
from .logs import start_log
from .ownlimits import guard_secrets_and_allow_links

log = logging.getLogger("ipmpi-agent")


def main(descriptor: int, text: str) -> int:
    """Run the agent until its last rank has left; return its exit code.

    Args:
        descriptor: the socket on which it listens for its ranks.
        text: the settings, as :func:`ipmpi.steering.starting.start` writes them.
    """
    given = json.loads(text)
    become_agent(given["launcher"])
    furl_file, name = given["furl_file"], given["name"]
    if furl_file:
        path = Path(furl_file if "://" not in furl_file else "given").expanduser()
    else:
        path = furl.cluster_furl_file("engine", name) if name else furl.default_furl_file("engine")
    start_log("", "ipprogram", "agent", path)
    bound_log_files()
    guard_secrets_and_allow_links()
    log.info("pid %d, the agent of this node, of the program %s", os.getpid(), given["program"])
    settings = AgentSettings(furl_file, name, given["proxy"], math.inf, str(path))
    agent = ProgramNode(
        descriptor, settings, lambda line: log.info("%s", line), lambda line: log.warning("%s", line),
        given["program"], given["patience"],
    )  # fmt: skip
    agent.loop.wake_on_signals()
    signal.signal(signal.SIGTERM, lambda *_: agent.loop.call_threadsafe(agent.terminated))
    code = agent.run()
    logging.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
