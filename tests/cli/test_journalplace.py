"""Where the journal of a cluster is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipmpi.cli import journalplace, localdisk
from ipmpi.cli.batch import job_options, parser as batch_parser
from ipmpi.cli.journalplace import chosen
from ipmpi.errors import ControllerStartError, LauncherError
from ipmpi.launch.cluster.records import default_journal


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def on_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (journalplace, localdisk):
        monkeypatch.setattr(module, "network_type", lambda _folder, _mounts: "nfs4")


def test_it_is_in_the_folder_of_the_cluster(home: Path) -> None:
    assert chosen("", "sweep", is_new=True) == (home / "security" / "sweep" / "controller.journal", "")


def test_none_is_none() -> None:
    assert chosen("none", "sweep", is_new=True) == (None, "")


def test_a_given_file_is_taken(tmp_path: Path) -> None:
    assert chosen(str(tmp_path / "mine"), "sweep", is_new=True) == (tmp_path / "mine", "")


def test_a_network_home_has_none_and_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_nfs(monkeypatch)
    path, note = chosen("", "sweep", is_new=True)
    assert path is None
    assert note == (
        f"{home / 'security' / 'sweep'} is on a network file system (nfs4), so there is no journal: tasks and "
        "commands are lost if the controller is killed. To have one: --journal /var/tmp/sweep.journal"
    )


def test_a_given_file_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_nfs(monkeypatch)
    with pytest.raises(ControllerStartError, match=r"is on a network file system \(nfs4\), which may lose"):
        chosen(str(tmp_path / "mine"), "sweep", is_new=True)


def test_the_journal_of_a_controller_whose_furls_are_gone_is_set_aside() -> None:
    path = default_journal("sweep")
    path.parent.mkdir(parents=True)
    for end in ("", "-wal", "-head"):
        path.with_name(path.name + end).write_text(f"old{end}")
    found, note = chosen("", "sweep", is_new=True)
    assert found == path
    assert not path.exists()
    aside = Path(note.rpartition(" ")[2])
    assert [aside.with_name(aside.name + end).read_text() for end in ("", "-wal", "-head")] == [
        "old", "old-wal", "old-head",
    ]  # fmt: skip


def test_one_whose_furls_stay_valid_goes_on() -> None:
    path = default_journal("sweep")
    path.parent.mkdir(parents=True)
    path.write_text("old")
    assert chosen("", "sweep", is_new=False) == (path, "")
    assert path.read_text() == "old"


def test_a_controller_in_a_job_needs_fixed_ports_for_one(tmp_path: Path) -> None:
    words = ["-n", "4", "--in-job", f"--journal={tmp_path / 'mine'}"]
    with pytest.raises(LauncherError, match="--journal with --in-job needs --client-port and --engine-port"):
        job_options(batch_parser().parse_args(words), "sweep")
    asked = job_options(batch_parser().parse_args([*words, "--client-port=1", "--engine-port=2"]), "sweep")
    assert asked.controller_args[-2:] == ("--journal", str(tmp_path / "mine"))
    without = job_options(batch_parser().parse_args(["-n", "4", "--in-job"]), "sweep")
    assert "--journal" not in without.controller_args
