"""The step of a job script that holds a copy of the environment on one node, without a batch system."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("golden") / "engines-staged.slurm"

# Cancelled in the middle of the removal: a batch system signals all processes of the step.
CANCELLED_RM = """#!/bin/bash
if [ "$1" = -rf ]; then kill -TERM 0; sleep 0.2; fi
exec /bin/rm "$@"
"""


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o700)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    executable(tmp_path / "packed" / "env" / "bin" / "python", "#!/bin/sh\nexit 0\n")
    path = tmp_path / "my env.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(tmp_path / "packed" / "env", "env")
    return path


@pytest.mark.parametrize("end", ["end of the job", "cancelled"])
def test_a_job_that_is_cancelled_while_copies_are_removed_leaves_none(
    tmp_path: Path, archive: Path, end: str
) -> None:
    executable(tmp_path / "bin" / "rm", CANCELLED_RM)
    hold = SCRIPT.read_text().partition("HOLD='\n")[2].partition("\n'\n")[0]
    copy = tmp_path / "ipmpi-env-1-abc"
    holder = subprocess.Popen(
        ["bash", "-c", hold, "stage", copy, archive, hashlib.sha256(archive.read_bytes()).hexdigest()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
    )  # fmt: skip
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        assert (copy / "env" / "bin" / "python").is_file()
        if end == "cancelled":
            os.killpg(holder.pid, 15)
        else:
            holder.stdin.close()
        assert holder.wait(60) == 0
    assert not copy.exists()
