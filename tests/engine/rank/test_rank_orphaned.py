"""A rank whose agent is killed ends too, also while C code holds the interpreter; an idle one leaves in order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

RANK = """
import ctypes, os, socket, sys
from ipmpi.engine.rank.controlblock import ControlBlock
from ipmpi.engine.rank.lifeline import Lifeline
from ipmpi.engine.session.namespace import Namespace
from ipmpi.engine.rank.rank import Rank
from ipmpi.transport.packets import RankSocket
sock = socket.socket(fileno=int(sys.argv[1]))
block, descriptor = ControlBlock.create()
rank = Rank(Namespace(0), RankSocket(sock), block, lifeline=Lifeline(int(sys.argv[2]), sys.stderr))
rank.install_signals()
print("ready", flush=True)
stop = rank.run()
print("left in order:", stop.reason, flush=True)
"""
AGENT = """
import os, socket, subprocess, sys
from ipmpi.protocol import operations as o, rankmessages as rm
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
read, write = os.pipe()
rank = subprocess.Popen(
    [sys.executable, "-c", sys.argv[1], str(theirs.fileno()), str(read)],
    pass_fds=(theirs.fileno(), read), stdout=subprocess.PIPE, stderr=open(sys.argv[3], "w"), text=True,
)
theirs.close(); os.close(read)
assert rank.stdout.readline() == "ready\\n"
if sys.argv[2]:
    ours.send(rm.encode(rm.RunCommand(1, "execute", o.encode(o.Execute(sys.argv[2])))))
    assert rank.stdout.readline() == "runs\\n"
print(rank.pid, rank.stdout.fileno(), flush=True)
import threading; threading.Event().wait()
"""


def end_of_rank(root: Path, source: str, errors: Path) -> str:
    """Kill the agent of a rank that runs ``source``; what the rank has said after that."""
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, RANK, source, str(errors)],
        env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert agent.stdout is not None
    pid, out = map(int, agent.stdout.readline().split())
    said = os.open(f"/proc/{agent.pid}/fd/{out}", os.O_RDONLY)
    process = os.pidfd_open(pid)
    try:
        agent.kill()
        agent.wait()
        with os.fdopen(said) as rest:
            return rest.read()  # until the rank's end of its output is closed: it has ended
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)
        agent.stdout.close()


def test_an_idle_rank_leaves_in_order(root: Path, tmp_path: Path) -> None:
    assert end_of_rank(root, "", tmp_path / "log") == "left in order: the agent of this node is gone\n"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "sleep",
    ["import ctypes; ctypes.PyDLL(None).sleep(100)", "import time; time.sleep(100)", "while True: pass"],
    ids=["in C, with the GIL", "in Python", "it computes"],
)
def test_a_rank_that_runs_user_code_ends_at_once(root: Path, tmp_path: Path, sleep: str) -> None:
    source = f"import os\ndef busy():\n    os.write(1, b'runs\\n')\n    {sleep}\nbusy()"
    assert end_of_rank(root, source, tmp_path / "log") == ""
    assert "in busy" in (tmp_path / "log").read_text(), "its stack is in the log"
