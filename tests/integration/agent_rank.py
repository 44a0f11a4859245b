"""A rank that finds the agent process of its launch and node before MPI starts, for tests of how they meet.

    agent_rank.py mpi|none linger|go

It prints a line of JSON. The agent waits for all ranks of the node, tells each who they all are, and ends when all
have gone; or, with ``linger``, when one more process has connected, which gets a list of the agent's files.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

from ipmpi.engine.agent.agentstart import start_agent
from ipmpi.engine.agent.launchid import launch_id, local_size
from ipmpi.engine.agent.watch import parent_launcher
from ipmpi.environment import mpienv
from ipmpi.transport.agentsocket import is_own, meet_agent

mode, then = sys.argv[1:]
WAITS = 30.0
"""Seconds that an agent of a broken test lives on."""


def agent(descriptor: int) -> int:
    """All ranks say who they are, and are told who was there."""
    listener = socket.socket(fileno=descriptor)
    listener.settimeout(WAITS)
    links = []
    for _ in range(size or 1):
        link, _ = listener.accept()
        assert is_own(link)
        links.append(link)
    ranks = sorted(int(link.recv(100)) for link in links)
    for link in links:
        link.send(json.dumps({"agent": os.getpid(), "ranks": ranks}).encode())
    if then == "linger":
        with listener.accept()[0] as asks:
            files = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")[:-1]]
            asks.send(json.dumps(files).encode())
            return 0
    for link in links:
        link.recv(1)
    return 0


def start(listener: socket.socket) -> None:
    """Called in one of the ranks."""
    global took
    begin = time.perf_counter()
    start_agent(listener.fileno(), agent)
    took = time.perf_counter() - begin


took: float | None = None
size = local_size(os.environ)
launched = mpienv.detect(os.environ)
assert launched is not None
launch = launch_id(os.environ, parent_launcher(os.getpid()))
begin = time.perf_counter()
link = meet_agent(launch, start)
met = time.perf_counter() - begin
link.send(b"%d" % launched.rank)
told = json.loads(link.recv(100_000))
told |= {
    "rank": launched.rank,
    "size": size,
    "launch": launch,
    "node": os.uname().nodename,
    "launcher": launched.launcher,
}
told |= {
    "started": took is not None,
    "seconds": {"start": took, "meet": met},
    "address": link.getpeername()[1:].decode(),
}
if mode == "mpi":
    from mpi4py import MPI

    told["sum"] = MPI.COMM_WORLD.allreduce(MPI.COMM_WORLD.rank)
os.write(1, json.dumps(told).encode() + b"\n")  # in one piece: lines of several ranks must not mix
