"""The agent process has nothing of the launcher's and nothing of its rank's; launchers do not wait for it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ipmpi.engine.agent.watch import open_pidfd

START = """
import atexit, json, os, signal, socket, sys, time
from ipmpi.engine.agent.agentstart import start_agent
from ipmpi.errors import LauncherError

folder = sys.argv[1]
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

def say(text):
    with open(os.path.join(folder, "said"), "a") as stream:
        stream.write(f"{text} {os.getpid()}\\n")

def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return line.split()[1]

def look():
    return {
        "pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "group": os.getpgid(0),
        "files": {n: os.readlink("/proc/self/fd/" + n) for n in os.listdir("/proc/self/fd")
                  if os.path.lexists("/proc/self/fd/" + n)},
        "environ": dict(os.environ), "name": open("/proc/self/comm").read().strip(),
        "cores": sorted(os.sched_getaffinity(0)),
        "signals": {name: int(status(name), 16) for name in ("SigBlk", "SigIgn", "SigCgt")},
        "folder": os.getcwd(),
    }
"""


def run(code: str, folder: Path, root: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(root), **options.pop("environ", {})}
    return subprocess.run(
        [sys.executable, "-c", START + code, str(folder)],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


OF_A_RANK = {
    "PMI_RANK": "1",
    "PMI_FD": "9",
    "PMIX_NAMESPACE": "prterun-vm-1@1",
    "PMIX_SERVER_URI2": "x",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_MCA_btl": "self",
    "MPI_LOCALNRANKS": "2",
    "PRTE_LAUNCHED": "1",
    "HYDI_CONTROL_FD": "7",
    "MPIR_CVAR_DEBUG": "1",
    "PALS_RANKID": "1",
    "MV2_COMM_WORLD_RANK": "1",
    "FLUX_TASK_RANK": "1",
    "SLURM_PROCID": "1",
    "SLURM_STEP_ID": "0",
    "IPMPI_LAUNCH": "a:2",
}
OF_THE_JOB = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "6", "SLURM_ARRAY_TASK_ID": "1", "PBS_JOBID": "8.pbs"}

LOOK = """
signal.signal(signal.SIGTERM, lambda *_: say("a handler of the rank in"))
signal.signal(signal.SIGUSR1, lambda *_: say("a handler of the rank in"))
signal.signal(signal.SIGALRM, signal.SIG_IGN)
wakeup = socket.socketpair()
wakeup[0].setblocking(False)
signal.set_wakeup_fd(wakeup[0].fileno())
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.set_inheritable(os.open("/dev/zero", os.O_RDONLY), True)
kept = os.open("/dev/full", os.O_WRONLY)

def main(descriptor):
    import ctypes
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    found = look()
    found["in C"] = getenv(b"PMI_RANK") is not None
    link = socket.socket(fileno=descriptor)
    link.send(json.dumps(found).encode())
    link.recv(1)
    return 0

environ, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
start_agent(theirs.fileno(), main, [kept])
theirs.close()
agent = json.loads(ours.recv(100_000))
still = {
    "environ": dict(os.environ) == environ, "handler": signal.getsignal(signal.SIGTERM) is handler,
    "wakeup": signal.set_wakeup_fd(-1) == wakeup[0].fileno(), "cores": len(os.sched_getaffinity(0)) == 1,
    "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGTERM},
}
try:
    os.waitpid(-1, os.WNOHANG)
    still["no children"] = False
except ChildProcessError:
    still["no children"] = True
print(json.dumps({"agent": agent, "rank": look(), "still": still}))
"""


@pytest.fixture(scope="module")
def looked(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an agent and its rank see of themselves."""
    folder = tmp_path_factory.mktemp("agent")
    done = run(LOOK, folder, root, environ={**OF_A_RANK, **OF_THE_JOB})
    assert done.returncode == 0, done.stderr
    assert not (folder / "said").exists()
    return dict(json.loads(done.stdout))


def test_no_file_of_the_rank_is_open(looked: dict[str, Any]) -> None:
    files = looked["agent"]["files"]
    assert {number: files.pop(number) for number in ("0", "1", "2")} == dict.fromkeys("012", "/dev/null")
    assert sorted(target.partition(":")[0] for target in files.values()) == ["/dev/full", "socket"]


def test_a_session_of_its_own_which_it_does_not_lead(looked: dict[str, Any]) -> None:
    agent, rank = looked["agent"], looked["rank"]
    assert agent["session"] not in (rank["session"], agent["pid"])
    assert agent["group"] not in (rank["group"], agent["pid"])
    assert agent["parent"] != rank["pid"]


def test_the_environment_says_which_job_and_no_rank(looked: dict[str, Any]) -> None:
    environ = looked["agent"]["environ"]
    assert not OF_A_RANK.keys() & environ.keys()
    assert {name: environ.get(name) for name in OF_THE_JOB} == OF_THE_JOB
    assert environ["PYTHONPATH"] == looked["rank"]["environ"]["PYTHONPATH"]
    assert not looked["agent"]["in C"], "libraries ask the C library"


def test_signals_are_those_of_a_new_program(looked: dict[str, Any]) -> None:
    masks = looked["agent"]["signals"]
    ignored = {number for number in signal.valid_signals() if masks["SigIgn"] >> (number - 1) & 1}
    assert ignored == {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE}
    assert (masks["SigBlk"], masks["SigCgt"]) == (0, 0)


def test_the_cores_of_the_launcher_are_its_own_too(looked: dict[str, Any]) -> None:
    assert len(looked["rank"]["cores"]) == 1
    assert looked["agent"]["cores"] == sorted(os.sched_getaffinity(0))


def test_it_has_a_name_of_its_own_and_the_ranks_folder(looked: dict[str, Any]) -> None:
    assert looked["agent"]["name"] == "ipmpi-agent"
    assert looked["agent"]["folder"] == looked["rank"]["folder"]


def test_the_rank_is_as_before(looked: dict[str, Any]) -> None:
    assert looked["still"] == dict.fromkeys(looked["still"], True)


def test_descriptors_are_closed_where_proc_does_not_list_them(root: Path, tmp_path: Path) -> None:
    done = run(
        """
os.dup2(theirs.fileno(), 200)
listdir = os.listdir
def hidden(path="."):
    if path == "/proc/self/fd":
        raise PermissionError(13, "hidden")
    return listdir(path)
def main(descriptor):
    os.listdir = listdir
    socket.socket(fileno=descriptor).send(json.dumps(look()["files"]).encode())
    return 0
os.listdir = hidden
start_agent(theirs.fileno(), main)
os.listdir = listdir
number = theirs.fileno()
theirs.close()
os.close(200)
print(number, ours.recv(10_000).decode())
""",
        tmp_path,
        root,
    )
    assert done.returncode == 0, done.stderr
    listener, _, files = done.stdout.partition(" ")
    assert json.loads(files).keys() == {"0", "1", "2", listener}


def test_a_rank_without_standard_files(root: Path, tmp_path: Path) -> None:
    """The listener has number 0 then."""
    done = run(
        """
os.close(0)
theirs = socket.socket(fileno=os.dup(theirs.detach()))
assert theirs.fileno() == 0
def main(descriptor):
    socket.socket(fileno=descriptor).send(b"still there")
    return 0
start_agent(0, main)
print(ours.recv(100).decode())
""",
        tmp_path,
        root,
    )
    assert done.stdout == "still there\n", done.stderr


FAILS = """
import logging
atexit.register(say, "the end of a program in")
logging.basicConfig(filename=os.path.join(folder, "log"))
stream = logging.getLogger().handlers[0].stream

def main(descriptor):
    kept = socket.socket(fileno=descriptor)  # to its end
    {body}

try:
    start_agent(theirs.fileno(), main, [stream.fileno()])
    theirs.close()
    ours.recv(1)  # until it has ended
finally:
    say("the rank's code went on in")
print(os.getpid())
"""


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise RuntimeError('bad weather')", "RuntimeError: bad weather"),
        ("sys.exit(3)", "SystemExit: 3"),
        ("return 'no number'", "ValueError: invalid literal"),
    ],
)
def test_an_agent_that_fails_logs_it_and_never_comes_back(
    body: str, error: str, root: Path, tmp_path: Path
) -> None:
    done = run(FAILS.format(body=body), tmp_path, root)
    assert (done.returncode, done.stderr) == (0, "")
    log = (tmp_path / "log").read_text()
    assert "the agent process failed; please report this" in log
    assert error in log
    pid = done.stdout.strip()
    assert (tmp_path / "said").read_text().splitlines() == [
        f"the rank's code went on in {pid}",
        f"the end of a program in {pid}",
    ]


def test_an_agent_that_is_done_says_nothing(root: Path, tmp_path: Path) -> None:
    done = run(FAILS.format(body="return 0"), tmp_path, root)
    assert done.returncode == 0
    assert (tmp_path / "log").read_text() == ""
    assert len((tmp_path / "said").read_text().splitlines()) == 2


@pytest.mark.parametrize("which", [1, 2])
def test_no_more_processes(which: int, root: Path, tmp_path: Path) -> None:
    done = run(
        f"""
import errno
fork, left = os.fork, [{which}]
def limited():
    left[0] -= 1
    if not left[0]:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = limited
try:
    start_agent(theirs.fileno(), lambda descriptor: 0)
except LauncherError as error:
    print(error)
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
""",
        tmp_path,
        root,
    )
    assert "cannot be started: Resource temporarily unavailable. See how many processes" in done.stdout, (
        done.stderr
    )
    assert done.stdout.endswith("set()\n"), "signals come as before"


def test_who_started_the_rank_ignores_the_ends_of_children(root: Path, tmp_path: Path) -> None:
    done = run(
        """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def main(descriptor):
    socket.socket(fileno=descriptor).send(b"here")
    return 0
start_agent(theirs.fileno(), main)
print(ours.recv(100).decode())
""",
        tmp_path,
        root,
    )
    assert done.stdout == "here\n", done.stderr


def test_what_the_rank_leaves_to_be_collected_closes_no_file_of_the_agent(root: Path, tmp_path: Path) -> None:
    """A socket in a ring of objects is closed by its number whenever the collector comes to it."""
    done = run(
        """
import gc, warnings
gc.disable()
class Ring: pass
rings = []
for _ in range(20):
    ring = Ring()
    ring.itself, ring.file = ring, os.fdopen(os.open(os.devnull, os.O_RDONLY), "rb")
    rings.append(ring)
del rings, ring

def main(descriptor):
    link = socket.socket(fileno=descriptor)
    own = [os.open(os.devnull, os.O_RDONLY) for _ in range(40)]
    gc.collect()
    for number in own:
        os.fstat(number)
    link.send(b"all open")
    return 0

start_agent(theirs.fileno(), main)
theirs.close()
print(ours.recv(100).decode())
""",
        tmp_path,
        root,
    )
    assert done.stdout == "all open\n", done.stderr


def test_it_outlives_its_rank_and_a_kill_of_the_ranks_group(root: Path, tmp_path: Path) -> None:
    """So do launchers end the ranks of a launch in which one has died."""
    code = """
import secrets
address = "\\0ipmpi-test-" + secrets.token_hex(8)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(address)
listener.listen()
def main(descriptor):
    link = socket.socket(fileno=descriptor)
    say(address[1:])
    link.accept()[0].close()
    link.accept()[0].recv(1)
    return 0
start_agent(listener.fileno(), main)
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
    link.connect(address)
    link.recv(1)  # it has said where it is
os.killpg(0, signal.SIGKILL)
"""
    done = run(code, tmp_path, root, start_new_session=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    address, pid = (tmp_path / "said").read_text().split()
    descriptor = open_pidfd(int(pid))
    assert descriptor is not None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(f"\0{address}")
        assert not select.select([descriptor], [], [], 0)[0], "it lives"
    assert select.select([descriptor], [], [], 10)[0], "and ends by its own rule"
    os.close(descriptor)
