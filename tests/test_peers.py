"""``python -m benchmarks``: how it judges, systems that fail or hang, and a short real comparison."""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from benchmarks import __main__ as command, alone, bulkrates, comparisontable, elsewhere, rows, turn, turns
from benchmarks.bigpush import BigPush, big_rows
from benchmarks.comparison import Comparison, may_begin, shown, summary
from benchmarks.systems import RUNNING, SYSTEMS, Entry
from benchmarks.systems.calls import meet, part
from benchmarks.systems.system import System
from benchmarks.turns import Turn, turn_of
from ipmpi.bench import machine
from ipmpi.launch.processes.mpi import find_mpi

ROOT = Path(__file__).parents[1]


def compared(*rounds: dict[str, dict[str, list[float]]], keys: Sequence[str] = ("execute_one",)) -> Comparison:
    """A comparison of rounds, each of which is system -> row -> seconds."""
    found = Comparison(dict.fromkeys(name for each in rounds for name in each), keys)
    for each in rounds:
        found.begin_round()
        for name, seconds in each.items():
            found.add(name, Turn(seconds, {}, {"execute_one": f"{name}.call()"}))
    return found


# --- Statistics and choices ----------------------------------------------------------------------------------


def test_a_summary_has_the_median_and_the_quartiles() -> None:
    assert summary([5.0, 1.0, 3.0, 2.0, 4.0]) == (2.0, 3.0, 4.0, 5)
    assert summary([7.0]) == (7.0, 7.0, 7.0, 1)
    with pytest.raises(ValueError, match="no median of no samples"):
        summary([])


def test_ours_is_compared_with_the_quickest_of_the_others_in_each_round() -> None:
    found = compared(
        {"ipmpi": {"execute_one": [1.0]}, "slow": {"execute_one": [9.0]}, "quick": {"execute_one": [2.0]}},
        {"ipmpi": {"execute_one": [2.0]}, "slow": {"execute_one": [1.5]}, "quick": {"execute_one": [3.0]}},
        {"ipmpi": {"execute_one": [1.0]}, "slow": {"execute_one": [9.0]}, "quick": {"execute_one": [4.0]}},
        {"slow": {"execute_one": [9.0]}, "quick": {"execute_one": [3.0]}},  # a round without ours has no ratio
    )
    best = found.against("execute_one")
    assert best is not None
    assert (best.peer, best.ratio, best.lowest, best.highest) == ("quick", 3.0, 1.5, 4.0)


def test_without_ours_or_without_others_there_is_no_ratio() -> None:
    assert compared({"ipmpi": {"execute_one": [1.0]}}).against("execute_one") is None
    assert compared({"other": {"execute_one": [1.0]}}).against("execute_one") is None


def test_rounds_go_back_and_forth_and_leave_out_what_has_failed() -> None:
    found = Comparison(["a", "b", "c"], ["execute_one", "gather"])
    assert found.begin_round() == ["a", "b", "c"]
    found.add("a", Turn(failed={"gather": "TypeError: no"}))
    found.add("b", Turn(why="ended with exit code 1 before it was ready"))
    assert found.begin_round() == ["c", "a"]
    assert found.rows_for("a") == ["execute_one"]
    assert found.rows_for("c") == ["execute_one", "gather"]
    assert comparisontable.failures(found) == [
        "a: gather: failed: TypeError: no",
        "b: left out: ended with exit code 1 before it was ready",
    ]


def test_what_may_hang_comes_last() -> None:
    keys = Comparison(["a"], [row.key for row in rows.ROWS]).rows_for("a")
    assert sorted(keys) == sorted(row.key for row in rows.ROWS)
    assert keys[-4:] == ["gather", "scatter", "pull_one", "push_all"]


@pytest.mark.parametrize(
    ("rounds", "longest", "left", "begins"),
    [(0, 0.0, -1.0, True), (1, 60.0, 61.0, True), (1, 60.0, 59.0, False), (3, 1.0, 100.0, False)],
)
def test_a_round_begins_where_it_will_end_in_time(rounds: int, longest: float, left: float, begins: bool) -> None:
    assert may_begin(rounds, 3, longest, left) is begins


def test_as_many_tasks_as_take_a_while_but_not_too_many() -> None:
    assert rows.tasks_for(100, 0.1) == 300
    assert rows.tasks_for(100, 60.0) == rows.TRIAL_TASKS
    assert rows.tasks_for(100, 0.0) == rows.MOST_TASKS


def test_a_time_is_told_in_the_unit_of_its_row() -> None:
    assert shown(0.002, rows.BY_KEY["execute_one"]) == 2.0
    assert shown(0.5, rows.BY_KEY["start"]) == 0.5
    assert shown(0.001, rows.BY_KEY["tasks_map"]) == 1000.0


def test_rates_between_machines_stand_beside_one_stream_and_beside_the_others() -> None:
    found = compared(
        {
            "one TLS stream": {"push_all": [0.1]},
            "ipmpi": {"push_all": [0.125], "pull_one": [0.2]},
            "Dask with TLS": {"push_all": [0.25]},
        },
        keys=("push_all", "pull_one", "gather"),
    )
    rates = bulkrates.rates(found, 100_000_000)
    assert [row["ratio"] for row in rates] == [
        {"one TLS stream": 0.8, "Dask with TLS": 2.0},
        {"one TLS stream": 0.5},  # the stream is as quick in the other direction
        {},
    ]
    heading, push, pull, gather = bulkrates.rate_rows(rates)
    assert heading[1:] == ["ipmpi", "Dask with TLS", "ratio", "one TLS stream", "ratio"]
    assert push == ["push 100 MB to all", "0.8", "0.4", "2", "1", "0.8"]
    assert pull == ["pull 100 MB from one", "0.5", "", "", "1", "0.5"]
    assert gather[1] == "failed"


# --- Tables --------------------------------------------------------------------------------------------------


def test_tables_say_who_was_best_what_failed_and_which_calls_were_used() -> None:
    found = compared({"ipmpi": {"execute_one": [0.001]}, "peer": {"execute_one": [0.004]}, "broken": {}})
    found.add_failure("broken", "not installed")
    found.failed["hung"] = {"execute_one": "gave up after 20 s"}
    found.systems.append("hung")
    text = comparisontable.text(found, 100, 4)
    assert "broken: left out: not installed" in text
    assert "hung: execute_one: failed: gave up after 20 s" in text
    lines = [line.split() for line in text.splitlines() if line.startswith("execute on one")]
    assert lines[0] == ["execute", "on", "one", "ms", "1", "4", "failed"]
    assert lines[1][3:] == [
        "1",
        "ms",
        "(1",
        "to",
        "1)",
        "peer",
        "4",
        "ms",
        "(4",
        "to",
        "4)",
        "4",
        "(4",
        "to",
        "4)",
    ]
    assert "``peer.call()``" in comparisontable.rst(found, 100, 4)


def test_the_text_for_the_documentation_is_restructuredtext() -> None:
    core = pytest.importorskip("docutils.core")
    found = compared({"ipmpi": {"execute_one": [0.001]}, "peer": {"execute_one": [0.004]}, "gone": {}})
    found.add_failure("gone", "not installed")
    text = comparisontable.rst(found, 100, 4) + "\n\n"
    text += comparisontable.list_table(big_rows([("here", BigPush(4 * 10**9, 2.0, 1.5, 0.4, 3.0, 90))]))
    html = core.publish_string(text, writer="html", settings_overrides={"halt_level": 2, "report_level": 2})
    assert html.count(b"<table") == 4
    assert b"90" in html


# --- What a turn tells ---------------------------------------------------------------------------------------


def test_a_turn_that_came_to_its_end_has_its_rows_and_calls() -> None:
    told = [{"calls": {"gather": "g()"}}, {"begun": "gather"}, {"row": "gather", "seconds": [1.0]}, {"end": True}]
    turned = turn_of(map(json.dumps, told), "gave up after 9 s", ["some warning"])
    assert turned == Turn({"gather": [1.0]}, {}, {"gather": "g()"})  # it was slow to end, which is no failure


def test_a_turn_that_was_cut_keeps_what_it_had_and_names_the_row_that_it_was_in() -> None:
    told = [{"begun": "push_all"}, {"row": "push_all", "seconds": [1.0]}, {"begun": "gather"}]
    turned = turn_of(
        [*map(json.dumps, told), '{"row": "gath'], "gave up after 9 s", ["first", "no more memory", ""]
    )
    assert turned.seconds == {"push_all": [1.0]}
    assert turned.failed == {"gather": "gave up after 9 s"}
    assert turned.why == "gave up after 9 s in gather: no more memory"


class Odd(System):
    """A system with one row that works, one that raises, and one that hangs."""

    calls: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ["execute_one", "execute_all", "pull_one", "submit_result"], "f()"
    )

    def close(self) -> None:
        pass

    def execute_one(self) -> object:
        return None

    def execute_all(self) -> object:
        raise RuntimeError("no scheduler here\nmore")

    def prepare_pull(self, size: int) -> None:
        pass

    def pull_one(self) -> Any:
        return part(0, 1, 8)

    def submit_result(self) -> object:
        time.sleep(100)
        return None


def test_a_row_that_fails_leaves_the_others_and_one_that_hangs_ends_the_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn, "ROW_LIMIT", 0.5)
    told: list[dict[str, Any]] = []
    keys = ["execute_all", "execute_one", "pull_one", "submit_result", "execute_one"]
    turn.measure(Odd(), [rows.BY_KEY[key] for key in keys], part(0, 1, 80), told.append)
    done = [each for each in told if "row" in each]
    assert done[0] == {"row": "execute_all", "failed": "RuntimeError: no scheduler here"}
    assert len(done[1]["seconds"]) == 100
    assert done[2] == {"row": "pull_one", "failed": "WrongData: what came back is not what was sent"}
    assert done[3:] == [{"row": "submit_result", "failed": "gave up after 0.5 s"}]


def test_workers_that_do_not_all_come_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    meet(str(tmp_path), 1)
    monkeypatch.setattr("benchmarks.systems.calls.MEETING_SECONDS", 0.0)
    with pytest.raises(TimeoutError, match="1 of 2 workers came"):
        meet(str(tmp_path), 2)


def turn_elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path, served: Any, turned: Turn) -> Turn:
    """The turn of a system that ``served`` starts; its client, on the other machine, has this turn."""
    monkeypatch.setattr(elsewhere, "_SERVERS", {"Dask with TLS": served})
    monkeypatch.setattr(turns, "take", lambda *_, **__: turned)
    options = elsewhere.parser().parse_args([])
    nodes: Any = SimpleNamespace(enter=folder / "enter")
    return elsewhere._turn("Dask with TLS", ["push_all"], nodes, folder, options)


def test_a_system_elsewhere_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @contextlib.contextmanager
    def served(engines: int, size: int) -> Iterator[dict[str, str]]:
        raise OSError(f"no port for {engines} workers")
        yield {}

    turned = turn_elsewhere(monkeypatch, tmp_path, served, Turn())
    assert turned == Turn(why="OSError: no port for 4 workers")


@pytest.mark.parametrize(("why", "told"), [("", "TimeoutError: a worker stays"), ("gave up", "gave up")])
def test_a_system_elsewhere_that_does_not_end_keeps_what_it_had(
    why: str, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @contextlib.contextmanager
    def served(_engines: int, _size: int) -> Iterator[dict[str, str]]:
        yield {}
        raise TimeoutError("a worker stays")

    had: dict[str, list[float]] = {"push_all": [1.0]}
    assert turn_elsewhere(monkeypatch, tmp_path, served, Turn(had, why=why)) == Turn(had, why=told)


@pytest.mark.parametrize("is_written", [True, False])
def test_what_was_measured_elsewhere_before_it_hung_is_kept(
    is_written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {"failed": {"Dask with TLS": {"gather": "gave up"}}, "rates": []}

    def hang(words: list[str], **_: object) -> None:
        if is_written:
            Path(words[words.index("--json") + 1]).write_text(json.dumps(record))
        raise subprocess.TimeoutExpired(words, 400)

    monkeypatch.setattr(command.subprocess, "run", hang)
    run = command.Run(command.parser().parse_args(["elsewhere", "--big", "1MB"]))
    run._elsewhere()
    assert run.elsewhere == (record if is_written else {})
    notes = ["elsewhere: Dask with TLS: gather: gave up"] if is_written else []
    assert run.notes == ["elsewhere: gave up after 400 s", *notes]


def test_dask_leaves_the_environment_of_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(_engines: int, _host: str) -> tuple[Any, dict[str, str]]:
        os.environ["MALLOC_TRIM_THRESHOLD_"] = "65536"
        return SimpleNamespace(close=lambda: None), {}

    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setitem(sys.modules, "benchmarks.systems.daskcluster", SimpleNamespace(serve=serve))
    with elsewhere._SERVERS["Dask with TLS"](4, 1000):
        assert "MALLOC_TRIM_THRESHOLD_" not in os.environ


def test_each_system_elsewhere_can_be_started() -> None:
    assert set(elsewhere._SERVERS) == set(RUNNING)


# --- Processes -----------------------------------------------------------------------------------------------


def test_a_system_that_fails_tells_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        turns, "_command", lambda *_, **__: ([sys.executable, "-c", "raise SystemExit('no scheduler here')"], {})
    )
    turned = turns.take("Dask", SYSTEMS["Dask"], ["execute_one"], 2, 1000)
    assert turned.why == "ended with exit code 1 before it was ready: no scheduler here"


def test_a_system_that_hangs_is_ended_with_all_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # setsid, as some systems do: it is not in the group of what was started
    pid_file = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 100' & wait"
    monkeypatch.setattr(turns, "_command", lambda *_, **__: (["sh", "-c", script], {}))
    turned = turns.take("Dask", SYSTEMS["Dask"], ["execute_one"], 2, 1000, limit=1.0)
    assert turned.why == "gave up after 1 s before it was ready"
    pid, end = int(pid_file.read_text()), time.monotonic() + 60
    while machine.resident_bytes(pid):  # SIGKILL takes its time; what is dead has no memory
        assert time.monotonic() < end, "it outlives the measurement"


def test_a_network_of_its_own_has_only_the_loopback_interface() -> None:
    if refused := alone.why_not():
        pytest.skip(refused)
    done = subprocess.run([*alone.prefix(), "ip", "-o", "link"], capture_output=True, text=True, check=True)
    assert [line.split()[1] for line in done.stdout.splitlines() if "UP" in line] == ["lo:"]


@pytest.mark.parametrize("name", [*SYSTEMS, *(f"running {name}" for name in RUNNING)])
def test_each_system_does_the_rows_that_it_says_it_does(name: str) -> None:
    entry = RUNNING[name.removeprefix("running ")] if name.startswith("running ") else SYSTEMS[name]
    try:
        class_: Any = entry.load()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    assert issubclass(class_, System)
    for key in class_.calls:
        assert rows.BY_KEY[key].kind != "start"
        assert getattr(class_, key) is not getattr(System, key)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["plants"], "'plants' is none of limits, peers, elsewhere, big"),
        (["--systems", "Dask,Hadoop"], "'Hadoop' is none of ipmpi"),
        (["--rows", "fly"], "'fly' is none of start"),
        (["-n", "0"], "'0' is not a number above 0"),
        (["--transfer", "big"], "'big' is not a size"),
        (["--minutes", "soon"], "invalid float value"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_compared_is_refused(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(words)
    assert why in capsys.readouterr().err


def test_a_system_that_is_not_installed_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(command.SYSTEMS, "Ray", Entry("rayactors:Ray", "no_such_package"))
    assert command.main(["peers", "--systems", "Ray", "--rounds", "1"]) == 0
    assert "Ray: left out: not installed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.mpi
def test_pools_and_ipmpi_do_the_same_work_in_turns(tmp_path: Path, need: Any) -> None:
    need("an mpiexec", find_mpi())
    record, tables = tmp_path / "peers.json", tmp_path / "peers.rst"
    words = [
        "peers",
        "-n",
        "2",
        "--rounds",
        "1",
        "--transfer",
        "100KB",
        "--json",
        str(record),
        "--rst",
        str(tables),
    ]
    words += ["--systems", "ipmpi,concurrent.futures,mpi4py.futures"]
    words += ["--rows", "start,execute_one,push_all,pull_one,gather"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True, timeout=300,
        check=False, env={**os.environ, "IPYTHONDIR": str(tmp_path), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(record.read_text())["comparison"]
    assert found["failed"] == {}, done.stdout
    for row in found["rows"]:
        assert list(row["systems"]) == ["ipmpi", "concurrent.futures", "mpi4py.futures"], row["key"]
        assert row["best_peer"]["peer"] != "ipmpi"
    samples = found["rounds"][0]["ipmpi"]["execute_one"]
    assert found["rows"][1]["systems"]["ipmpi"]["median"] == pytest.approx(statistics.median(samples))
    assert "best of the others" in tables.read_text()
    assert list(tmp_path.glob("ipmpi-bench*")) == []


def test_what_hides_from_its_starter_ends_with_it() -> None:
    if refused := alone.why_not():
        pytest.skip(refused)
    mark = f"{random.uniform(300, 400):.9f}"
    leaves = f"setsid env -i sleep {mark} >/dev/null 2>&1 & while ! grep -q {mark} /proc/$!/cmdline; do :; done"
    subprocess.run([*alone.prefix(), "sh", "-c", leaves], check=True, timeout=60)
    left = [each for each in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in _read(each)]
    assert not left


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # it has ended
        return b""
