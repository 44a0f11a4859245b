"""Records of running clusters."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch.cluster import records
from ipmpi.launch.cluster.records import ClusterRecord, find, forget, free_name, living, load, records_dir, save
from ipmpi.launch.processes.machine import can_see, identity
from ipmpi.launch.processes.process import birth


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_record_is_read_as_it_was_written_and_nobody_else_can_read_it() -> None:
    record = ClusterRecord("big", "slurm", 64, jobs=["12", "13"], furl_files={"mec": "/f"}, batch="slurm")
    save(record)
    assert load("big") == record
    assert record.is_alive()
    assert (records_dir() / "big.json").stat().st_mode & 0o777 == 0o600
    assert records_dir().stat().st_mode & 0o777 == 0o700


def test_the_record_of_a_dead_process_is_recognised_and_deleted() -> None:
    pid = dead_process()
    save(ClusterRecord("old", "local", 2, pid=pid, born=birth(os.getpid())))
    save(ClusterRecord("reused", "local", 2, born=birth(os.getpid()) - 1))
    assert living() == []
    assert list(records_dir().iterdir()) == []


def test_nothing_is_said_about_processes_of_other_machines() -> None:
    record = ClusterRecord("far", "local", 2, pid=dead_process(), host="elsewhere", machine="another start")
    save(record)
    assert record.is_alive() is None
    assert living() == [record]


def test_a_record_is_deleted_only_by_its_own_process() -> None:
    save(ClusterRecord("mine", "local", 2))
    forget("mine", os.getpid() + 1)
    assert load("mine") is not None
    forget("mine", os.getpid())
    assert load("mine") is None
    forget("mine", os.getpid())


@pytest.mark.parametrize(
    "data", ["", "[]", "{}", '{"name": 1', '{"name": "x", "kind": "local", "n": 2, "later": 1}']
)
def test_a_record_of_another_release_or_no_record_is_not_in_the_way(data: str) -> None:
    save(ClusterRecord("x", "local", 2))
    (records_dir() / "x.json").write_text(data)
    assert isinstance(load("x"), ClusterRecord) == ("later" in data)
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
    save(ClusterRecord("x", "local", 2))
    (records_dir() / "x.json").write_text(f'{{"name": "x", "kind": "local", "n": 2, {wrong}}}')
    assert load("x") is None
    assert living() == []
    assert free_name("x") == "x"


def test_a_copied_record_is_no_second_cluster() -> None:
    save(ClusterRecord("x", "local", 2))
    (records_dir() / "y.json").write_bytes((records_dir() / "x.json").read_bytes())
    (records_dir() / "y.json").chmod(0o600)
    assert [record.name for record in living()] == ["x"]


def test_without_a_time_of_birth_no_process_is_taken_for_a_cluster() -> None:
    save(ClusterRecord("x", "local", 2, pid=dead_process()))
    assert living() == []


def test_finding_the_cluster_that_is_meant() -> None:
    with pytest.raises(LauncherError, match=r"No cluster is known in .*clusters\. Start one with: ipcluster -n 4"):
        find()
    first = ClusterRecord("a", "local", 2)
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
    save(ClusterRecord("default", "local", 2))
    assert free_name("") == "default-2"
    assert free_name("other") == "other"
    refusal = rf"'default' is running already \(on .*, process {os.getpid()}\).*--name.*ipcluster stop default"
    with pytest.raises(LauncherError, match=refusal):
        free_name("default")


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../x", "a b", "x" * 65, "ä"])
def test_names_that_could_be_paths_are_refused(name: str) -> None:
    with pytest.raises(LauncherError, match=re.escape(f"{name!r} cannot be the name of a cluster")):
        records.check_name(name)


CLAIM = """
import sys
from ipmpi.launch.cluster.records import ClusterRecord, claim
print("ready", flush=True)
sys.stdin.readline()
print(claim(sys.argv[1], lambda name: ClusterRecord(name, "local", 1)).name, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("", ["default", "default-2", "default-3", "default-4", "default-5", "default-6"]),
        ("big+", ["big+2", "big+3", "big+4", "big+5", "big+6", "big+7"]),
    ],
)
def test_processes_that_start_at_once_get_names_of_their_own(wanted: str, names: list[str]) -> None:
    save(ClusterRecord("big", "local", 1))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, wanted], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in names
    ]
    assert {process.stdout.readline() for process in started if process.stdout} == {"ready\n"}
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    got = sorted(process.stdout.readline().strip() for process in started if process.stdout)
    for process in started:
        process.communicate("\n")
    assert got == names


def test_a_name_is_taken_once_also_where_files_cannot_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process takes it between the look and the creation of the file."""

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    look = records.free_name

    def beaten(wanted: str, also_taken: str = "") -> str:
        name = look(wanted, also_taken)
        if not (records_dir() / "other").exists():
            (records_dir() / "other").touch()
            save(ClusterRecord(name, "local", 9, pid=1, born=birth(1)))
        return name

    monkeypatch.setattr(records, "free_name", beaten)
    assert records.claim("", lambda name: ClusterRecord(name, "local", 1)).name == "default-2"
    found = load("default")
    assert found is not None
    assert found.n == 9
    (records_dir() / "other").unlink()
    with pytest.raises(LauncherError, match="'big' is just being started"):
        records.claim("big", lambda name: ClusterRecord(name, "local", 1))


def test_a_name_is_free_again_when_its_cluster_could_not_be_started() -> None:
    def fail(name: str) -> ClusterRecord:
        raise ValueError(name)

    with pytest.raises(ValueError, match="big"):
        records.claim("big", fail)
    assert records.claim("big", lambda name: ClusterRecord(name, "local", 1)).name == "big"


@pytest.mark.parametrize(
    "name", ["ipcontroller-mec.furl", "a+2", "+2", "../x", "a/b", "", "x" * 65, "a\n", "\ud800", "a\0"]
)
def test_what_cannot_be_the_name_of_a_folder_is_no_name_of_a_cluster(name: str) -> None:
    with pytest.raises(LauncherError, match="cannot be the name of a cluster"):
        records.check_name(name, new=True)


# --- machines ----------------------------------------------------------------------------------------------


def test_a_machine_that_has_another_name_by_now_is_still_this_one() -> None:
    """As laptops do in another network."""
    record = ClusterRecord("mine", "local", 2, host="its-name-at-home")
    assert record.is_here
    assert record.is_alive()


def test_a_process_from_before_a_restart_of_the_machine_is_dead() -> None:
    record = ClusterRecord("old", "local", 2, machine="another-boot/pid:[1]")
    save(record)
    assert record.is_alive() is False
    assert living() == []
    elsewhere = ClusterRecord("far", "local", 2, machine="another-boot/pid:[1]", host="elsewhere")
    assert elsewhere.is_alive() is None
    container = ClusterRecord("in", "local", 2, machine=f"{identity().partition('/')[0]}/pid:[1]")
    assert container.is_alive() is None


@pytest.mark.parametrize(("host", "seen"), [("", True), ("elsewhere", None)])
def test_where_the_system_has_no_identifier_the_name_of_the_host_counts(
    monkeypatch: pytest.MonkeyPatch, host: str, seen: bool | None
) -> None:
    monkeypatch.setattr("ipmpi.launch.processes.machine.identity", lambda: "")
    assert can_see("", host or platform.node()) is seen


def test_where_there_is_no_proc_births_differ_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    real_read, real_exists = Path.read_text, os.path.exists

    def no_proc(self: Path, *args: object, **kwargs: object) -> str:
        if str(self).startswith("/proc/"):
            raise FileNotFoundError(2, "No such file")
        return real_read(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", no_proc)
    monkeypatch.setattr(os.path, "exists", lambda path: path != "/proc/self/stat" and real_exists(path))
    own = birth(os.getpid())
    assert own > 1
    assert birth(os.getpid()) == own
    assert birth(1) not in (0, 1, own)
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert birth(process.pid) == 0  # a zombie
    process.wait()
    assert birth(process.pid) == 0
