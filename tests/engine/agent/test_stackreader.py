"""Stacks of real processes: read from outside, or told on a signal; and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ipmpi.engine.agent import stackpipe, stackreader
from ipmpi.engine.agent.interpreter import Interpreter, UnreadableError
from ipmpi.engine.agent.procstate import process_state
from ipmpi.engine.agent.readers import read_apart
from ipmpi.engine.agent.stackpipe import StackPipeEnd, catches
from ipmpi.engine.agent.stackreader import StackReader, StackTarget, py_spy
from ipmpi.engine.rank.ownstack import SIGNAL
from ipmpi.protocol.inquiries import ENDED, IDLE, RUNNING, STOPPED, RankStack, ReadStacks, StackFrame
from ipmpi.protocol.mpicalls import MpiCall
from ipmpi.protocol.operations import Execute, encode
from ipmpi.transport.loop import Loop

RANK = """
import ctypes, sys
from ipmpi.engine.rank.ownstack import StackSignal
asked = StackSignal() if 'signal' in sys.argv else None
if asked is not None:
    import os
    os.set_inheritable(asked.read_end, True)
    print(asked.read_end, asked.number, flush=True)
hold, c = ctypes.create_string_buffer(1), ctypes.PyDLL(None)
def step():
    print('ready', flush=True)
    c.read(0, hold, 1)
step()
print('read', flush=True)
"""
HOLDS_GIL = 12
"""The line of RANK in which C code holds the GIL until a byte comes."""
PLAIN = ReadStacks()


class Process:
    """A process that holds the GIL until :meth:`end`."""

    def __init__(self, path: Path, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(path), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self.pipe: StackPipeEnd | None = None
        if "signal" in words:
            number, asked = self.line().split()
            self.pipe = StackPipeEnd(os.open(f"/proc/{self.pid}/fd/{number}", os.O_RDONLY), int(asked))
        assert self.line() == "ready"
        while process_state(self.pid).letter != "S":
            pass  # it is about to wait in C

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def goes_on(self) -> bool:
        """Let C return; whether it was the byte that has ended its read."""
        assert self._process.stdin is not None
        self._process.stdin.write("x")
        self._process.stdin.flush()
        return self.line() == "read"

    def target(self, rank: int = 0, runs: str = "execute") -> StackTarget:
        pipe = None if self.pipe is None else self.pipe.copy()
        return StackTarget(rank, self.pid, runs, time.monotonic(), b"", pipe)

    def close(self) -> None:
        if self.pipe is not None:
            self.pipe.close()
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def start(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Process]]:
    monkeypatch.setenv("PYTHONPATH", str(root))
    path = tmp_path / "rank.py"
    path.write_text(RANK)
    started: list[Process] = []

    def start(*words: str) -> Process:
        started.append(Process(path, *words))
        return started[-1]

    yield start
    for process in started:
        process.close()


class Asking:
    """A loop in a thread, and stacks that are asked for from here."""

    def __init__(self) -> None:
        self.loop = Loop()
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def stacks(
        self, reader: StackReader, *targets: StackTarget, times: int = 1, question: ReadStacks = PLAIN
    ) -> list[tuple[int, RankStack]]:
        found: list[tuple[int, RankStack]] = []
        complete = threading.Event()

        def came(rank: int, stack: RankStack) -> None:
            found.append((rank, stack))
            if len(found) == times * len(targets):
                complete.set()

        def ask() -> None:
            for _ in range(times):
                reader.read([t._replace(pipe=t.pipe and t.pipe.copy()) for t in targets], question, came)

        self.loop.call_threadsafe(ask)
        assert complete.wait(10)
        for target in targets:
            if target.pipe is not None:
                target.pipe.close()
        return found

    def stack(self, reader: StackReader, target: StackTarget, question: ReadStacks = PLAIN) -> RankStack:
        return self.stacks(reader, target, question=question)[0][1]

    def close(self) -> None:
        self.loop.stop()
        self._thread.join()
        self.loop.close()


@pytest.fixture
def asking() -> Iterator[Asking]:
    asking = Asking()
    yield asking
    asking.close()


@pytest.fixture(scope="module")
def spy(need: Callable[[str, object], None]) -> str:
    need("no py-spy; pip install py-spy", py_spy())
    return py_spy()


def test_code_that_holds_the_gil_is_seen_and_not_disturbed(
    start: Callable[..., Process], asking: Asking, spy: str
) -> None:
    process = start()
    stack = asking.stack(StackReader(asking.loop, spy), process.target())
    assert (stack.state, stack.runs, stack.note) == (RUNNING, "execute", "")
    assert [(frame.function, frame.line) for frame in stack.frames] == [("step", HOLDS_GIL), ("<module>", 13)]
    assert stack.frames[0].text == "c.read(0, hold, 1)"
    assert process.goes_on()


def test_the_line_of_a_command_is_in_no_file(start: Callable[..., Process], asking: Asking, spy: str) -> None:
    process = start()
    source = "\n" * 12 + "the command's own line\n"
    target = process.target()._replace(operation=encode(Execute(source)))
    stack = asking.stack(StackReader(asking.loop, spy), target)
    assert stack.frames[-1].text == "the command's own line"


def test_a_stopped_process_is_seen(start: Callable[..., Process], asking: Asking, spy: str) -> None:
    process = start()
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    stack = asking.stack(StackReader(asking.loop, spy), process.target())
    assert stack.state == STOPPED
    assert stack.signal in (signal.SIGSTOP, 0)
    assert stack.frames[0].function == "step"
    stack = asking.stack(StackReader(asking.loop, spy), process.target(runs=""))
    assert (stack.state, stack.frames) == (STOPPED, [])


def test_a_rank_that_runs_nothing_is_idle_and_not_read(start: Callable[..., Process], asking: Asking) -> None:
    process = start()
    assert asking.stack(StackReader(asking.loop, "/no/such/py-spy"), process.target(runs="")).state == IDLE


def test_a_process_that_has_ended_is_told(start: Callable[..., Process], asking: Asking) -> None:
    process = start()
    process.close()
    assert asking.stack(StackReader(asking.loop, "/no/such/py-spy"), process.target()) == RankStack(ENDED)


def test_where_reading_is_refused_the_rank_answers_a_signal(start: Callable[..., Process], asking: Asking) -> None:
    process = start("signal")
    reader = StackReader(asking.loop, "/no/such/py-spy")
    for _ in range(3):  # C's read goes on after the signal, and the pipe is empty again
        stack = asking.stack(reader, process.target())
        assert [(frame.function, frame.line) for frame in stack.frames] == [("step", HOLDS_GIL), ("<module>", 13)]
        assert stack.note == ""
    native = asking.stack(reader, process.target(), ReadStacks(native=True))
    assert native.frames == stack.frames
    assert native.note.startswith("functions of C are not known: "), "it may be in MPI"
    assert process.goes_on()


def test_a_rank_without_a_handler_gets_no_signal_which_would_end_it(
    start: Callable[..., Process], asking: Asking
) -> None:
    process = start()
    read, write = os.pipe()
    process.pipe = StackPipeEnd(read, SIGNAL)
    assert not catches(process.pid, SIGNAL)
    stack = asking.stack(StackReader(asking.loop, "/no/such/py-spy"), process.target())
    os.close(write)
    assert "py-spy cannot be started: " in stack.note
    assert stack.note.endswith("and the rank has not answered a signal")
    assert process.goes_on()


def test_without_py_spy_and_signal_it_says_what_to_install(start: Callable[..., Process], asking: Asking) -> None:
    stack = asking.stack(StackReader(asking.loop, ""), start().target())
    assert stack.note == "there is no py-spy in the engines' environment (pip install py-spy)"
    assert stack.frames == []


def test_who_asks_at_the_same_time_gets_the_same_answer(
    start: Callable[..., Process], asking: Asking, tmp_path: Path
) -> None:
    process = start()
    counted = tmp_path / "counted"
    script = tmp_path / "py-spy"
    script.write_text(f"#!/bin/sh\necho x >> {counted}\n")
    script.chmod(0o755)
    reader = StackReader(asking.loop, str(script))
    told = asking.stacks(reader, process.target(0), times=5)
    assert len(told) == 5
    assert len({stack.note for _, stack in told}) == 1
    once = len(counted.read_text().split())
    asking.stacks(reader, process.target(0))
    assert len(counted.read_text().split()) == 2 * once, "and later it is read again"


def test_nothing_is_left_behind(start: Callable[..., Process], asking: Asking, spy: str) -> None:
    process = start("signal")
    readers = StackReader(asking.loop, spy), StackReader(asking.loop, "")

    def all_ask() -> None:
        for reader in readers:
            asking.stacks(reader, *(process.target(rank) for rank in range(12)))

    def left() -> tuple[int, list[str]]:
        names = [thread.name for thread in threading.enumerate() if thread.name == "ipmpi-stacks"]
        return len(os.listdir("/proc/self/fd")), names

    all_ask()
    before = len(os.listdir("/proc/self/fd"))
    all_ask()
    give_up = time.monotonic() + 5
    while left() != (before, []):
        assert time.monotonic() < give_up, left()
    assert _children() == []


def _children() -> list[int]:
    """Children of this process that are py-spy: ended and not waited for, or still there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text()
            except OSError:
                continue
            if "(py-spy)" in fields and int(fields.rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(entry.name))
    return found


def test_masks_of_a_process_that_is_not_there() -> None:
    assert not catches(0, SIGNAL)
    assert stackpipe.catches(os.getpid(), signal.SIGALRM), "that of the limit of each test"


def test_a_rank_in_a_recorded_call_need_not_be_read(
    start: Callable[..., Process], asking: Asking, root: Path
) -> None:
    process = start()
    source = root / "tests" / "engine" / "agent" / "test_stackreader.py"
    call = MpiCall("comm", 1, "Barrier", None, "", None, None, None, str(source), 1, "step", 3.0, True)
    target = process.target()._replace(calls=[call])
    reader = StackReader(asking.loop, "/no/such/py-spy")
    stack = asking.stack(reader, target, ReadStacks(quick=True))
    first = '"""Stacks of real processes: read from outside, or told on a signal; and nothing is left behind."""'
    assert stack.frames == [StackFrame("step", str(source), 1, first[:80])]
    assert stack.calls == [call]
    assert stack.note == ""
    assert "py-spy cannot be started" in asking.stack(reader, target).note
    closed = target._replace(calls=[msgspec.structs.replace(call, open=False)])
    assert "py-spy cannot be started" in asking.stack(reader, closed, ReadStacks(quick=True)).note


@pytest.mark.skipif(sys.version_info < (3, 11), reason="py-spy reads older interpreters")
def test_this_interpreter_is_read_without_py_spy(start: Callable[..., Process], asking: Asking, spy: str) -> None:
    process = start()
    ours = asking.stack(StackReader(asking.loop, "", Interpreter()), process.target())
    assert ours.frames == asking.stack(StackReader(asking.loop, spy), process.target()).frames
    assert process.goes_on()


@pytest.mark.parametrize("alike", [True, False], ids=["same interpreter", "another one"])
def test_on_a_crowded_node_other_processes_read(
    start: Callable[..., Process], spy: str, monkeypatch: pytest.MonkeyPatch, alike: bool
) -> None:
    """What they cannot read, threads of this process do."""
    monkeypatch.setattr(stackreader, "may_help", lambda: True)
    monkeypatch.setattr(stackreader, "_FEW", 2)
    shares: list[int] = []
    over: list[bool] = []

    def stop_if_all() -> None:
        if over and len(found) == len(processes):
            loop.stop()

    def apart(loop: Loop, given: Sequence[Sequence[Any]], work: Any, came: Any, ended: Any) -> None:
        def all_ended() -> None:
            over.append(True)
            ended()
            stop_if_all()

        shares.extend(len(share) for share in given)
        read_apart(loop, given, work if alike else _refuse, came, all_ended)

    monkeypatch.setattr(stackreader, "read_apart", apart)
    processes = [start() for _ in range(5)]
    loop, found = Loop(), {}
    reader = StackReader(loop)

    def came(rank: int, stack: RankStack) -> None:
        found[rank] = [(frame.function, frame.line) for frame in stack.frames]
        stop_if_all()

    try:
        reader.read([process.target(rank) for rank, process in enumerate(processes)], PLAIN, came)
        loop.call_later(30, loop.stop)
        loop.run()
    finally:
        loop.close()
    assert found == {rank: [("step", HOLDS_GIL), ("<module>", 13)] for rank in range(5)}
    assert shares == [1] * 4, "the first one is read here, which shows how it is done"


def _refuse(_: object) -> bytes:
    raise UnreadableError("no")
