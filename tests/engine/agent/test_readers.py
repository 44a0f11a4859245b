"""Processes that read for an agent: each has a session, none has the agent's files, and none stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi.engine.agent.readers import may_help, read_apart
from ipmpi.transport.loop import Loop

PATIENCE = 60.0
SHARES = [[0, 1, 2], [3, 4], [5], [6, 7], [8]]
ITEMS = list(range(9))


def children_of_this() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def done(work: Callable[[int], bytes]) -> tuple[dict[int, bytes], set[int]]:
    """The results by item, and the processes that were there."""
    found: dict[int, bytes] = {}
    loop = Loop()
    before = children_of_this()
    try:
        read_apart(
            loop,
            SHARES,
            work,
            lambda results: found.update({item: data for data, items in results for item in items}),
            loop.stop,
        )
        children = children_of_this() - before
        loop.call_later(PATIENCE, loop.stop)
        loop.run()
    finally:
        loop.close()
    return found, children


def test_each_share_is_done_in_a_session_of_its_own() -> None:
    found, _ = done(lambda item: f"{os.getsid(0)} {os.getpid()}".encode())
    assert sorted(found) == ITEMS
    sessions = [{found[item] for item in share} for share in SHARES]
    assert [len(each) for each in sessions] == [1] * len(SHARES)
    assert len(set.union(*sessions)) == len(SHARES)
    for each in set.union(*sessions):
        session, pid = each.split()
        assert session == pid
        assert int(session) != os.getsid(0)


def test_they_have_none_of_the_files_of_the_agent() -> None:
    read_end, write_end = os.pipe()
    try:
        found, _ = done(lambda item: " ".join(sorted(os.listdir("/proc/self/fd"), key=int)).encode())
    finally:
        os.close(read_end)
        os.close(write_end)
    for data in found.values():
        assert len(set(map(int, data.split())) - {0, 1, 2}) <= 2, "a socket, and the folder that is listed"


def test_what_cannot_be_done_has_no_result_and_the_rest_has() -> None:
    def work(item: int) -> bytes:
        if item == 1:
            raise ValueError("no")
        if item == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return b"x" * (300_000 if item == 3 else 1)

    found, _ = done(work)
    assert sorted(set(ITEMS) - set(found)) == [1, 3, 5]  # 3 is larger than a packet


def test_nothing_is_left_of_them() -> None:
    _, children = done(lambda item: b"")
    loop = Loop()
    until = time.monotonic() + PATIENCE
    try:
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            assert time.monotonic() < until
            for pid in children:  # as the loop of an agent does later
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.01)
    finally:
        loop.close()


ENDLESS = """
import os, time
from ipmpi.engine.agent.readers import read_apart
from ipmpi.transport.loop import Loop

def work(item):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(1000)

loop = Loop()
read_apart(loop, [[0], [1], [2]], work, print, loop.stop)
loop.run()
"""


@pytest.mark.parametrize("agent_ends", [True, False])
def test_they_end_with_the_agent_or_after_some_seconds(root: Path, agent_ends: bool) -> None:
    environ = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], env=environ, stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        readers = [int(agent.stdout.readline()) for _ in range(3)]
        if agent_ends:
            agent.kill()
        until = time.monotonic() + PATIENCE
        while any(_runs(pid) for pid in readers):
            assert time.monotonic() < until
            time.sleep(0.01)
        agent.kill()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("autogroups", "load", "expected"),
    [
        ("1", "9.8 7.6 5.4 400/800 4711", True),
        ("1", "400 400 400 1/800 4711", False),
        ("0", "9.8 7.6 5.4 400/800 4711", False),
        (None, "9.8 7.6 5.4 400/800 4711", False),
        ("1", "odd", False),
    ],
)
def test_they_are_wanted_where_sessions_share_busy_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autogroups: str | None, load: str, expected: bool
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    (tmp_path / "load").write_text(f"{load}\n")
    if autogroups is not None:
        (tmp_path / "autogroups").write_text(f"{autogroups}\n")
    assert may_help(tmp_path / "autogroups", tmp_path / "load") == expected
