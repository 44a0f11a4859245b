"""Where a journal may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipmpi.cli import localdisk
from ipmpi.cli.journalfile import open_journal
from ipmpi.environment import filesystems
from ipmpi.errors import ControllerStartError, JournalDamaged

MOUNTS = (
    "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n31 22 0:31 / /scratch rw master:4 - lustre 10.0.0.1@o2ib:/scratch rw\n"
)


def test_none() -> None:
    assert open_journal("none", 0) is None


def test_it_needs_fixed_ports(tmp_path: Path) -> None:
    with pytest.raises(
        ControllerStartError, match="needs --client-port and --engine-port: otherwise furls are new"
    ):
        open_journal(str(tmp_path / "journal"), 0)
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize("device", ["0:31", "8:1"])
def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(filesystems, "device", lambda path: device)
    monkeypatch.setattr(localdisk, "mounts", lambda: MOUNTS)
    name = str(tmp_path / "journal")
    if device == "8:1":
        journal = open_journal(name, 1)
        assert journal is not None
        journal.close()
        return
    with pytest.raises(ControllerStartError, match=r"is on a network file system \(lustre\).*such as /var/tmp/"):
        open_journal(name, 1)


def test_what_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"something else, which is longer than the header of a database" * 20)
    path.chmod(0o600)
    with pytest.raises(JournalDamaged, match="is damaged: file is not a database"):
        open_journal(str(path), 1)
