"""Debugpy over a socket that exists, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("debugpy")

CODE = """
import os, socket, sys, threading
from ipmpi.engine.session.editordebugger import EditorDebugger

def threads():  # debugpy hides its own from Python
    return len(os.listdir("/proc/self/task")) - 1

def is_traced():
    return "pydevd" in str(sys.gettrace()) or sys.version_info >= (3, 12) and bool(sys.monitoring.get_tool(0))

before = threading.Thread.start
for _ in range(2):
    theirs, ours = socket.socketpair()
    debugger = EditorDebugger(ours)
    assert is_traced() and threads()
    try:
        EditorDebugger(socket.socketpair()[0])
    except RuntimeError as error:
        assert "code of yours has started debugpy" in str(error), error
    child = os.fork()
    if not child:
        debugger.abandon()
        assert not is_traced()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    debugger.detach()
    assert not is_traced() and threads() == 0, threads()
    # All of it is closed at this end.
    theirs.settimeout(10)
    while theirs.recv(4096):
        pass
assert threading.Thread.start is before
assert "PYDEVD_DISABLE_FILE_VALIDATION" not in os.environ
print("done")
"""


def test_it_comes_and_goes_without_a_trace_and_not_into_forked_children() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")
