"""A process that ends with its agent, whatever it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

RANK = """
import ctypes, os, sys, time
from ipmpi.engine.rank.lifeline import Lifeline

def busy_in_a_library():
    print("there", flush=True)
    ctypes.PyDLL(None).sleep(60)

def busy_in_python():
    print("there", flush=True)
    while True:
        pass

with open(sys.argv[2], "w") as log:
    lifeline = Lifeline(int(sys.argv[1]), log)
    code = sys.argv[3]
    if code == "idle":
        print("there", flush=True)
        os.read(0, 1)
        print("left in order", flush=True)
        sys.exit(0)
    if code == "child":
        child = os.fork()
        if not child:
            lifeline.close()
            print("there", flush=True)
            os.read(0, 1)
            print("left in order", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        os._exit(0)
    lifeline.let_through()
    globals()[code]()
"""


@contextmanager
def rank(log: Path, does: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A rank that has begun, and the agent's end of its lifeline."""
    theirs, ours = os.pipe()
    command = [sys.executable, "-c", RANK, str(theirs), str(log), does]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[theirs]) as process:
        os.close(theirs)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"there\n"
            yield process, ours
        finally:
            process.kill()


@pytest.mark.parametrize("does", ["busy_in_a_library", "busy_in_python"])
def test_a_busy_rank_ends_when_its_agent_does_and_its_log_says_where_it_was(tmp_path: Path, does: str) -> None:
    log = tmp_path / "log"
    with rank(log, does) as (process, agent):
        os.close(agent)
        assert process.wait(10) == -(signal.SIGRTMAX - 3)
    assert does in log.read_text()


@pytest.mark.parametrize("does", ["idle", "child"])
def test_who_is_idle_and_what_user_code_has_forked_go_on(tmp_path: Path, does: str) -> None:
    """An idle rank sees the end of its socket, and leaves in order."""
    with rank(tmp_path / "log", does) as (process, agent):
        os.close(agent)
        out, _ = process.communicate(b"x", timeout=10)
        assert out == b"left in order\n"
        assert process.returncode == 0
    assert not (tmp_path / "log").read_text()
