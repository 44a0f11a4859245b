"""The stack of another process of this interpreter is read from its memory, or it is said that it cannot be."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from ipmpi.engine.agent import interpreter as under_test
from ipmpi.engine.agent.interpreter import Interpreter, PythonFrame, UnreadableError

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="py-spy reads older interpreters")

Value = TypeVar("Value")

WAITS = """
import sys
class Heat:
    def step(self, n):
        if n:
            return list(map(self.step, [n - 1]))
        print('ready', flush=True)
        return sys.stdin.readline()
def main():
    Heat().step(2)
main()
"""
BUSY = """
def inner(n):
    return sum([i for i in range(n)])
def outer():
    for n in range(50):
        inner(n)
print('ready', flush=True)
while True:
    outer()
"""
NAMED = "def schärfe():\n    print('ready', flush=True)\n    input()\nschärfe()\n"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], tuple[int, str]]]:
    processes: list[subprocess.Popen[str]] = []

    def start(source: str) -> tuple[int, str]:
        path = tmp_path / f"program{len(processes)}.py"
        path.write_text(source, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process.pid, str(path)

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def reader() -> Interpreter:
    return Interpreter()


def in_thread(call: Callable[[], Value]) -> Value:
    """What a call returns, or raises, in a thread: as in an agent."""
    results: list[Value | BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    (result,) = results
    if isinstance(result, BaseException):
        raise result
    return result


def test_all_frames_are_read_also_through_calls_from_c(
    reader: Interpreter, start: Callable[[str], tuple[int, str]]
) -> None:
    pid, path = start(WAITS)
    expected = [("Heat.step", 8), ("Heat.step", 6), ("Heat.step", 6), ("main", 10), ("<module>", 11)]
    give_up = time.monotonic() + 5
    read: list[PythonFrame] = []
    while [(frame.function, frame.line) for frame in read] != expected:
        assert time.monotonic() < give_up, read
        read = in_thread(lambda: reader.stack(pid))
    assert {frame.file for frame in read} == {path}


def test_a_process_that_runs_is_read_right_or_not_at_all(
    reader: Interpreter, start: Callable[[str], tuple[int, str]]
) -> None:
    pid, path = start(BUSY)
    known = {
        ("<module>", path), ("outer", path), ("inner", path), ("inner.<locals>.<listcomp>", path),
    }  # fmt: skip

    def read_many() -> int:
        good = 0
        for _ in range(300):
            try:
                frames = reader.stack(pid)
            except UnreadableError:
                continue
            good += bool(frames)
            assert {frame[:2] for frame in frames} <= known
        return good

    assert in_thread(read_many) > 10


def test_another_program_is_not_read(reader: Interpreter) -> None:
    with subprocess.Popen(["sleep", "100"]) as other:
        try:
            with pytest.raises(UnreadableError, match="another interpreter"):
                in_thread(lambda: reader.stack(other.pid))
        finally:
            other.kill()


def test_a_process_that_has_ended_is_not_read(
    reader: Interpreter, start: Callable[[str], tuple[int, str]]
) -> None:
    pid, _ = start(WAITS)
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(UnreadableError):
        in_thread(lambda: reader.stack(pid))


def test_names_that_are_stored_in_another_way_are_left_to_py_spy(
    reader: Interpreter, start: Callable[[str], tuple[int, str]]
) -> None:
    pid, _ = start(NAMED)
    with pytest.raises(UnreadableError, match="not ASCII"):
        in_thread(lambda: reader.stack(pid))


def test_a_layout_that_is_not_found_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    def fail(memory: object) -> None:
        looked.append(memory)
        raise UnreadableError("it is new")

    monkeypatch.setattr(under_test, "_outer", fail)
    reader = Interpreter()
    for _ in range(3):
        with pytest.raises(UnreadableError, match="it is new"):
            in_thread(lambda: reader.stack(os.getpid()))
    assert len(looked) == 1


def test_a_layout_that_reads_wrong_stacks_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = under_test._outer
    monkeypatch.setattr(under_test, "_outer", lambda memory: right(memory)._replace(name=right(memory).filename))
    with pytest.raises(UnreadableError, match="laid out in another way"):
        in_thread(lambda: Interpreter().stack(os.getpid()))


def test_nothing_is_left_open(reader: Interpreter, start: Callable[[str], tuple[int, str]]) -> None:
    pid, _ = start(WAITS)
    in_thread(lambda: reader.stack(pid))
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(50):
        in_thread(lambda: reader.stack(pid))
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


@pytest.mark.parametrize("unknown", ["_loaded_at", "_base_of"])
def test_an_interpreter_is_found_beside_the_loader_or_in_the_list_of_mappings(
    start: Callable[[str], tuple[int, str]], monkeypatch: pytest.MonkeyPatch, unknown: str
) -> None:
    """The list is long where MPI is loaded, so it is not made if the first way succeeds."""
    pid, _ = start(WAITS)
    interpreter = Interpreter()
    asked: list[int] = []

    def nothing(pid: int, _: object) -> int:
        asked.append(pid)
        return 0

    monkeypatch.setattr(under_test, unknown, nothing)
    read: list[PythonFrame] = []
    while not read:
        with contextlib.suppress(UnreadableError):  # it may be about to wait
            read = in_thread(lambda: interpreter.stack(pid))
    assert read[-1].function == "<module>"
    assert set(asked) == ({pid} if unknown == "_loaded_at" else set())
