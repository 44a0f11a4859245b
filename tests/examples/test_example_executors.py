"""The examples for executors: right on any executor, and wrong results are noticed."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL: dict[str, dict[str, int]] = {
    "executor_pi": {"strips": 20_000, "blocks": 7},
    "executor_primes": {"limit": 10_000, "step": 700},
    "executor_julia": {"width": 40, "height": 30},
    "executor_run_workers": {"parts": 4},
}
each_example = pytest.mark.parametrize("name", SMALL)


@pytest.fixture(scope="module")
def examples() -> Iterator[SimpleNamespace]:
    """All these modules by their names; the folder is on sys.path only for as long as the tests run."""
    names = ["screen", "executors", *SMALL]
    before = dict(sys.modules)
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield SimpleNamespace(**{name: __import__(name) for name in names})
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in names:
            sys.modules.pop(name, None)
            if name in before:
                sys.modules[name] = before[name]


class AtOnce(Executor):
    """Calls are done when they are submitted; what the ``change``-th gives is changed."""

    def __init__(self, change: int = -1) -> None:
        self.calls = 0
        self.change = change

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        value = fn(*args, **kwargs)
        future.set_result(self.changed(value) if self.calls == self.change else value)
        self.calls += 1
        return future

    def changed(self, value: Any) -> Any:
        if isinstance(value, bytes):
            return bytes([value[0] ^ 1]) + value[1:]
        if isinstance(value, tuple):
            return (*value[:2], value[2] + 1e-3, True, value[4])
        return value + 1


@each_example
def test_results_are_right(examples: SimpleNamespace, name: str) -> None:
    said = io.StringIO()
    with ThreadPoolExecutor(2) as executor:
        assert getattr(examples, name).main(executor, examples.screen.Screen(said), **SMALL[name])
    assert "  passed: " in said.getvalue()


@each_example
def test_a_wrong_result_is_noticed(examples: SimpleNamespace, name: str) -> None:
    said = io.StringIO()
    assert not getattr(examples, name).main(AtOnce(change=3), examples.screen.Screen(said), **SMALL[name])
    assert "  FAILED: " in said.getvalue()


def test_the_exit_status_tells(examples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples.executors, "new_executor", lambda name: {"process": AtOnce()}[name])
    assert examples.executors.run(lambda executor, screen: True, ["--executor", "process"]) == 0
    assert examples.executors.run(lambda executor, screen: False, ["--executor", "process"]) == 1
    with pytest.raises(SystemExit):
        examples.executors.run(lambda executor, screen: True, ["--executor", "another"])


@each_example
def test_ours_is_the_default(examples: SimpleNamespace, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ipmpi.client import pools as ours

    made: list[AtOnce] = []
    monkeypatch.setattr(ours, "Executor", lambda: made.append(AtOnce()) or made[-1])
    assert examples.executors.run(getattr(examples, name).main, []) == 0
    assert made[0].calls > 10


@pytest.mark.slow
@each_example
def test_they_run_in_processes(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--executor", "process"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  passed: " in done.stdout
