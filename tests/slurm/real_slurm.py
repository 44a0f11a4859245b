"""What tests do to the Slurm of the fixture: run its programs, look at its jobs, cut off its nodes."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.integration.real_clusters import wait_for

NODES = 3
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare")
CONTROLLER_ADDRESS = "10.77.0.254"
"""Where nodes reach what listens on the machine of the tests."""

# Session folders of Open MPI that the tests chose are in a /tmp that nodes do not have.
NOT_FOR_JOBS = ("PRTE_MCA_prte_tmpdir_base", "OMPI_MCA_orte_tmpdir_base", "TMPDIR")


class Slurm:
    """The batch system whose files are in one folder.

    Attributes:
        folder: seen by all nodes under the same path; what jobs read and write has to be in it.
        environ: for programs that talk to this Slurm.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {name: text for name, text in os.environ.items() if name not in NOT_FOR_JOBS}
        self.environ["SLURM_CONF"] = str(folder / "slurm.conf")

    def run(self, *argv: str) -> str:
        """What a program of Slurm prints."""
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, check=False, timeout=60)
        assert not done.returncode, f"{argv}: {done.stderr}"
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """RUNNING, PENDING, CANCELLED, ..."""
        return self.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")

    def cancel(self, job: str) -> None:
        """As its owner would."""
        self.run("scancel", job)

    def cancel_all(self) -> None:
        """Leave nothing behind."""
        for job in self.run("squeue", "-h", "-o", "%i").split():
            self.cancel(job)
        wait_for(lambda: not self.run("squeue", "-h", "-o", "%i"), 30)

    @contextlib.contextmanager
    def without_network(self, *nodes: int) -> Iterator[None]:
        """Pull the cable of these nodes."""
        for node in nodes:
            subprocess.run(["ip", "link", "set", f"sv{node}", "down"], check=True)
        try:
            yield
        finally:
            for node in nodes:
                subprocess.run(["ip", "link", "set", f"sv{node}", "up"], check=True)


@contextlib.contextmanager
def visible_on_nodes(folder: Path, root: Path) -> Iterator[None]:
    """Show a folder that is in /tmp on the nodes that will be started with their files in ``root``."""
    if not folder.is_relative_to("/tmp"):
        yield
        return
    places = [root / "nodes" / f"n{node}" / folder.relative_to("/") for node in range(1, NODES + 1)]
    for place in places:
        place.mkdir(parents=True)
        subprocess.run(["mount", "--bind", folder, place], check=True)
    try:
        yield
    finally:
        for place in places:
            subprocess.run(["umount", "-l", place], check=False)
            with contextlib.suppress(OSError):
                place.rmdir()


def own_shared_memory(slurmd: str) -> None:
    """Give a node a /dev/shm of its own, as nodes have.

    MPICH calls its files there after the job's id. Those that a killed job left behind, in a Slurm of former tests
    with the same ids, would be taken for those of a job of today.
    """
    subprocess.run(
        ["nsenter", "--target", slurmd, "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], check=True
    )


@contextlib.contextmanager
def started(script: Path, folder: Path) -> Iterator[Slurm]:
    """The cluster, for as long as this process lives: its keeper stops it when the pipe to it closes."""
    keep = 'bash "$0" stop $1 >&2; bash "$0" start $1 >&2 && echo up; read -r _; bash "$0" stop $1 >&2'
    environ = {**os.environ, "IPMPI_SLURM_ROOT": str(folder)}
    log = Path(f"{folder}.log")
    with log.open("wb") as errors:
        keeper = subprocess.Popen(
            ["bash", "-c", keep, str(script), str(NODES)], env=environ, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    found = Slurm(folder)
    try:
        assert keeper.stdout.readline() == b"up\n", log.read_text()
        for path in folder.glob("run/ns.n*.pid"):
            own_shared_memory(path.read_text().strip())
        yield found
        found.cancel_all()
    finally:
        daemons = [path.read_text().strip() for path in folder.glob("*/*.pid")]
        keeper.stdin.close()
        keeper.wait(30)
        keeper.stdout.close()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in daemons), 10)
        log.unlink()
