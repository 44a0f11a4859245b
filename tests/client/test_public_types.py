"""What type checkers of users' programs know of the public surface."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

PROGRAM = """
from ipmpi.client import MultiEngineClient, StringTask, TaskClient

def price(volatility: float, days: int) -> float:
    return volatility * days

mec = MultiEngineClient("x")
tc = TaskClient("x")
reveal_type(mec.get_ids())
reveal_type(mec.push({"a": 1}, block=False))
reveal_type(mec.keys(block=True))
reveal_type(tc.submit(price, 0.2, 10).result())
reveal_type([each for each in tc.map(price, [0.1], [1])])
reveal_type(tc.map(price, [0.1], [1], return_exceptions=True))
reveal_type(tc.resubmit(tc.submit(price, 0.2, 10)).result())
reveal_type(tc.resubmit(5))
reveal_type(mec.keys(block=False).wall_time)
reveal_type(tc.run(StringTask("a = 1")))
reveal_type(tc.run(StringTask("a = 1"), block=True))
with tc.executor() as executor:
    reveal_type(executor.submit(price, 0.2, 10).result())
mec.execute(5)
"""
KNOWN = [
    "list[int]",
    "ipmpi.client.session.results.PendingResult[list[None]]",
    "list[list[str]]",
    "float",
    "list[float]",
    "list[float | BaseException]",
    "float",
    "int",
    "float | None",
    "int",
    "ipmpi.client.tasks.taskresult.TaskResult",
    "float",
]


def test_a_program_gets_the_types_of_its_functions_and_wrong_calls_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = Path(__file__).parents[2]
    monkeypatch.setenv("MYPYPATH", str(root))
    said, _, _ = api.run(["--config-file", str(root / ".mypy.ini"), "--cache-dir", str(tmp_path), str(program)])
    assert [text.replace("builtins.", "") for text in re.findall(r'Revealed type is "(.*)"', said)] == KNOWN, said
    assert re.findall(r"(\d+): error: (.*)", said) == [
        ("22", 'No overload variant of "execute" of "EngineCommands" matches argument type "int"  [call-overload]')
    ], said
