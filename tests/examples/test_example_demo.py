"""The demonstration: its own cluster as a child process, its summary, its exit status."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def demo() -> Iterator[Any]:
    before = set(sys.modules)
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        yield __import__("demo")
    finally:
        sys.path.remove(str(ROOT / "examples"))
        for name in set(sys.modules) - before:
            if str(ROOT / "examples") in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def child(demo: Any, program: str, folder: Path) -> Any:
    return demo.Cluster([sys.executable, "-c", program], str(folder))


RUNS = """\
import signal
try:
    print('Your cluster is up and running.')
    signal.pause()
except KeyboardInterrupt:
    pass
"""


def test_a_cluster_is_started_in_its_own_folder_and_stopped(demo: Any, tmp_path: Path) -> None:
    cluster = child(demo, "import os\nprint(os.environ['IPYTHONDIR'])\n" + RUNS + "print('stopped')", tmp_path)
    cluster.wait_until_running(20)
    cluster.stop(20)
    assert cluster.said[0] == f"{tmp_path}\n"
    assert cluster._process.poll() == 0


def test_a_cluster_that_ends_at_once_is_shown_with_its_output(demo: Any, tmp_path: Path) -> None:
    cluster = child(demo, "import sys; print('no mpirun here'); sys.exit(3)", tmp_path)
    with pytest.raises(
        demo.StartError, match=r"ended before it was up, with exit status 3\. It printed:\n    no mpirun here"
    ):
        cluster.wait_until_running(20)
    with pytest.raises(demo.StartError, match="ended with exit status 3"):
        cluster.stop(20)


def test_a_cluster_that_never_comes_up_is_shown_with_its_output(demo: Any, tmp_path: Path) -> None:
    cluster = child(demo, "import signal\nprint('Starting engines:')\nsignal.pause()", tmp_path)
    assert cluster._lines.get(timeout=20) == "Starting engines:\n"
    with pytest.raises(
        demo.StartError, match=r"did not say 'up and running' within 0 s\. It printed:\n    Starting"
    ):
        cluster.wait_until_running(0.0)
    cluster.stop(20)  # Ctrl-C, which this program does not catch: a clean end as well


def test_a_cluster_that_does_not_stop_is_killed_and_reported(demo: Any, tmp_path: Path) -> None:
    program = (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('up and running')\nsignal.pause()"
    )
    cluster = child(demo, program, tmp_path)
    cluster.wait_until_running(20)
    with pytest.raises(demo.StartError, match="did not stop within 0 s after Ctrl-C and was killed"):
        cluster.stop(0.01)
    assert cluster._process.poll() is not None


def check(name: str, outcome: object) -> types.ModuleType:
    """An example that passes, fails or raises."""
    module = types.ModuleType(name, "Title.\n\nMore.")

    def main(mec: object, tc: object, screen: Any) -> bool:
        if isinstance(outcome, Exception):
            raise outcome
        return bool(screen.result(f"figure of {name}", outcome))

    module.main = main  # type: ignore[attr-defined]
    return module


def test_a_check_that_raises_is_failed_and_the_next_one_runs(demo: Any) -> None:
    screen = demo.Screen(io.StringIO())
    checks = (check("one", True), check("two", ValueError("broken\nbadly")), check("three", False))
    rows = demo.run_checks(checks, None, None, screen)
    assert [(row.check, row.passed, row.figure) for row in rows] == [
        ("one", True, "figure of one"),
        ("two", False, "ValueError: broken"),
        ("three", False, "figure of three"),
    ]
    assert "Traceback" in screen.stream.getvalue()
    demo.summary(rows, screen)
    table = screen.stream.getvalue().split("Summary\n")[1].splitlines()
    assert table[0].split() == ["check", "seconds", "figure", "outcome"]
    assert [line.split()[-1] for line in table[1:]] == ["passed", "FAILED", "FAILED"]


@pytest.mark.parametrize(("outcome", "status"), [(True, 0), (False, 1), (ValueError("broken"), 1)])
def test_the_exit_status_tells_whether_all_checks_passed(
    demo: Any, outcome: object, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(demo.CHECKS, "main", (check("one", True), check("two", outcome)))
    monkeypatch.setattr(demo, "connect", lambda folder, expected, screen: (None, None))
    assert demo.run(["--connect"]) == status
    assert ("2 of 2 checks" if status == 0 else "1 of 2 checks") in capsys.readouterr().out


def test_a_cluster_that_cannot_start_gives_a_story_and_status_1(
    demo: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    popen = demo.Cluster
    monkeypatch.setattr(
        demo, "Cluster", lambda command, folder: popen([sys.executable, "-c", "print('no MPI')"], folder)
    )
    assert demo.run(["-n", "2"]) == 1
    out = capsys.readouterr().out
    assert "$ ipcluster -n 2" in out
    assert "FAILED: the cluster ended before it was up, with exit status 0. It printed:\n    no MPI" in out


@pytest.mark.slow
def test_a_demonstration_that_hangs_is_ended_and_its_cluster_stopped(
    demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hanging = check("hanging", True)
    hanging.main = lambda mec, tc, screen: threading.Event().wait()  # type: ignore[attr-defined]
    clusters = [child(demo, RUNS + "print('stopped')", tmp_path)]
    monkeypatch.setattr(demo, "Cluster", lambda command, folder: clusters[0])
    monkeypatch.setattr(demo, "connect", lambda folder, expected, screen: (None, None))
    monkeypatch.setattr(demo, "ALL_SECONDS", 1)
    monkeypatch.setitem(demo.CHECKS, "main", (hanging, check("never", True)))
    assert demo.run([]) == 1
    out = capsys.readouterr().out
    assert "the cluster was working for too long. It printed:\n    Your cluster is up and running." in out
    assert "FAILED: the demonstration was not done after 1 s" in out
    assert "never" not in out
    assert clusters[0]._process.poll() == 0


def test_a_cluster_without_its_engines_is_shown_with_its_output(
    demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def connect(folder: object, expected: int, screen: object) -> None:
        raise demo.StartError(f"{expected} engines were expected, and the engines there are [0]")

    clusters = [child(demo, RUNS, tmp_path)]
    monkeypatch.setattr(demo, "Cluster", lambda command, folder: clusters[0])
    monkeypatch.setattr(demo, "connect", connect)
    assert demo.run(["-n", "3"]) == 1
    assert "3 engines were expected, and the engines there are [0]. It printed:\n" in capsys.readouterr().out


def test_unknown_options_go_to_ipcluster_but_not_to_a_running_cluster(demo: Any) -> None:
    chosen, extra = demo.parse(["-n", "3", "--mpi=mpi4py"])
    assert (chosen.num, extra) == (3, ["--mpi=mpi4py"])
    with pytest.raises(SystemExit):
        demo.parse(["--connect", "--mpi=mpi4py"])
    with pytest.raises(SystemExit):
        demo.parse(["-n", "0"])


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_demonstration_passes_on_a_real_cluster(need: Callable[[str, object], None]) -> None:
    for name in ("ipmpi.cli.ipcontroller", "ipmpi.cli.ipcluster"):
        need(f"{name} is not written yet", importlib.util.find_spec(name))
    environment = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py"), "-n", "4", "--all"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"passed: 9 of 9 checks, \d", done.stdout)
    assert "\033" not in done.stdout
