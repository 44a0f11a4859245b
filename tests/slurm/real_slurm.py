"""What tests do to the Slurm of the fixture: run its programs, look at its jobs, cut off its nodes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.integration.real_clusters import wait_for

NODES = 3
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "nsenter", "setpriv")
KEEPER = Path(__file__).with_name("one_machine_slurm.py")

# Session folders of Open MPI that the tests chose are in a /tmp that nodes do not have.
NOT_FOR_JOBS = ("PRTE_MCA_prte_tmpdir_base", "OMPI_MCA_orte_tmpdir_base", "TMPDIR")


class Slurm:
    """The batch system whose files are in one folder.

    Attributes:
        folder: seen by all nodes under the same path; what jobs read and write has to be in it.
        environ: for programs that talk to this Slurm.
        address: where nodes reach what listens on the machine of the tests.
        outside: options of an ``ipcluster`` whose controller is on the machine of the tests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {name: text for name, text in os.environ.items() if name not in NOT_FOR_JOBS}
        self.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        told = json.loads((folder / "cluster.json").read_text())
        self.address: str = told["address"]
        self.outside = ("--engine-ip", self.address, "--client-ip", "127.0.0.1")
        self._interfaces: dict[str, str] = told["interfaces"]

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
            self._set_cable(node, "down")
        try:
            yield
        finally:
            for node in nodes:
                self._set_cable(node, "up")

    def _set_cable(self, node: int, state: str) -> None:
        subprocess.run(["ip", "link", "set", self._interfaces[f"n{node}"], state], check=True)


@contextlib.contextmanager
def started(folder: Path, *shared: Path) -> Iterator[Slurm]:
    """The cluster, for as long as this process lives: its keeper stops it when the pipe to it closes.

    Nodes see ``folder`` and the folders in ``shared``, also if these are in /tmp.
    """
    log = Path(f"{folder}.log")
    with log.open("wb") as errors:
        keeper = subprocess.Popen(
            [sys.executable, str(KEEPER), str(folder), str(NODES), *map(str, shared)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        assert keeper.stdout.readline() == b"up\n", log.read_text()
        found = Slurm(folder)
        yield found
        found.cancel_all()
    finally:
        keeper.stdin.close()
        keeper.wait(60)
        keeper.stdout.close()
        log.unlink()
