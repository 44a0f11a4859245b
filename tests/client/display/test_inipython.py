from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("IPython")

from ipmpi.client.display.inipython import fold_failures
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.failures import raise_failures
from ipmpi.errors import CompositeError
from ipmpi.protocol.operations import Failed, Nothing
from tests.ipython_here import ipython

FAILED = Failed("ZeroDivisionError", "x", 'Traceback (most recent call last):\n  File "<ipmpi 1>", line 1, in f\n')


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with ipython(tmp_path, monkeypatch, with_ipmpi=False) as shell:
        shell.colors = "nocolor"
        replies = [EngineReply(rank, rank > 3, Nothing() if rank > 3 else FAILED, []) for rank in range(64)]
        shell.user_ns["fail"] = lambda: raise_failures(replies, "execute")
        yield shell


def test_a_failure_of_many_ranks_is_a_few_lines(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fold_failures()
    fold_failures()
    shown = shell.run_cell("def f():\n    fail()\nf()")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("CompositeError: one or more exceptions from call to method: execute")
    assert [line.strip() for line in lines[-4:]] == [
        "[0-3] Traceback (most recent call last):",
        'File "<ipmpi 1>", line 1, in f',
        "ZeroDivisionError: x",
        "[4-63] finished",
    ]
    assert len(lines) <= 8
    assert "failures.py" not in "\n".join(lines)
    assert isinstance(shown.error_in_exec, CompositeError)
    assert sys.last_value is shown.error_in_exec


def test_a_handler_of_the_users_stays(shell: Any) -> None:
    shell.set_custom_exc((KeyError,), lambda *_: None)
    fold_failures()
    assert shell.custom_exceptions == (KeyError,)
