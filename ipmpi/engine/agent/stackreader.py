"""Reads where the ranks of a node are, while they are in C, hold the GIL, or are stopped.

The memory of a rank is read from outside, so the rank neither notices nor has to do anything: by ourselves where
we know how (:mod:`ipmpi.engine.agent.interpreter`), else by py-spy. Where the system refuses that, or there is no
py-spy, the rank answers a signal (:mod:`ipmpi.engine.rank.ownstack`).

This is done by threads, as it waits for processes and files; there are none while nobody asks.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ... import limits
from ...protocol.inquiries import ENDED, IDLE, RUNNING, STOPPED, RankStack, ReadStacks, StackFrame
from ...protocol.mpicalls import MpiCall, open_call
from ...transport.loop import Loop
from .interpreter import Interpreter, UnreadableError
from .procstate import process_state
from .sourcelines import SourceLines, typed_source
from .stackdump import NotAStackError, frame_of, of_faulthandler, of_py_spy, users
from .stackpipe import StackPipeEnd

_THREADS: Final = 8
"""Ranks that are read at the same time. With py-spy, each takes some 15 ms of processor time."""
_OWN_THREADS: Final = 2
"""The same where we read it ourselves: more threads would only take the interpreter from the loop's."""
_TRIES: Final = 4
"""A rank that runs Python changes its stack while it is read; then it is read again."""
_PATIENT: Final = 0.4
"""Seconds after which a rank in a recorded call is not read any more: many ranks keep all processors busy."""
_DUMP: Final = 1.5
"""Seconds for one run of py-spy."""


class StackTarget(NamedTuple):
    """A rank whose stack is wanted.

    Attributes:
        rank: its number.
        pid: its process.
        runs: what it runs, "" for nothing.
        since: when that began (time.monotonic).
        operation: the encoded operation of the command that it runs.
        pipe: through which it answers the signal; owned by the reader.
        calls: its last MPI calls.
    """

    rank: int
    pid: int
    runs: str
    since: float
    operation: bytes
    pipe: StackPipeEnd | None
    calls: Sequence[MpiCall] = ()

    @property
    def call(self) -> MpiCall | None:
        """The recorded MPI call that it is in, if any."""
        return open_call(self.calls)


Told = Callable[[int, RankStack], None]


class StackReader:
    """Reads stacks of ranks, each once for all who ask at the same time.

    Args:
        loop: in whose thread results are told.
        command: py-spy; "" if there is none; None to look for it, and to read memory ourselves where that works.
        interpreter: reads memory.
    """

    def __init__(self, loop: Loop, command: str | None = None, interpreter: Interpreter | None = None) -> None:
        self._loop = loop
        self._interpreter = interpreter
        self._is_prepared = interpreter is not None or command is not None
        self._command = command
        self._lines = SourceLines()
        self._lock = threading.Lock()
        self._waiting: deque[tuple[StackTarget, ReadStacks, float]] = deque()
        self._threads = 0
        self._asked: dict[tuple[int, ReadStacks], list[Told]] = {}

    def read(self, targets: Sequence[StackTarget], question: ReadStacks, tell: Told) -> None:
        """Call ``tell`` in the loop's thread with each rank and its stack, within ``limits.INQUIRY``."""
        now = self._loop.now()
        if not self._is_prepared:
            self._prepare()
        fresh = 0
        # Of those in a recorded call it is known where they are, so others come first.
        for target in sorted(targets, key=lambda target: target.call is not None):
            listeners = self._asked.setdefault((target.rank, question), [])
            listeners.append(tell)
            if len(listeners) > 1:
                _close(target.pipe)
                continue
            self._waiting.append((target, question, now))
            fresh += 1
        with self._lock:
            most = _THREADS if self._interpreter is None or question.native else _OWN_THREADS
            more = min(fresh, most - self._threads)
            self._threads += max(more, 0)
        for _ in range(more):
            threading.Thread(target=self._work, name="ipmpi-stacks", daemon=True).start()

    def _prepare(self) -> None:
        self._is_prepared = True
        if threading.current_thread() is threading.main_thread():
            with contextlib.suppress(UnreadableError):
                self._interpreter = Interpreter()

    def _tell(self, rank: int, question: ReadStacks, stack: RankStack) -> None:
        for tell in self._asked.pop((rank, question), ()):
            tell(rank, stack)

    # --- in a thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                target, question, asked = self._waiting.popleft()
            try:
                stack = self._look(target, question, asked)
            except Exception as error:
                stack = RankStack(RUNNING, note=f"it could not be read: {error!r}")
            finally:
                _close(target.pipe)
            self._loop.call_threadsafe(functools.partial(self._tell, target.rank, question, stack))

    def _look(self, target: StackTarget, question: ReadStacks, asked: float) -> RankStack:
        state = process_state(target.pid, with_rest=not target.runs)
        if target.runs and state.is_stopped:
            state = process_state(target.pid)
        rested = int(state.rested)
        if state.has_ended:
            return RankStack(ENDED)
        if not target.runs and not state.is_stopped:
            return RankStack(IDLE, seconds=rested)
        took, typed = self._loop.now() - asked, {}
        if not target.runs:
            frames, note = [], ""
        elif target.call is not None and not question.native and (question.quick or took > _PATIENT):
            frames, note = [StackFrame(target.call.function, target.call.file, target.call.line)], ""
        elif took > limits.INQUIRY - _DUMP:
            frames, note = [], "too many ranks of this node were asked about at once: ask again"
        else:
            frames, note = self._frames(target, question.native, state.is_stopped)
            frames = users(frames)
            typed = typed_source(target.operation, frames)
        frames = self._lines.added(frames, typed)
        running = int(time.monotonic() - target.since) if target.runs else 0
        if state.is_stopped:
            return RankStack(STOPPED, state.signal, rested, target.runs, running, frames, note, list(target.calls))
        return RankStack(RUNNING, 0, -1, target.runs, running, frames, note, list(target.calls))

    def _frames(self, target: StackTarget, native: bool, is_stopped: bool) -> tuple[list[StackFrame], str]:
        ours = None if native else self._interpreter
        for _ in range(_TRIES if ours is not None else 0):
            with contextlib.suppress(UnreadableError):
                assert ours is not None
                return [frame_of(*frame) for frame in ours.stack(target.pid)], ""
        if self._command is None:
            self._command = py_spy()
        why = "there is no py-spy in the engines' environment (pip install py-spy)"
        for _ in range(_TRIES if self._command else 0):
            try:
                return of_py_spy(_dump(self._command, target.pid, native), target.pid), ""
            except NotAStackError as error:
                why = str(error)
        if target.pipe is not None and not is_stopped:
            found = of_faulthandler(target.pipe.ask(target.pid))
            if found:
                return found, ""
            why += "; and the rank has not answered a signal"
        return [], why


def _dump(command: str, pid: int, native: bool) -> bytes:
    """Run py-spy; return what it says, or an error text."""
    # C frames can be read of a stopped process only, so py-spy stops it meanwhile.
    way = "--native" if native else "--nonblocking"
    try:
        done = subprocess.run(
            [command, "dump", "--json", way, "--pid", str(pid)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_DUMP, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"py-spy has not ended within {_DUMP:g} s".encode()
    except OSError as error:
        return f"py-spy cannot be started: {error}".encode()
    return done.stdout


def py_spy() -> str:
    """Return the path of py-spy: that of this interpreter's environment, else from the search path; or ""."""
    beside = Path(sys.executable).with_name("py-spy"), Path(sysconfig.get_path("scripts"), "py-spy")
    for path in beside:
        if os.access(path, os.X_OK):
            return str(path)
    return shutil.which("py-spy") or ""


def _close(pipe: StackPipeEnd | None) -> None:
    if pipe is not None:
        pipe.close()
