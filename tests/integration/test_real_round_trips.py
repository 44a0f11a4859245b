"""How often the processes on the way of an ``execute`` ask the system for something: it waits for each of them.

The bounds are what the way needs, so that no step creeps in. They hold at any load: what comes by time and not by
command (acknowledgements, signs of life) is allowed for by the time that it took.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import pytest

from ipmpi import limits

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

COMMANDS: Final = 200
NAMES: Final = ("epoll_wait", "epoll_ctl", "poll", "sendto", "sendmsg", "recvfrom", "recvmsg", "read", "write")
BEGUN: Final = re.compile(r"^(?:\d+ +)?(?P<name>\w+)\(")
"""A line of strace at which a call begins; its end may have another line."""

CLIENT: Final = """
import sys
from ipmpi.client import MultiEngineClient
mec = MultiEngineClient(sys.argv[1])
for line in sys.stdin:
    for _ in range(int(line)):
        mec.execute("pass", targets=0)
    print(line, end="", flush=True)
"""

# For each command. The client's thread is woken to send, and by the answer; controller and agent by the command
# and by the answer. The agent also looks whether the rank has printed something.
BOUNDS: Final = {
    "client": {"epoll_wait": 2, "sendto": 1, "recvfrom": 1, "sendmsg": 1, "recvmsg": 1},
    "controller": {"epoll_wait": 2, "recvmsg": 2, "sendmsg": 2},
    "agent": {"epoll_wait": 2, "recvmsg": 2, "sendmsg": 1, "sendto": 1, "poll": 1},
    "rank": {"recvmsg": 1, "sendto": 1},
}
ACKNOWLEDGED: Final = 3
"""Calls of one name that acknowledgements on a process's links cost at most in each of their periods."""
SLACK: Final = COMMANDS // 4
"""Calls of one name that are no sign of a new step: such a step adds one for each command."""


def begun(trace: str) -> Counter[str]:
    """How often each call of :data:`NAMES` begins in what strace has written."""
    found = (BEGUN.match(line) for line in trace.splitlines())
    return Counter(match["name"] for match in found if match and match["name"] in NAMES)


def test_calls_are_counted_where_they_begin() -> None:
    trace = """\
12 epoll_wait(4,  <unfinished ...>
11 sendto(7, "!", 1, 0, NULL, 0) = 1
12 <... epoll_wait resumed>[{events=EPOLLIN, data={u32=5, u64=5}}], 1023, 21) = 1
12 futex(0x55ac, FUTEX_WAKE_PRIVATE, 1) = 1
12 --- SIGURG {si_signo=SIGURG} ---
"""
    assert begun(trace) == {"epoll_wait": 1, "sendto": 1}


@pytest.fixture
def attach(
    need: Callable[[str, object], None], tmp_path: Path
) -> Iterator[Callable[[str, int, bool], subprocess.Popen[bytes]]]:
    """Trace a running process, and its threads if wanted, into the file of a name, until it is interrupted."""
    program = shutil.which("strace") or ""
    need("no strace; apt-get install strace", program)
    tracers: list[subprocess.Popen[bytes]] = []

    def begin(name: str, pid: int, threads: bool) -> subprocess.Popen[bytes]:
        which = ["-e", "trace=" + ",".join(NAMES)]
        words = [
            program,
            *(["-f"] if threads else []),
            *which,
            "-s",
            "8",
            "-o",
            str(tmp_path / name),
            "-p",
            str(pid),
        ]
        tracer = subprocess.Popen(words, stderr=subprocess.PIPE)
        tracers.append(tracer)
        assert tracer.stderr is not None
        told = tracer.stderr.readline()
        if b" attached" not in told:
            pytest.skip(f"strace may not attach to a process here: {told.decode(errors='replace').strip()}")
        return tracer

    yield begin
    for tracer in tracers:
        end(tracer)


def end(tracer: subprocess.Popen[bytes]) -> None:
    """Let go of a process, which goes on; the file has everything then. Again: nothing."""
    if tracer.poll() is None:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=60)


def asked(client: subprocess.Popen[str], count: int) -> None:
    """Have the client send so many commands, one after the other."""
    stdin, stdout = _pipes(client)
    stdin.write(f"{count}\n")
    stdin.flush()
    assert stdout.readline() == f"{count}\n"


def _pipes(client: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert client.stdin is not None
    assert client.stdout is not None
    return client.stdin, client.stdout


def test_an_execute_takes_no_more_system_calls_than_its_way_has_steps(
    flavour_named: Callable[[str], Flavour],
    new_cluster: Callable[..., Cluster],
    attach: Callable[[str, int, bool], subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    pids = cluster.pids(cluster.start(2))
    words = [sys.executable, "-c", CLIENT, cluster.files["multiengine_furl_file"]]
    client = subprocess.Popen(
        words, env=cluster.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        asked(client, 20)
        (agent,) = cluster.agents()
        traced = {"client": client.pid, "controller": cluster.controller.pid, "agent": agent, "rank": pids[0]}
        tracers = [attach(name, pid, name == "client") for name, pid in traced.items()]
        start = time.monotonic()
        asked(client, COMMANDS)
        took = time.monotonic() - start
        for tracer in tracers:
            end(tracer)
    finally:
        with contextlib.suppress(BrokenPipeError):
            client.communicate()
    by_time = SLACK + ACKNOWLEDGED * (took / limits.ACK_DELAY + COMMANDS / limits.ACK_FRAMES)
    for name, bounds in BOUNDS.items():
        found = begun((tmp_path / name).read_text(errors="replace"))
        # The other way round it would show that nothing was traced.
        assert found["recvmsg"] >= bounds["recvmsg"] * COMMANDS * 0.9, (name, found)
        for call in NAMES:
            most = bounds.get(call, 0) * COMMANDS + by_time
            assert found[call] <= most, (
                f"{name}: {found[call]} x {call} in {COMMANDS} commands, {took:.1f} s: {found}"
            )
