"""A cluster of a user who is not root, as on every cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from real_clusters import Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

NOBODY = 65534

# The interpreter may be in root's home: the user may read what root may, and is nobody in all else.
READ = "+dac_read_search"
BECOME = [
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", f"--inh-caps=-all,{READ}",
    f"--ambient-caps={READ}", f"--bounding-set=-all,{READ}",
]  # fmt: skip

SESSION = """
import json, os, stat, subprocess, sys, threading
mpiexec, n, python = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
reader, writer = os.pipe()
lifeline, held = os.pipe()  # the controller ends with this process
controller = subprocess.Popen(
    [sys.executable, "-m", "ipmpi.cli.ipcontroller", "--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1",
     "--ready-fd", str(writer), "--lifeline-fd", str(lifeline)], pass_fds=[writer, lifeline],
    stdout=subprocess.DEVNULL)
os.close(writer)
lines = open(reader)
json.loads(lines.readline())
# Open MPI looks by access(2), which knows no capabilities, whether the program is there: /usr/bin/env is.
command = [*mpiexec, "-n", str(n), "/usr/bin/env", python, "-m", "ipmpi.cli.ipengine"]
engines = subprocess.Popen(command, stdout=subprocess.DEVNULL)
ended = threading.Thread(target=lambda: engines.wait() and os._exit(3), daemon=True)
ended.start()
while json.loads(lines.readline())["engines"] < n:
    pass
from ipmpi.client import MultiEngineClient
mec = MultiEngineClient()
mec.push({"a": b"x" * 5_000_000})
mec.execute("import os; total = mpi.COMM_WORLD.allreduce(len(a)); uid = os.getuid()")
folder = os.path.join(os.environ["IPYTHONDIR"], "security")
modes = sorted({oct(stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode)) for name in os.listdir(folder)})
print(json.dumps([mec.get_ids(), mec.pull("total"), mec.pull("uid"), modes, oct(os.stat(folder).st_mode & 0o777)]))
mec.kill(controller=True)
ended.join(20)
print(engines.poll(), controller.wait(20))
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of that user; those of pytest are root's alone."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become another user, by setpriv; another than root runs all tests as such")
    folder = Path(tempfile.mkdtemp(prefix="ipmpi-user"))
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def test_a_cluster_of_another_user(flavour: Flavour, home: Path, root: Path) -> None:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OMPI_ALLOW")},
        **{name: value for name, value in flavour.environ.items() if not name.startswith("OMPI_ALLOW")},
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def as_nobody(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BECOME, *argv], env=environ, cwd=home, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    for python in (sys.executable, flavour.python):
        probe = as_nobody(python, "-c", "import ipmpi, msgspec")
        if probe.returncode:
            pytest.skip(f"user {NOBODY} cannot use {python}: {probe.stderr.strip()[-200:]}")
    launcher = json.dumps([flavour.launcher, *flavour.options])
    done = as_nobody(sys.executable, "-c", SESSION, launcher, "2", flavour.python)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert json.loads(first) == [[0, 1], [10_000_000] * 2, [NOBODY] * 2, ["0o600"], "0o700"]
    assert second == "0 0", done.stderr
