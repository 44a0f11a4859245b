"""Which engine ``ipcluster debug`` means, and what it prints for VS Code."""

from __future__ import annotations

import json

import pytest

from ipmpi.cli.debug import engine_of, launch_json, parser
from ipmpi.errors import LauncherError

ENGINES = [{"id": 0, "rank": 0}, {"id": 1, "rank": 1}, {"id": 2, "rank": 0}]


def test_an_engine_by_rank_or_id() -> None:
    assert engine_of(ENGINES, 1, None) == 1
    assert engine_of(ENGINES, None, 2) == 2
    with pytest.raises(LauncherError, match=r"no engine of rank 7; `ipcluster status`"):
        engine_of(ENGINES, 7, None)
    with pytest.raises(LauncherError, match=r"no engine 7;"):
        engine_of(ENGINES, None, 7)
    with pytest.raises(LauncherError, match=r"engines 0, 2 have rank 0.*--engine 0"):
        engine_of(ENGINES, 0, None)


def test_one_of_the_two_has_to_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--rank", "1", "--engine", "1"]):
        with pytest.raises(SystemExit):
            parser().parse_args(words)
    assert "--rank" in capsys.readouterr().err


def test_what_is_printed_is_a_launch_json() -> None:
    (found,) = json.loads(launch_json(5678, 3, "/scratch/me"))["configurations"]
    assert (found["type"], found["request"]) == ("debugpy", "attach")
    assert found["connect"] == {"host": "127.0.0.1", "port": 5678}
    assert found["pathMappings"] == [{"localRoot": "${workspaceFolder}", "remoteRoot": "/scratch/me"}]
