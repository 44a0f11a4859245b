"""Where the logs of jobs go: to the folder of submission, if that is on a network file system of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipmpi.environment import filesystems
from ipmpi.launch.processes.scratch import log_folder

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /home ro,relatime shared:2 - nfs4 server:/home ro
31 22 0:31 / /scratch rw,relatime shared:3 master:4 - lustre 10.0.0.1@o2ib:/scratch rw
32 22 0:32 / /tmp rw - tmpfs tmpfs rw
rubbish
"""


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[Path, str]:
    """Folders that seem to be on some of these file systems."""
    places = {tmp_path / name: device for name, device in (("home", "0:30"), ("scratch", "0:31"), ("tmp", "0:32"))}
    for place in places:
        place.mkdir()
    monkeypatch.setattr(
        filesystems, "device", lambda path: next(d for p, d in places.items() if p in (path, *path.parents))
    )
    return places


def test_a_job_from_scratch_has_its_logs_there(devices: dict[Path, str]) -> None:
    home, there, tmp = devices
    assert log_folder(there / "run", home / ".ipython", MOUNTS) is None, "it cannot be written"
    (there / "run").mkdir()
    assert log_folder(there / "run", home / ".ipython", MOUNTS) == there / "run" / "ipmpi-log"
    assert log_folder(home, home / ".ipython", MOUNTS) is None
    assert log_folder(tmp, home / ".ipython", MOUNTS) is None, "compute nodes have another /tmp"
    assert log_folder(there, there / "ipython", MOUNTS) is None, "IPYTHONDIR is there already"
    assert log_folder(there, home, "") is None, "not Linux"


def test_the_file_system_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    number = os.stat(tmp_path).st_dev
    assert filesystems.device(tmp_path / "a" / "b") == f"{os.major(number)}:{os.minor(number)}"
