"""``ipcluster share``, ``revoke``, ``rotate`` and ``admit``, with a real cluster of two engines."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipmpi import furl
from ipmpi.client import Monitor, MultiEngineClient, TaskClient
from ipmpi.errors import FurlEnded, SecurityError
from tests.cli.running import REAL, ROOT, Run

pytestmark = [pytest.mark.timeout(180)]
WAIT = 60.0


class Cluster:
    """A cluster with the name ``sweep``, and its commands."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.run = Run(home, "-n", "2", "--mpi", "none", "--name", "sweep", *options, command=REAL)

    def __call__(self, *words: str) -> tuple[int, str]:
        """Exit code and screen of a command, which is run in an own folder."""
        done = subprocess.run(
            [sys.executable, "-m", "ipmpi.cli.ipcluster", *words], cwd=self.home, check=False, timeout=WAIT,
            env={**os.environ, "IPYTHONDIR": str(self.home), "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout

    def says(self, *words: str) -> str:
        """The screen of a command that works."""
        code, text = self(*words)
        assert code == 0, text
        return text

    def shared(self, *words: str) -> Path:
        """The file of a furl that is shared."""
        text = self.says("share", "sweep", *words)
        found = re.match(r"Wrote the furl ([a-z2-7]+) to (\S+)\. It ends at ", text)
        assert found is not None, text
        return Path(found[2])

    def file(self, role: str) -> Path:
        """A furl file of the controller."""
        return self.home / "security" / "sweep" / furl.FILES[role]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from started(Cluster(tmp_path_factory.mktemp("sharing")))


def started(made: Cluster) -> Iterator[Cluster]:
    try:
        made.run.until("kill -INT", WAIT)
        yield made
    finally:
        if made.run.process.poll() is None:
            made.run.process.terminate()
        assert made.run.ends(WAIT) == 0, made.run.text
        assert made.run.process.stdout is not None
        made.run.process.stdout.close()


def until_it_fails(call: Callable[[], object]) -> None:
    """Call again and again until the news is there."""
    while True:
        call()


def id_of(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def test_a_colleague_looks_until_the_furl_is_revoked_and_is_told_so(cluster: Cluster) -> None:
    path = cluster.shared("--for", "2h", "--note", "Ada")
    assert path == cluster.home / f"sweep-monitor-{id_of(path)}.furl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listed = cluster.says("share", "sweep", "--list")
    assert re.search(rf"{id_of(path)} +monitor +(1 h 59 min|2 h) +all +Ada", listed), listed
    assert furl.load(path).secret.hex() not in listed
    with Monitor(path) as theirs:
        assert theirs.get_ids() == [0, 1]
        assert cluster.says("revoke", "sweep", id_of(path)) == f"Ended: {id_of(path)}.\n"
        with pytest.raises(FurlEnded, match=rf"the furl {id_of(path)} has ended: it was revoked.*another") as told:
            until_it_fails(theirs.get_ids)
    assert "ask who gave you this one" in str(told.value)
    with pytest.raises(FurlEnded, match=r"has ended: it was revoked\. Ask who has given it to you for a new one"):
        Monitor(path)
    code, text = cluster("revoke", "sweep", id_of(path))
    assert (code, "has ended already: it was revoked" in text) == (1, True), text
    assert "Traceback" not in text


def test_a_furl_ends_by_itself(cluster: Cluster) -> None:
    path = cluster.shared("--for", "2s", "--role", "tasks")
    with TaskClient(path) as theirs, pytest.raises(FurlEnded, match="its time is over"):
        until_it_fails(lambda: theirs.submit(abs, -1).result(WAIT))
    assert id_of(path) not in cluster.says("share", "sweep", "--list")


def test_a_colleague_computes_within_bounds(cluster: Cluster) -> None:
    path = cluster.shared(
        "--role", "tasks", "--tasks", "3", "--bytes", "1M", "--engines", "1", "-o", "ada.furl", "--note", "Ada"
    )
    assert path == cluster.home / "ada.furl"
    with TaskClient(path) as theirs:
        assert theirs.map(abs, [-1, -2]) == [1, 2]
        with pytest.raises(FurlEnded, match="allows 3 tasks in all: 2 were used, and these are 2"):
            theirs.map(abs, [-1, -2])
    (row,) = [
        each for each in json.loads(cluster.says("share", "sweep", "--list", "--json")) if each["note"] == "Ada"
    ]
    assert (row["tasks"], row["bytes"][1], row["engines"]) == ([2, 3], 1 << 20, [1])
    assert "2 of 3 tasks" in cluster.says("share", "sweep", "--list")
    assert row["id"] in cluster.says("revoke", "sweep", "--all")


def test_a_furl_can_be_printed_and_is_all_that_is(cluster: Cluster) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ipmpi.cli.ipcluster", "share", "sweep", "-o", "-"], capture_output=True, text=True,
        env={**os.environ, "IPYTHONDIR": str(cluster.home), "PYTHONPATH": str(ROOT)}, timeout=WAIT, check=True,
    )  # fmt: skip
    with Monitor(done.stdout.strip()) as theirs:
        assert theirs.get_ids() == [0, 1]
    assert "It ends at" in done.stderr
    cluster.says("revoke", "sweep", "--all")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("share", "sweep", "--for", "400-00:00:00"), "at most 366 days"),
        (("share", "sweep", "--for", "0"), "more than 0 seconds"),
        (("share", "sweep", "--tasks", "5"), "say --role tasks"),
        (("share", "sweep", "-o", "/dev/null/a.furl"), "/dev/null"),
        (("share", "nosuch"), "nosuch"),
        (("revoke", "sweep", "aaaaaaaa"), "there is no furl 'aaaaaaaa': ipcluster share NAME --list shows all"),
        (("revoke", "sweep"), "which furls?"),
        (("admit", "sweep", "999"), "no engine set 999 waits"),
        (("admit", "sweep", "9", "--all"), "and not both"),
    ],
    ids=["a year", "no time", "monitor", "no folder", "no cluster", "no furl", "none named", "no set", "both"],
)
def test_what_cannot_be_is_said_in_a_sentence(cluster: Cluster, words: tuple[str, ...], said: str) -> None:
    before = cluster.says("share", "sweep", "--list")
    code, text = cluster(*words)
    assert (code in (1, 2), said in text) == (True, True), text
    assert "Traceback" not in text
    assert len(cluster.says("share", "sweep", "--list").splitlines()) == len(before.splitlines()), (
        "none is left over"
    )


def test_nobody_waits_to_be_admitted(cluster: Cluster) -> None:
    assert cluster.says("admit", "sweep") == "No engines wait.\n"
    assert cluster.says("admit", "sweep", "--all") == "None waits.\n"


def test_the_launch_of_the_cluster_has_a_furl_whose_places_are_taken(cluster: Cluster) -> None:
    rows = json.loads(cluster.says("share", "sweep", "--list", "--json"))
    assert [row["places"] for row in rows if row["role"] == "engine"] == [[2, 2]]
    (row,) = [row for row in rows if row["role"] == "engine"]
    code, text = cluster("revoke", "sweep", row["id"])
    assert (code, "there is no furl" in text) == (1, True), text


def test_new_secrets_let_nobody_in_with_the_former_ones(tmp_path: Path) -> None:
    for cluster in started(Cluster(tmp_path)):
        old = {role: furl.load(cluster.file(role)) for role in ("mec", "tc", "engine")}
        with MultiEngineClient(cluster.file("mec")) as mec, MultiEngineClient(cluster.file("mec")) as other:
            mec.execute("a = 5")
            said = cluster.says("rotate", "sweep")
            assert f"New furl of mec: {cluster.file('mec')}\n" in said
            assert "Who is connected stays connected" in said
            assert mec.pull("a") == [5, 5]
            assert other.pull("a") == [5, 5]
            for role, before in old.items():
                assert furl.load(cluster.file(role)).secret != before.secret
            with pytest.raises(FurlEnded, match="'mec' was replaced by a new one: copy the furl file again"):
                MultiEngineClient(str(old["mec"]))
            said = cluster.says("rotate", "sweep", "--now")
            assert "Sessions that were begun with the former furls have ended." in said
            with pytest.raises(FurlEnded, match=r"was replaced by a new one.*Copy the new furl file"):
                until_it_fails(lambda: mec.pull("a"))
        with MultiEngineClient(cluster.file("mec")) as new:
            assert new.pull("a") == [5, 5], "engines of ipcluster have a furl of their own and go on"
        with pytest.raises(SecurityError):
            MultiEngineClient(str(old["mec"]))


def test_engines_that_nobody_expects_are_admitted_or_refused(tmp_path: Path) -> None:
    for cluster in started(Cluster(tmp_path, "--admit", "ask")):
        engines = [
            subprocess.Popen(
                [sys.executable, "-m", "ipmpi.cli.ipengine", "--mpi", "none", "--name", "sweep"],
                env={**os.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]  # fmt: skip
        try:
            with MultiEngineClient(cluster.file("mec")) as mec:
                while len(mec.waiting_engines()) < 2:
                    pass
                assert mec.get_ids() == [0, 1]
                text = cluster.says("admit", "sweep")
                waiting = re.findall(
                    r"^(\d+): 1 engine on \S+, of user \S+, from .+ \(no launch of ipcluster\)", text, re.M
                )
                assert len(waiting) == 2, text
                assert "To admit them: ipcluster admit sweep SET, or --all" in text
                assert cluster.says("admit", "sweep", waiting[0]).startswith("Admitted: 1 engine in 1 set.")
                mec.wait_for_engines(3, WAIT)
                assert mec.execute("b = 1", targets=[2]) is not None
                assert cluster.says("admit", "sweep", "--all", "--refuse").startswith(
                    "Refused: 1 engine in 1 set."
                )
                assert mec.waiting_engines() == []
                assert len(mec.get_ids()) == 3
        finally:
            for engine in engines:
                engine.terminate()
                engine.wait(WAIT)


def test_local_engines_with_a_false_name_of_their_host_have_to_be_admitted(
    tmp_path: Path, need: Callable[[str, object], None]
) -> None:
    """As those that whoever has stolen the furl of a launch starts on another machine."""
    need("only root may give a process another name of its host", os.geteuid() == 0)
    elsewhere = ["unshare", "--uts", "sh", "-c", 'hostname evil; exec "$@"', "sh"]
    for cluster in started(Cluster(tmp_path)):
        with MultiEngineClient(cluster.file("mec")) as mec:
            (furl_file,) = (tmp_path / "security" / "sweep").glob("ipengine-*.furl")
            os.kill(mec.cluster_info()["engines"][0]["pid"], signal.SIGKILL)  # its place is free
            while len(mec.get_ids()) == 2:
                pass
            command = [sys.executable, "-m", "ipmpi.cli.ipengine", "--mpi", "none", "--furl-file", furl_file]
            thief = subprocess.Popen(
                [*elsewhere, *command],
                env={**os.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                cluster.run.until("and evil is not among these", WAIT)
                line = next(each for each in cluster.run.text.splitlines() if "evil" in each)
                where = (
                    rf"the launch sweep-\S+ runs on {re.escape(os.uname().nodename)}, and evil is not among these"
                )
                assert re.match(
                    r"ipcluster: engine set \d+ asks to be admitted: 1 engine on evil \(user \S+, from .*; "
                    rf"{where}\. .*--any-node",
                    line,
                ), line
                assert mec.get_ids() == [1]
                assert "1 engine on evil" in cluster.says("admit", "sweep")
                assert cluster.says("admit", "sweep", "--all", "--refuse").startswith("Refused: 1 engine")
                thief.wait(WAIT)
            finally:
                thief.kill()
                thief.wait(WAIT)
