"""A Slurm on one machine: a program that starts it, says so, and stops it when its standard input closes.

    python one_machine_slurm.py FOLDER NODES [FOLDER ...]

Each node is a slurmd in mount, network and host name namespaces of its own, behind a network bridge, so that nodes
have names and addresses, and one can be cut off. What a node has of the machine's file system is the machine's own
but for ``/tmp`` and ``/dev/shm``: those are private, as they are on the nodes of a real system. ``FOLDER`` and the
folders named after it are seen by all nodes under their own paths, as a parallel file system is.

The daemons stay children of this program. They are ended by it, and by the kernel if it is killed
(PR_SET_PDEATHSIG). It needs root, and the programs of Debian's packages slurm-wlm, munge, iproute2 and util-linux.

``FOLDER/cluster.json`` has this machine's address on the nodes' network, and each node's interface on the bridge.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

CORES = 4
"""What each node claims to have, whatever the machine has."""
START_SECONDS = 30.0
STOP_SECONDS = 5.0

CONFIGURATION = """\
ClusterName=ipmpi
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmdPort=6818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/%n
# Nothing that wants a kernel of its own: no cgroups, no accounting, no switch.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
MailProg=/bin/true
# As prompt as it can be: tests wait for each job.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
InactiveLimit=0
# Jobs stay known while a test session looks at them.
MinJobAge=3600
NodeName=n[1-{nodes}] NodeAddr={network}.[1-{nodes}] CPUs={cores} \
Sockets=1 CoresPerSocket={cores} ThreadsPerCore=1 RealMemory=2000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def run(*argv: str) -> str:
    """What a program prints; its complaint is an error."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class Network:
    """A bridge with a free subnet; several clusters of one machine do not meet.

    Attributes:
        address: of this machine.
        prefix: of all addresses, without the last number.
    """

    def __init__(self) -> None:
        taken = run("ip", "-brief", "address")
        number = next(n for n in range(1, 200) if f"10.94.{n}." not in taken and f"sl{n}br" not in taken)
        self.prefix = f"10.94.{number}"
        self.address = f"{self.prefix}.254"
        self._name = f"sl{number}"
        self._links: list[str] = []
        run("ip", "link", "add", f"{self._name}br", "type", "bridge")
        run("ip", "address", "add", f"{self.address}/24", "dev", f"{self._name}br")
        run("ip", "link", "set", f"{self._name}br", "up")

    def interface(self, node: int) -> str:
        """The end of a node's cable that is on this machine."""
        return f"{self._name}n{node}"

    def plug_in(self, node: int, pid: int) -> None:
        """Give the network namespace of a process its cable."""
        here, there = self.interface(node), f"{self._name}p{node}"
        run("ip", "link", "add", here, "type", "veth", "peer", "name", there)
        self._links.append(here)
        run("ip", "link", "set", here, "master", f"{self._name}br", "up")
        run("ip", "link", "set", there, "netns", str(pid))
        inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "ip")
        run(*inside, "link", "set", there, "name", "eth0")
        run(*inside, "address", "add", f"{self.prefix}.{node}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Leave no interface behind."""
        for link in (*self._links, f"{self._name}br"):
            subprocess.run(["ip", "link", "delete", link], check=False, stderr=subprocess.DEVNULL)


class OneMachineSlurm:
    """The daemons, in the order in which they need each other."""

    def __init__(self, folder: Path, nodes: int, shared: Iterable[Path]) -> None:
        self._folder = folder
        self._nodes = range(1, nodes + 1)
        self._shared = [folder, *shared]
        self._daemons: list[subprocess.Popen[bytes]] = []
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        for name in ("munge", "state", "spool", "run", "log", "nodes"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._network = Network()

    def start(self) -> None:
        """Return when all nodes are idle."""
        self._write_configuration()
        self._start_munge()
        self._daemon("slurmctld", "slurmctld", "-D", "-c")
        for node in self._nodes:
            self._start_node(node)
        self._wait_for("all nodes to be idle", self._all_idle)

    def stop(self) -> None:
        """End what was started, the last first."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._network.remove()

    def _write_configuration(self) -> None:
        text = CONFIGURATION.format(
            host=socket.gethostname(), address=self._network.address, network=self._network.prefix,
            port=free_port(), folder=self._folder, nodes=len(self._nodes), cores=CORES,
        )  # fmt: skip
        (self._folder / "slurm.conf").write_text(text)
        names = [f"{self._network.prefix}.{node} n{node}" for node in self._nodes]
        hosts = ["127.0.0.1 localhost", f"{self._network.address} {socket.gethostname()}", *names]
        (self._folder / "hosts").write_text("\n".join(hosts) + "\n")
        told = {
            "address": self._network.address,
            "interfaces": {f"n{node}": self._network.interface(node) for node in self._nodes},
        }
        (self._folder / "cluster.json").write_text(json.dumps(told))

    def _start_munge(self) -> None:
        folder = self._folder / "munge"
        key = folder / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = {
            "key-file": key,
            "socket": folder / "socket",
            "pid-file": folder / "pid",
            "seed-file": folder / "seed",
        }
        self._daemon(
            "munged", "munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items())
        )
        self._wait_for("munged", (folder / "socket").exists)

    def _start_node(self, node: int) -> None:
        """A slurmd that starts when its namespaces are furnished."""
        waits = f"hostname n{node}; echo; read -r _; exec slurmd -D -N n{node}"
        daemon = self._daemon(
            f"n{node}", "unshare", "--mount", "--uts", "--net", "sh", "-c", waits,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert daemon.stdin is not None
        assert daemon.stdout is not None
        daemon.stdout.readline()  # it has its namespaces now
        self._network.plug_in(node, daemon.pid)
        self._furnish(node, daemon.pid)
        daemon.stdin.write(b"\n")
        daemon.stdin.close()

    def _furnish(self, node: int, pid: int) -> None:
        """Mounts of a node: its own /tmp and /dev/shm, and in them what all nodes share."""
        # MPICH names its files in /dev/shm after the job. Those that a killed job of a Slurm of another day left
        # behind would be taken for those of a job of today with the same number.
        inside = ("nsenter", f"--mount=/proc/{pid}/ns/mnt")
        private = self._folder / "nodes" / f"n{node}"
        private.mkdir(exist_ok=True)
        private.chmod(0o1777)
        mounts = [("--bind", str(self._folder / "hosts"), "/etc/hosts"), ("-t", "tmpfs", "tmpfs", "/dev/shm")]
        for folder in self._shared:
            if folder.is_relative_to("/tmp"):
                place = private / folder.relative_to("/tmp")
                place.mkdir(parents=True, exist_ok=True)
                mounts.append(("--bind", str(folder), str(place)))
        mounts.append(("--rbind", str(private), "/tmp"))
        for mount in mounts:
            run(*inside, "mount", *mount)

    def _daemon(
        self, name: str, *argv: str, stdin: int = subprocess.DEVNULL, stdout: int | None = None
    ) -> subprocess.Popen[bytes]:
        with (self._folder / "log" / f"{name}.out").open("ab") as log:
            daemon = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *argv],
                stdin=stdin,
                stdout=log if stdout is None else stdout,
                stderr=log,
            )
        self._daemons.append(daemon)
        return daemon

    def _all_idle(self) -> bool:
        done = subprocess.run(
            ["sinfo", "-h", "-t", "idle", "-o", "%D"], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() == str(len(self._nodes))

    def _wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            dead = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            if dead or time.monotonic() > deadline:
                logs = [
                    path.read_text(errors="replace")[-2000:] for path in sorted((self._folder / "log").iterdir())
                ]
                raise SystemExit(f"waited for {what}; ended: {dead}\n" + "\n".join(logs))
            time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def main(folder: str, nodes: str, *shared: str) -> None:
    """Run until standard input closes."""
    slurm = OneMachineSlurm(Path(folder), int(nodes), [Path(path) for path in shared])
    try:
        slurm.start()
        print("up", flush=True)
        sys.stdin.read()
    finally:
        slurm.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
