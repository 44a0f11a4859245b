"""Children that user code forks end where the code does, and hold nothing of the engine's."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from rank_process import run

from ipmpi.transport.loop import READ, Loop

ENDS = {
    "it comes to its end": ("pass", 0),
    "it exits": ("sys.exit(3)", 3),
    "it exits with a text": ("sys.exit('no')", 1),
    "it raises": ("1 / 0", 1),
    "it is interrupted": ("raise KeyboardInterrupt", 130),
}
FORKS = """
import os, sys
child = os.fork()
if not child:
    {}
else:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == {}, code
"""
WORK = """
fork = {fork!r}
def work():
    submit("command", fork)
    assert answers.get() == ("command", True, "")
    give(fork)
    assert answers.get() == (1, 0, 0)
    part(lambda comm, source: exec(source, {{}}), pickle.dumps(((fork,), {{}})))
    assert answers.get() == ("part", "", "")
    submit("last", "1")
    assert answers.get() == ("last", True, "")
agent(work)
"""


@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS)
def test_a_forked_child_ends_with_the_code_that_forked_it(root: Path, end: str, code: int) -> None:
    out = run(WORK.format(fork=FORKS.format(end, code)), root)
    assert out == "main thread ended by itself []\n"


def test_multiprocessing_can_end_its_workers(root: Path) -> None:
    # It does so by SIGTERM; the engine's handler would keep them alive, and so would losing one that comes early.
    source = """
import multiprocessing, time
for _ in range(20):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(50,))
    child.start()
    child.terminate()
    child.join(5)
    assert child.exitcode == -15, child.exitcode
"""
    out = run(f"agent(lambda: (submit('ends', {source!r}), print(answers.get())))", root)
    assert out == "('ends', True, '')\nmain thread ended by itself []\n"


def test_what_a_forked_child_prints_goes_to_the_engines_output(root: Path) -> None:
    source = """
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=print, args=("of the child",), kwargs={"flush": True})
child.start(); child.join()
"""
    out = run(f"agent(lambda: (submit('forks', {source!r}), answers.get()))", root)
    assert out == "of the child\nmain thread ended by itself []\n"


def test_a_forked_child_does_not_keep_connections_open() -> None:
    loop = Loop()
    ours, theirs = socket.socketpair()
    loop.register(ours, READ, lambda _events: None)
    go, told = os.pipe()
    child = os.fork()
    if not child:
        loop.abandon()
        os.read(go, 1)
        os._exit(0)
    try:
        loop.unregister(ours)
        ours.close()
        theirs.settimeout(20)
        assert theirs.recv(1) == b""
    finally:
        os.write(told, b"!")
        os.waitpid(child, 0)
        loop.close()
        theirs.close()
        os.close(go)
        os.close(told)
