"""Ranks of one launch find one agent process, under each launcher here, and no launcher waits for its end."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi.engine.agent.watch import open_pidfd

if TYPE_CHECKING:
    from real_clusters import Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

RANK = Path(__file__).with_name("agent_rank.py")
RANKS = 4


def launch(flavour: Flavour, root: Path, *argv: str) -> subprocess.Popen[str]:
    """Ranks 0 and 1 by one program, 2 and 3 by another, a script that waits for its child."""
    rank = [flavour.python, str(RANK), *argv]
    # Not by `exec`: the launcher's child is the shell.
    script = ["/bin/sh", "-c", '"$@"; exit $?', "sh", *rank]
    halves = ["-n", str(RANKS // 2), *rank, ":", "-n", str(RANKS // 2), *script]
    return subprocess.Popen(
        [flavour.launcher, *flavour.options, *halves],
        env={**os.environ, **flavour.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def told_by(launcher: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What the ranks of a launch said, when it has ended and nobody has its output open any more."""
    out, errors = launcher.communicate(timeout=20)
    assert launcher.returncode == 0, errors
    told = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert sorted(rank["rank"] for rank in told) == list(range(RANKS)), errors
    return told


def meet_once(told: list[dict[str, Any]]) -> None:
    assert len({rank["agent"] for rank in told}) == 1
    assert len({rank["launch"] for rank in told}) == 1
    assert sum(rank["started"] for rank in told) == 1
    for rank in told:
        assert rank["ranks"] == list(range(RANKS))
        assert rank["size"] == RANKS
        assert rank["sum"] == sum(range(RANKS)), "MPI has not taken the agent for one of its own"


def test_two_launches_at_once_have_an_agent_each(flavour: Flavour, root: Path) -> None:
    launches = [launch(flavour, root, "mpi", "go") for _ in range(2)]
    first, second = (told_by(launcher) for launcher in launches)
    meet_once(first)
    meet_once(second)
    assert first[0]["agent"] != second[0]["agent"]


def test_no_launcher_waits_for_an_agent(flavour: Flavour, root: Path) -> None:
    launcher = launch(flavour, root, "mpi", "linger")
    told = told_by(launcher)  # its output is closed, its ranks are gone, it has ended
    meet_once(told)
    descriptor = open_pidfd(told[0]["agent"])
    assert descriptor is not None
    assert not select.select([descriptor], [], [], 0)[0], "the agent lives"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asks:
        asks.connect("\0" + told[0]["address"])
        files = json.loads(asks.recv(10_000))
    assert select.select([descriptor], [], [], 10)[0], "and ends by its own rule"
    os.close(descriptor)
    # Standard files, the listener, a connection for each rank, and the one that asks.
    assert files[:3] == ["/dev/null"] * 3
    assert len(files) == 3 + 1 + RANKS + 1
    assert all(name.startswith("socket:") for name in files[3:])
