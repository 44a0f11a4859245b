"""What becomes of a cluster when ipcluster itself fails."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipmpi.cli import options, reporter
from ipmpi.cli.local import parser
from ipmpi.cli.reporter import Reporter, why_not_written
from ipmpi.cli.supervise import Supervisor
from ipmpi.errors import LauncherError
from ipmpi.launch.cluster import records
from ipmpi.launch.cluster.happenings import StopRequest
from ipmpi.launch.cluster.lifecycle import Plan


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


class Engines:
    """A job that was submitted."""

    waits = False
    job = "7"

    def __init__(self, folder: Path) -> None:
        self.log_dir = folder

    def said(self) -> list[str]:
        return ["Submitted job 7"]

    def logs(self) -> list[Path]:
        return []


class Broken:
    """A cluster of which something that nobody has foreseen goes wrong."""

    def __init__(self, error: Exception, folder: Path, problems: list[str]) -> None:
        self.error, self.problems = error, problems
        self.controller = self.controller_process = None
        self.engines = Engines(folder)
        self.stopped = 0
        self.left_behind = bool(problems)

    def start(self) -> None:
        pass

    def wait(self, _deadline: float | None, **_: bool) -> list[StopRequest]:
        raise self.error

    def stop(self, **_: bool) -> list[str]:
        self.stopped += 1
        return self.problems

    def close(self) -> None:
        pass


def supervise(error: Exception, home: Path, problems: list[str]) -> tuple[Broken, Any]:
    cluster = Broken(error, home, problems)
    parsed = parser().parse_args([])
    try:
        with options.claimed(parsed, "local", 2) as record:
            record.jobs.append("7")
            plan = Plan(2, 60)
            return cluster, Supervisor(cluster, plan, Reporter(), record).run()  # type: ignore[arg-type]
    except Exception as raised:
        return cluster, raised


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError(), RuntimeError("a mistake of ours")]
)
def test_whatever_goes_wrong_the_cluster_is_stopped_before_it_is_raised(
    error: Exception, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, raised = supervise(error, home, [])
    assert raised is error
    assert cluster.stopped == 1
    assert records.living() == []
    assert "Please report this" in capsys.readouterr().err


def test_what_was_foreseen_is_told_without_a_traceback(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster, code = supervise(LauncherError("there is no qfsub"), home, [])
    assert (code, cluster.stopped) == (1, 1)
    assert capsys.readouterr().err == "ipcluster: there is no qfsub\n"


def test_a_job_that_goes_on_stays_in_the_record(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    supervise(RuntimeError("a mistake of ours"), home, ["job 7 could not be cancelled"])
    (record,) = records.living()
    assert (record.name, record.jobs[0], record.left_behind) == ("default", "7", True)
    assert "To try again: ipcluster stop default" in capsys.readouterr().err


# --- disks that are full -----------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path, need: Callable[[str, object], None]) -> Iterator[Path]:
    """A file system with no room."""
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(folder)], check=False)
    need("the right to mount a small file system", mounted.returncode == 0)
    try:
        (folder / "all").write_bytes(b"x" * 4096)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_the_reason_why_logs_say_nothing(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Reporter().show_logs([full / "engines.log"], full)
    assert f"Log files cannot be written: {full}: No space left on device." in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_the_reason_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    assert why_not_written(tmp_path) == ""
    monkeypatch.setattr(reporter.tempfile, "TemporaryFile", refuse)
    Reporter().show_logs([], tmp_path)
    assert os.strerror(errno.EDQUOT) in capsys.readouterr().err


def test_what_is_of_use_only_here_is_marked_for_programs() -> None:
    read_end, write_end = os.pipe()
    Reporter(write_end).say("how to connect", only_here=True)
    Reporter(write_end).say("Submitted job 7")
    os.close(write_end)
    with open(read_end, encoding="utf-8") as lines:
        said = [json.loads(line) for line in lines]
    assert said == [{"say": "how to connect", "only_here": True}, {"say": "Submitted job 7"}]
