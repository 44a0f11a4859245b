from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("IPython")
from IPython.core.interactiveshell import InteractiveShell

from ipmpi.client.engines.views import EngineView
from ipmpi.client.session.results import PendingResult, ResultList
from ipmpi.ipython import ParallelMagics, unload_ipython_extension
from ipmpi.ipython.magics import NO_ACTIVE_CONTROLLER


def printed(text: str) -> ResultList:
    return ResultList([{"input": {"translated": text, "raw": text}, "number": 1, "id": 0, "stdout": "out\n"}])


class FakeClient:
    def __init__(self) -> None:
        self.targets: Any = "all"
        self.executed: list[str] = []
        self.asked: list[int | None] = []

    def execute(self, lines: str) -> ResultList:
        if "fail" in lines:
            raise RuntimeError("engines failed")
        self.executed.append(lines)
        return printed(lines)

    def get_result(self, i: int | None = None) -> ResultList:
        self.asked.append(i)
        return printed("asked")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    shell.extension_manager.load_extension("ipmpi.ipython")
    yield shell
    unload_ipython_extension(shell)
    InteractiveShell.clear_instance()


@pytest.fixture
def client(shell: Any) -> FakeClient:
    client = FakeClient()
    magics(shell).active = client
    return client


def magics(shell: Any) -> ParallelMagics:
    found: ParallelMagics = shell.magics_manager.registry["ParallelMagics"]
    return found


def test_px_runs_the_line_and_names_the_targets(
    shell: Any, client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.targets = [0, 2]
    result = shell.run_line_magic("px", "a = 5")
    assert client.executed == ["a = 5"]
    assert repr(result) == "<Results List>\n[0] In [1]: a = 5\n[0] Out[1]: out\n\n"
    assert capsys.readouterr().out == "Parallel execution on engines: [0, 2]\n"


def test_px_in_a_cell_shows_the_results_list(
    shell: Any, client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%px a = 5")
    out = capsys.readouterr().out
    assert out.startswith("Parallel execution on engines: all\n")
    assert "<Results List>\n[0] In [1]: a = 5\n[0] Out[1]: out" in out


def test_px_leaves_braces_and_dollars_to_the_engines(shell: Any, client: FakeClient) -> None:
    shell.user_ns["x"] = "local"
    shell.run_cell("%px print(f'{x} $x')")
    assert client.executed == ["print(f'{x} $x')"]


def test_px_cell_runs_the_lines_below(shell: Any, client: FakeClient) -> None:
    shell.run_cell("%%px\na = 1\nb = 2\n")
    assert client.executed == ["a = 1\nb = 2\n"]


def test_px_cell_refuses_code_on_its_own_line(shell: Any, client: FakeClient) -> None:
    result = shell.run_cell("%%px a = 1\nb = 2\n")
    assert "below" in str(result.error_in_exec)
    assert client.executed == []


def test_result_asks_for_a_number_or_the_last(shell: Any, client: FakeClient) -> None:
    shell.run_line_magic("result", "3")
    shell.run_line_magic("result", "")
    assert client.asked == [3, None]


def test_result_explains_what_it_takes(shell: Any, client: FakeClient) -> None:
    result = shell.run_cell("%result one")
    assert "as in %result 3" in str(result.error_in_exec)


@pytest.mark.parametrize("command", ["px a=1", "result", "autopx"])
def test_without_an_active_client_the_magics_say_so(
    command: str, shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell(f"%{command}")
    assert capsys.readouterr().out.strip() == NO_ACTIVE_CONTROLLER


def test_autopx_sends_cells_until_it_is_switched_off(
    shell: Any, client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%autopx")
    assert capsys.readouterr().out == "Auto Parallel Enabled\nType %autopx to disable\n"
    shell.run_cell("# a comment\nhere = 1\nfor i in range(2):\n    print(i)")
    assert client.executed == ["# a comment\nhere = 1\nfor i in range(2):\n    print(i)\n"]
    assert "here" not in shell.user_ns
    assert capsys.readouterr().out.startswith("<Results List>\n[0] In [1]: # a comment")
    shell.run_cell("%autopx")
    assert capsys.readouterr().out == "Auto Parallel Disabled\n"
    shell.run_cell("here = 1")
    assert shell.user_ns["here"] == 1
    assert len(client.executed) == 1


def test_autopx_shows_a_syntax_error_here(
    shell: Any, client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%autopx")
    result = shell.run_cell("a = = 1")
    assert isinstance(result.error_before_exec, SyntaxError)
    assert client.executed == []
    shell.run_cell("a = 1")
    assert client.executed == ["a = 1\n"]


def test_autopx_shows_failures_and_goes_on(shell: Any, client: FakeClient) -> None:
    shell.run_cell("%autopx")
    assert isinstance(shell.run_cell("fail()").error_in_exec, RuntimeError)
    shell.run_cell("a = 1")
    assert client.executed == ["a = 1\n"]


def test_autopx_leaves_magics_here(shell: Any, client: FakeClient) -> None:
    shell.run_cell("%autopx")
    shell.run_cell("%time 1 + 1")
    shell.run_cell("%result 2")
    assert client.executed == []
    assert client.asked == [2]


def test_autopx_of_a_client_that_does_not_wait_loses_nothing(
    shell: Any, client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%autopx")
    futures: list[Future[Any]] = []

    def execute(lines: str) -> PendingResult:
        futures.append(Future())
        return PendingResult(client, futures[-1], lambda _: printed(lines), "execute")

    client.execute = execute  # type: ignore[method-assign, assignment]
    first = shell.run_cell("a = 1").result
    assert isinstance(first, PendingResult)
    assert first in shell.user_ns["Out"].values()
    assert "<PendingResult of execute: not done yet>" in capsys.readouterr().out
    shell.run_cell("b = 2")
    assert "Results List" not in capsys.readouterr().out
    futures[0].set_result(0)
    futures[1].set_exception(RuntimeError("engines failed"))
    shell.run_cell("c = 3")
    out = capsys.readouterr().out
    assert "<Results List>\n[0] In [1]: a = 1" in out
    assert "RuntimeError: engines failed" in out
    third = list(shell.user_ns["Out"].values())[-1]
    futures[2].set_result(0)
    assert repr(third.r).startswith("<Results List>\n[0] In [1]: c = 3")
    shell.run_cell("%autopx")
    assert "c = 3" not in capsys.readouterr().out  # it was seen


def test_unloading_brings_cells_back(shell: Any, client: FakeClient) -> None:
    shell.run_cell("%autopx")
    unload_ipython_extension(shell)
    shell.run_cell("here = 1")
    assert shell.user_ns["here"] == 1
    assert magics(shell).active is None


def test_activate_makes_a_client_the_target_of_the_magics(shell: Any) -> None:
    view = EngineView(calls=None, ids=[1, 2])  # type: ignore[arg-type]
    view.activate()
    assert magics(shell).active is view


def test_activate_outside_ipython_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    InteractiveShell.clear_instance()
    EngineView(calls=None).activate()  # type: ignore[arg-type]
    assert capsys.readouterr().out == "The IPython Controller magics only work within IPython.\n"
