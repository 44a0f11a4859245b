"""ipcluster list, status, stop, logs, where and engines, with real clusters."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipmpi.cli import engines as engines_command, manage
from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.launch.cluster import records
from ipmpi.launch.cluster.records import ClusterRecord, save
from tests.cli.running import REAL, ROOT, Run

HERE = ("--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1", "--mpi", "none")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def ask(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*REAL, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def pair(ipcluster: Callable[..., Run]) -> Run:
    """A cluster of two engines."""
    run = ipcluster("-n", "2", *HERE, command=REAL)
    run.until("kill -INT")
    return run


def test_nothing_runs() -> None:
    assert ask("list").stdout == "No cluster is known. Start one with: ipcluster -n 4\n"
    for command in ("status", "stop", "logs", "engines", "where"):
        done = ask(command)
        assert done.returncode == 1
        assert "No cluster is known in " in done.stderr
    assert ask("stop", "--all").returncode == 0


@pytest.mark.slow
def test_a_cluster_is_listed_asked_about_and_stopped(pair: Run) -> None:
    head, row, *rest = ask("list").stdout.splitlines()
    assert rest == ["", "To connect:", "mec = client.MultiEngineClient(name='default')"]
    assert head.split() == ["NAME", "KIND", "ENGINES", "STATE", "SINCE", "HOST", "JOBS"]
    assert row.split()[:4] == ["default", "local", "2", "up"]
    (listed,) = json.loads(ask("list", "--json").stdout)
    assert (listed["pid"], listed["controller"]) == (pair.process.pid, pair.controller)
    said = ask("status").stdout
    assert said.startswith(f"default: local, up, process {pair.process.pid} on ")
    assert "  engines: 2 of 2 registered, on " in said
    assert json.loads(ask("status", "--json").stdout)["registered"] == 2
    assert ask("where").stdout.startswith("[0-1]  idle")
    assert ask("where", "default", "--all", "--native").returncode == 0
    done = ask("stop")
    assert (done.returncode, done.stdout) == (0, "Stopped the cluster 'default'.\n")
    assert pair.ends() == 0
    assert pair.leftovers() == []
    assert ask("list").stdout.startswith("No cluster")


@pytest.mark.slow
def test_the_logs_of_all_processes_are_shown(pair: Run) -> None:
    said = ask("logs", "--lines", "3").stdout
    host = os.uname().nodename
    run = records.find().run
    assert f"/log/default/ipcontroller-{run}-{host}-{pair.controller}.log <==\n" in said
    assert said.count(f"/log/default/ipengine-{run}-{host}-") == 3, "two engines, and their agent"
    assert "Controller is ready" in ask("logs", "default").stdout


@pytest.mark.slow
def test_logs_are_followed_to_the_end(pair: Run, ipcluster: Callable[..., Run]) -> None:
    follower = ipcluster("logs", "-f", "--lines", "0", command=REAL)
    follower.until(f"-{pair.controller}.log <==")
    pair.process.send_signal(signal.SIGINT)
    assert pair.ends() == 0
    assert follower.ends() == 0
    assert "Controller stopped" in follower.text


@pytest.mark.slow
def test_engines_are_added_and_end_with_ctrl_c(pair: Run, ipcluster: Callable[..., Run]) -> None:
    more = ipcluster("engines", "-n", "2", "--mpi", "none", command=REAL)
    more.until("ipcluster: 2 engines were added to the cluster 'default'.")
    with MultiEngineClient() as mec:
        assert mec.get_ids() == [0, 1, 2, 3]
        more.process.send_signal(signal.SIGINT)
        assert more.ends() == 0
        assert mec.get_ids() == [0, 1]
        assert mec.execute("a = 1", targets=[0, 1])
    assert pair.process.poll() is None
    assert records.find().pid == pair.process.pid


@pytest.mark.slow
def test_added_engines_end_with_the_cluster(pair: Run, ipcluster: Callable[..., Run]) -> None:
    more = ipcluster("engines", "default", "-n", "1", "--mpi", "none", command=REAL)
    more.until("1 engine was added")
    pair.process.send_signal(signal.SIGINT)
    assert pair.ends() == 0
    assert more.ends() in (0, 1)


@pytest.mark.slow
def test_the_furl_may_come_by_standard_input_and_the_engines_end_with_it(pair: Run, tmp_path: Path) -> None:
    furl = (tmp_path / "security" / "ipcontroller-engine.furl").read_text()
    far = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "far")}
    process = subprocess.Popen(
        [*REAL, "engines", "-n", "1", "--mpi", "none", "--furl-file", "-"],
        env=far, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with process, MultiEngineClient() as mec:
        assert process.stdin is not None
        process.stdin.write(furl)
        process.stdin.flush()
        while len(mec.get_ids()) < 3:
            assert process.poll() is None
        (file,) = (tmp_path / "far" / "security").glob("engines-*.furl")
        assert file.stat().st_mode & 0o777 == 0o600
        process.stdin.close()
        assert process.wait(20) == 0
        assert not file.exists()


@pytest.mark.parametrize("text", ["", "hello\n", "ipmpi://rubbish\n"])
def test_no_furl_on_standard_input_is_explained(text: str) -> None:
    done = ask("engines", "-n", "1", "--furl-file", "-", stdin=text)
    assert done.returncode == 1
    assert "furl" in done.stderr


def test_a_cluster_on_another_machine_that_does_not_answer_can_be_forgotten(home: Path) -> None:
    files = {"mec": str(home / "mec.furl")}
    save(ClusterRecord("far", "local", 2, host="elsewhere", machine="another", furl_files=files))
    done = ask("stop")
    assert done.returncode == 1
    assert f"is run by process {os.getpid()} on elsewhere: log in there and stop it. Its controller" in done.stderr
    assert "mec.furl" in done.stderr
    assert "ipcluster stop --forget far" in done.stderr
    assert "the controller does not answer" in ask("status").stdout
    again = ask("-n", "1", *HERE, "--name", "far")
    assert again.returncode == 1
    assert ask("stop", "--forget", "far").returncode == 0
    assert records.living() == []


def test_a_cluster_that_runs_is_not_forgotten() -> None:
    save(ClusterRecord("here", "local", 2))
    done = ask("stop", "--forget", "here")
    assert done.returncode == 1
    assert "The cluster 'here' runs: stop it with ipcluster stop here" in done.stderr
    assert records.find("here").name == "here"


@pytest.mark.slow
def test_a_cluster_on_another_machine_is_stopped_through_its_controller(pair: Run) -> None:
    record = records.find()
    save(dataclasses.replace(record, host="elsewhere", machine="another"))
    done = ask("stop")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Told the controller of the cluster 'default' to stop, which runs on elsewhere." in done.stdout
    assert pair.ends() == 0


def dead(name: str, **details: Any) -> ClusterRecord:
    """The record of a process that was killed."""
    process = subprocess.Popen(["true"])
    process.wait()
    record = ClusterRecord(name, "slurm", 2, pid=process.pid, born=1, jobs=["3"], **details)
    save(record)
    return record


def test_of_a_cluster_reached_by_a_process_that_was_killed_it_is_said_where_to_stop_it() -> None:
    dead("near", ssh="me@login", far_name="big")
    done = ask("stop", "near")
    assert done.returncode == 1
    assert "had ended without a word; its record is deleted" in done.stderr
    assert "may go on: ssh me@login ipcluster stop big" in done.stderr
    assert records.living() == []


def test_what_cannot_be_stopped_does_not_keep_the_others_from_it() -> None:
    dead("a", batch="not-installed")
    dead("b", ssh="me@login", far_name="big")
    done = ask("stop", "--all")
    assert done.returncode == 1
    assert "there is no batch system 'not-installed'" in done.stderr
    assert [record.name for record in records.living()] == ["a"]


def test_a_cluster_that_ends_while_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = dead("a")
    monkeypatch.setattr(ClusterRecord, "is_alive", lambda self: True)
    assert manage.stop(record) == 0
    assert capsys.readouterr().out == "Stopped the cluster 'a'.\n"


@pytest.mark.parametrize(("skip", "shown"), [("0", ["one", ""]), ("1", [""])])
def test_events_are_followed_over_what_a_full_disk_has_left(home: Path, skip: str, shown: list[str]) -> None:
    over = json.dumps({"state": "over"})
    (home / "events").write_text(f'{{"say": "one"}}\n{{"say": "tw{{"say": "three"}}\n5\n{over}\n')
    save(ClusterRecord("x", "local", 2, events=str(home / "events")))
    done = ask("follow", "x", "--skip", skip)
    assert done.returncode == 0
    assert [json.loads(line).get("say", "") for line in done.stdout.splitlines()] == shown


def test_events_that_cannot_be_read_are_explained(home: Path) -> None:
    save(ClusterRecord("x", "local", 2, events=str(home / "nothing")))
    done = ask("follow", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ipcluster: What the cluster 'x' tells cannot be read: ")


def test_engines_cannot_be_added_through_ssh_from_here() -> None:
    save(ClusterRecord("near", "slurm", 2, ssh="me@login", far_name="far", host="elsewhere", machine="another"))
    done = ask("engines", "-n", "3")
    assert done.returncode == 1
    assert "The cluster 'near' is on me@login: log in there, and type ipcluster engines far -n 3" in done.stderr


def test_how_many_engines_to_add_has_to_be_said(home: Path) -> None:
    save(ClusterRecord("here", "local", 2, furl_files={"engine": str(home / "e"), "mec": str(home / "m")}))
    done = ask("engines")
    assert done.returncode == 1
    assert "how many engines? Say -n N" in done.stderr


def test_engines_on_this_machine_are_told_their_time_and_gpus() -> None:
    words = ["-n", "2", "--time", "1h30m", "--gpus", "4"]
    engines = engines_command._local(engines_command.parser().parse_args(words), Path("furl"), Path("log"), "1")
    assert engines.options.arguments == ("--walltime", "5400s", "--gpus", "4")
    engines = engines_command._local(
        engines_command.parser().parse_args(words[:2]), Path("furl"), Path("log"), "1"
    )
    assert engines.options.arguments == ()


@pytest.mark.slow
def test_two_clusters_with_names_do_not_disturb_each_other(ipcluster: Callable[..., Run], home: Path) -> None:
    runs = [ipcluster("-n", "1", *HERE, "--name", name, command=REAL) for name in ("one", "two")]
    for name, run in zip(("one", "two"), runs, strict=True):
        run.until("kill -INT")
        assert f"mec = client.MultiEngineClient(name={name!r})" in run.text
        with MultiEngineClient(name=name) as mec, TaskClient(name=name) as tc:
            assert mec.get_ids() == [0]
            mec.execute("import os; pid = os.getpid()")
            assert mec.pull("pid") == [tc.submit(os.getpid).result(20)]
    assert "Say which one is meant" in ask("stop").stderr
    assert ask("stop", "one").returncode == 0
    assert runs[0].ends() == 0
    assert runs[1].process.poll() is None
    again = ask("-n", "1", *HERE, "--name", "two")
    assert again.returncode == 1
    assert "A cluster 'two' is running already" in again.stderr


@pytest.mark.slow
def test_a_cluster_may_go_on_in_the_background() -> None:
    done = ask("-n", "1", *HERE, "--detach", "--name", "behind")
    assert done.returncode == 0, done.stderr
    assert "Your cluster is up and running." in done.stdout
    assert "\nipcluster stop behind\n" in done.stdout
    record = records.find("behind")
    with MultiEngineClient(record.furl_files["mec"]) as mec:
        assert mec.get_ids() == [0]
    events = ask("follow", "behind") if ask("stop", "behind").returncode else None
    assert events is None
    told = [json.loads(line) for line in Path(record.events).read_text().splitlines()]
    assert [event["state"] for event in told if "state" in event] == ["up", "over"]
    assert "OK: All processes cleaned up." in Path(record.log).read_text()


def test_a_detached_cluster_that_cannot_start_says_why() -> None:
    done = ask("-n", "1", "--launcher", "/nowhere/mpiexec", "--detach")
    assert done.returncode == 1
    assert "/nowhere/mpiexec cannot be run" in done.stderr
