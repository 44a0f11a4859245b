"""The Tab key completes what can be typed: in a real bash."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from ipmpi.cli import ipcluster


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bash") / "completion"
    with path.open("w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", file)
        assert ipcluster.main(["completion", "bash"]) == 0
    return path


def completed(script: Path, line: str) -> set[str]:
    """What bash offers for the last word of a command line."""
    words = line.split(" ")
    code = (
        f"set -e; source {script}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; "
        f"_shtab_{words[0]}; "
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd=script.parent)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ipcluster do", {"doctor"}),
        ("ipcluster slurm --wall", {"--walltime"}),
        ("ipcluster local --mpi no", {"none"}),
        ("ipcluster pbs --template comp", {"completion"}),
        ("ipcontroller --engine-p", {"--engine-port"}),
        ("ipengine --furl-file comp", {"completion"}),
        ("ipcluster completion z", {"zsh"}),
    ],
)
def test_what_bash_offers(script: Path, line: str, offered: set[str]) -> None:
    assert completed(script, line) == offered


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ipcluster.main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert "walltime" in said
    assert "ipengine" in said
