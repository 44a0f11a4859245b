"""The sub-commands of ipcluster are found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ipmpi.cli import ipcluster
from ipmpi.cli.ipcluster import COMMANDS, Command, main, split


@pytest.mark.parametrize(
    ("words", "command", "rest"),
    [
        ([], "local", []),
        (["-n", "4"], "local", ["-n", "4"]),
        (["-n", "4", "local"], "local", ["-n", "4", "local"]),
        (["stop", "big"], "stop", ["big"]),
    ],
)
def test_options_alone_mean_engines_on_this_machine(words: list[str], command: str, rest: list[str]) -> None:
    assert split(words) == (command, rest)


def test_an_unknown_command_is_answered_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["start"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ipcluster: 'start' is no command. There are: local, ")
    assert all(command in said for command in COMMANDS)


def test_a_command_that_this_build_lacks_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipcluster, "COMMANDS", {"fly": Command("no_such_module", "")})
    assert main(["fly"]) == 1
    assert capsys.readouterr().err == "ipcluster: 'ipcluster fly' is not in this build of ipmpi\n"


def test_help_shows_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert all(f"  {command} " in said for command in COMMANDS)
    assert "--launcher" in said


def test_a_reader_that_has_enough_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "ipmpi.cli.ipcluster", "slurm", "-n", "4", "--time", "1h", "--dry-run"],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
