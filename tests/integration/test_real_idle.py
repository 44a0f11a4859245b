"""A cluster that nobody asks for anything does nothing: no messages, and hardly a system call."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import Process, of_cluster
from ipmpi.cluster import Cluster
from tests.security.cluster import wait_until

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace (Debian: strace)"),
]

LOOKED_AT = 5.0
"""Seconds."""

MOST = {"controller": 8, "ipcluster": 30, "agent": 8, "rank": 2, "launcher": 10}
"""System calls of one process in that time. ipcluster looks at the size of its log files each 2 s; links are
looked at each 5 s, and say a word each 15 s."""


@contextlib.contextmanager
def traced(process: Process, file: Path) -> Iterator[None]:
    """Write what system calls a process makes."""
    words = ["strace", "-f", "-qq", "-o", str(file), "-p", str(process.pid)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as strace:
        try:
            status = Path(f"/proc/{process.pid}/status")
            wait_until(lambda: f"TracerPid:\t{strace.pid}" in status.read_text(), "strace watches", 30)
            yield
        finally:
            strace.send_signal(signal.SIGINT)


def calls_of(processes: list[Process], folder: Path) -> dict[Process, Counter[str]]:
    """The system calls that each of them begins and ends within some seconds, by their names."""
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.enter_context(traced(process, folder / str(process.pid)))
        time.sleep(LOOKED_AT)
    found: dict[Process, Counter[str]] = {}
    for process in processes:
        lines = (folder / str(process.pid)).read_text(errors="replace").splitlines()
        ended = [line for line in lines if re.search(r" = -?[0-9?]", line)]
        names = [re.sub(r"^[0-9]+ +(<\.\.\. )?", "", line).split("(")[0].split()[0] for line in ended]
        found[process] = Counter(names)
    return found


def too_many(calls: dict[Process, Counter[str]]) -> list[str]:
    return [f"{each.kind}: {dict(made)}" for each, made in calls.items() if made.total() > MOST[each.kind]]


def sent(calls: dict[Process, Counter[str]]) -> int:
    """How many messages were sent; journals and logs are files."""
    return sum(made[name] for made in calls.values() for name in ("sendmsg", "sendto", "sendmmsg", "send"))


def test_nothing_is_sent_while_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Cluster(n=3, name="calm", echo=None) as cluster:
        mec, tc = cluster.multiengine(), cluster.task()
        words = [sys.executable, "-m", "ipmpi.cli.ipcluster", "engines", "calm", "-n", "1", "--mpi", "none"]
        with (
            subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as more,
            contextlib.ExitStack() as ends,
        ):
            ends.callback(more.kill)  # whatever fails here
            mec.wait_for_engines(4, timeout=60)
            assert mec.execute("a = 1")
            assert tc.submit(abs, -1).result(60) == 1
            processes = [each for each in of_cluster(f"IPYTHONDIR={tmp_path}") if each.pid != os.getpid()]
            kinds = Counter(each.kind for each in processes)
            assert (kinds["controller"], kinds["agent"], kinds["rank"], kinds["ipcluster"]) == (1, 2, 4, 2), kinds
            # What the last command leaves behind comes to its end first: acknowledgements, looks at memory.
            for attempt in range(8):
                folder = tmp_path / f"calls-{attempt}"
                folder.mkdir()
                calls = calls_of(processes, folder)
                # The words that links say once in 15 s, as an answer and its acknowledgement.
                if not too_many(calls) and sent(calls) <= 4 * 4:
                    break
            assert too_many(calls) == []
            assert sent(calls) <= 4 * 4, {each.kind: dict(made) for each, made in calls.items()}
            print({f"{each.kind} {each.pid}": dict(made) for each, made in calls.items()})
            assert mec.execute("a += 1")
            more.send_signal(signal.SIGINT)
            assert more.wait(60) == 0
