"""The command line of ipcluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ipmpi.cli import ipcluster
from ipmpi.cli.local import engine_options, keep_engines_here, parser
from ipmpi.cli.options import claimed, controller_arguments, keeps_furl
from ipmpi.errors import LauncherError
from ipmpi.launch.cluster.local import EngineOptions, engine_commands


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def options(*arguments: str) -> EngineOptions:
    parsed = parser().parse_args(arguments)
    with claimed(parsed, "local", parsed.n) as record:
        furl_file = Path(record.furl_files["engine"])
        return engine_options(parsed, furl_file, Path(record.log_dir), record.run, keeps_furl(parsed))


@pytest.mark.parametrize("arguments", [["-n", "4"], ["local", "-n", "4"], ["mpiexec", "--n", "4"], ["--num", "4"]])
def test_all_ways_to_ask_for_four_engines(arguments: list[str]) -> None:
    assert options(*arguments).n == 4


def test_defaults(home: Path) -> None:
    found = options()
    assert found.n == 2
    assert found.log_dir == home / "log" / "default"
    assert found.engine_furl_file == home / "security" / "default" / "ipcontroller-engine.furl"
    assert not found.waits


def test_options_of_the_controller_are_passed_on(home: Path) -> None:
    words = ["--client-ip", "0.0.0.0", "--client-port", "10105", "--engine-port", "10201"]
    files = [
        word
        for name, role in (("multiengine", "mec"), ("task", "tc"), ("monitor", "monitor"))
        for word in (f"--{name}-furl-file", str(home / "security" / "big" / f"ipcontroller-{role}.furl"))
    ]
    assert controller_arguments(parser().parse_args(words), "big") == [*words, *files]
    assert options(*words).waits


@pytest.mark.parametrize("number", ["0", "-1", "many", "100000"])
def test_an_impossible_number_of_engines_is_refused(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        options("-n", number)
    assert end.value.code == 2
    assert "is not a number of engines (1 to 65536)" in capsys.readouterr().err


def test_options_for_the_launcher_and_the_gpus() -> None:
    found = options(
        *("--launcher-option=--cpu-bind cores", "--launcher-option=-v", "--fault-tolerance", "off"),
        *("--gpus", "2", "--gpu-order", "1, 0"),
    )
    assert found.launcher_options == ("--cpu-bind", "cores", "-v")
    assert found.fault_tolerance == "off"
    assert found.arguments == ("--gpus", "1,0")
    assert options("--gpus", "2").arguments == ("--gpus", "2")
    assert options("--comm", "polled", "--gpus", "2").arguments == ("--gpus", "2", "--comm", "polled")
    assert options("--on-loss", "abort").arguments == ("--on-loss", "abort")
    assert options().arguments == ()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--gpu-order", "2"], "'2' is no order of GPUs: give their numbers, as in 3,2,1,0"),
        (["--gpu-order", "1,1"], "'1,1' is no order of GPUs"),
        (["--gpu-order", "1,x"], "'1,x' is no order of GPUs"),
        (["--launcher-option", "--x 'y"], "No closing quotation"),
        (["--launcher-option", " "], "' ' is no option of a launcher"),
        (["--fault-tolerance", "perhaps"], "invalid choice"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options(*words)
    assert complaint in capsys.readouterr().err


def test_without_mpi_there_is_no_launcher_to_get_options() -> None:
    with pytest.raises(LauncherError, match="--mpi none starts none: leave out one of them"):
        engine_commands(options("--mpi", "none", "--launcher-option=-v"), {})


@pytest.mark.parametrize(
    ("words", "environ", "ip"),
    [
        ([], {}, "localhost"),
        (["--engine-ip", "0.0.0.0"], {}, "0.0.0.0"),
        (["--engine-port", "10201"], {}, None),
        (["--engine-location", "login1"], {}, None),
        (["--launcher-option=--hostfile hosts"], {}, None),
        ([], {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n1"}, None),
    ],
)
def test_engines_of_one_machine_need_no_port_to_the_network(
    words: list[str], environ: dict[str, str], ip: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    parsed = parser().parse_args(words)
    keep_engines_here(parsed)
    assert parsed.engine_ip == ip


def test_without_mpi_there_is_one_command_for_each_engine() -> None:
    commands = engine_commands(options("-n", "3", "--mpi", "none", "--logdir", "/l"), {})
    assert len(commands) == 3
    assert commands[0].argv[1:3] == ["-m", "ipmpi.cli.ipengine"]
    assert re.fullmatch(r"/l/ipengine-\d{8}-\d{6}-\d+-", commands[0].argv[commands[0].argv.index("-l") + 1])
    assert commands[0].argv[commands[0].argv.index("--mpi") + 1] == "none"


def test_windows_is_refused_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ipcluster.sys, "platform", "win32")
    assert ipcluster.main(["-n", "2"]) == 1
    assert "WSL" in capsys.readouterr().err
