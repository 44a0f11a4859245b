"""Records of running clusters."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch import records
from ipmpi.launch.process import birth
from ipmpi.launch.records import Record, find, forget, free_name, living, load, records_dir, save


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_record_is_read_as_it_was_written_and_nobody_else_can_read_it() -> None:
    record = Record("big", "slurm", 64, jobs=["12", "13"], furl_files={"mec": "/f"}, batch="slurm")
    save(record)
    assert load("big") == record
    assert record.is_alive()
    assert (records_dir() / "big.json").stat().st_mode & 0o777 == 0o600
    assert records_dir().stat().st_mode & 0o777 == 0o700


def test_the_record_of_a_dead_process_is_recognised_and_deleted() -> None:
    pid = dead_process()
    save(Record("old", "local", 2, pid=pid, born=birth(os.getpid())))
    save(Record("reused", "local", 2, born=birth(os.getpid()) - 1))
    assert living() == []
    assert list(records_dir().iterdir()) == []


def test_nothing_is_said_about_processes_of_other_machines() -> None:
    record = Record("far", "local", 2, pid=dead_process(), host="elsewhere")
    save(record)
    assert record.is_alive() is None
    assert living() == [record]


def test_a_record_is_deleted_only_by_its_own_process() -> None:
    save(Record("mine", "local", 2))
    forget("mine", os.getpid() + 1)
    assert load("mine") is not None
    forget("mine", os.getpid())
    assert load("mine") is None
    forget("mine", os.getpid())


@pytest.mark.parametrize(
    "data", ["", "[]", "{}", '{"name": 1', '{"name": "x", "kind": "local", "n": 2, "later": 1}']
)
def test_a_record_of_another_release_or_no_record_is_not_in_the_way(data: str) -> None:
    save(Record("x", "local", 2))
    (records_dir() / "x.json").write_text(data)
    assert isinstance(load("x"), Record) == ("later" in data)
    assert isinstance(living(), list)


@pytest.mark.parametrize(
    "wrong",
    [
        '"pid": -1',  # every process, for kill(2)
        '"pid": 1, "name": "../x"',
        '"started": "yesterday"',
        '"furl_files": ["f"]',
        '"jobs": ' + "[" * 50_000,
    ],
)
def test_garbage_in_a_record_is_not_in_the_way(wrong: str) -> None:
    save(Record("x", "local", 2))
    (records_dir() / "x.json").write_text(f'{{"name": "x", "kind": "local", "n": 2, {wrong}}}')
    assert load("x") is None
    assert living() == []
    assert free_name("x") == "x"


def test_a_copied_record_is_no_second_cluster() -> None:
    save(Record("x", "local", 2))
    (records_dir() / "y.json").write_bytes((records_dir() / "x.json").read_bytes())
    (records_dir() / "y.json").chmod(0o600)
    assert [record.name for record in living()] == ["x"]


def test_without_a_time_of_birth_no_process_is_taken_for_a_cluster() -> None:
    save(Record("x", "local", 2, pid=dead_process()))
    assert living() == []


def test_finding_the_cluster_that_is_meant() -> None:
    with pytest.raises(LauncherError, match=r"No cluster is known in .*clusters\. Start one with: ipcluster -n 4"):
        find()
    first = Record("a", "local", 2)
    save(first)
    assert find() == find("a") == first
    with pytest.raises(LauncherError, match=r"There is no cluster 'b'\. Those that are known: a"):
        find("b")
    save(dataclasses.replace(first, name="b"))
    with pytest.raises(LauncherError, match=r"There are several clusters: a, b\. Say which one is meant"):
        find()
    save(dataclasses.replace(first, name="default"))
    assert find().name == "default"


def test_names_of_new_clusters() -> None:
    assert free_name("") == "default"
    save(Record("default", "local", 2))
    assert free_name("") == "default-2"
    assert free_name("other") == "other"
    refusal = rf"'default' is running already \(on .*, process {os.getpid()}\).*--name.*ipcluster stop default"
    with pytest.raises(LauncherError, match=refusal):
        free_name("default")


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../x", "a b", "x" * 65, "ä"])
def test_names_that_could_be_paths_are_refused(name: str) -> None:
    with pytest.raises(LauncherError, match=re.escape(f"{name!r} cannot be the name of a cluster")):
        records.check_name(name)
