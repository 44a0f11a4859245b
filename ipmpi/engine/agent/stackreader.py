"""Reads where the ranks of a node are, while they are in C, hold the GIL, or are stopped.

The memory of a rank is read from outside, so the rank neither notices nor has to do anything: by ourselves where
we know how (:mod:`ipmpi.engine.agent.interpreter`), else by py-spy. Where the system refuses that, or there is no
py-spy, the rank answers a signal (:mod:`ipmpi.engine.rank.ownstack`).

This is done by threads, as it waits for processes and files; there are none while nobody asks. Where busy ranks
leave this process too little time, short-lived processes read (:mod:`ipmpi.engine.agent.readers`).
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
from ...protocol.inquiries import (
    ENDED,
    IDLE,
    RUNNING,
    STOPPED,
    RankStack,
    ReadStacks,
    StackFrame,
    decode_answer,
    encode,
)  # fmt: skip
from ...protocol.mpicalls import MpiCall, open_call
from ...transport.loop import Loop
from .interpreter import Interpreter, UnreadableError
from .procstate import process_state
from .readers import may_help, read_apart
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
_HELPERS: Final = 12
"""Processes that read at the same time, where this one has too little time."""
_FEW: Final = 8
"""Ranks that are worth no other process."""
_SOON: Final = 0.02
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
_Waiting = tuple[StackTarget, ReadStacks, float]
"""A rank to be read, for which question, and since when."""


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
        self._is_main = False
        self._command = command
        self._lines = SourceLines()
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._threads = 0
        self._asked: dict[tuple[int, ReadStacks], list[Told]] = {}

    def read(self, targets: Sequence[StackTarget], question: ReadStacks, tell: Told) -> None:
        """Call ``tell`` in the loop's thread with each rank and its stack, within ``limits.INQUIRY``."""
        now = self._loop.now()
        if not self._is_prepared:
            self._prepare()
        fresh: list[_Waiting] = []
        # Of those in a recorded call it is known where they are, so others come first.
        for target in sorted(targets, key=lambda target: target.call is not None):
            listeners = self._asked.setdefault((target.rank, question), [])
            listeners.append(tell)
            if len(listeners) > 1:
                _close(target.pipe)
                continue
            fresh.append((target, question, now))
        long = [each for each in fresh if not (question.quick and each[0].call is not None)]
        if len(long) > _FEW and not question.native and self._is_main and may_help():
            self._wait([each for each in fresh if each not in long])
            self._get_help(long)
        else:
            self._wait(fresh)

    def _prepare(self) -> None:
        self._is_prepared = True
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            with contextlib.suppress(UnreadableError):
                self._interpreter = Interpreter()

    def _wait(self, fresh: Sequence[_Waiting]) -> None:
        """Have threads read these."""
        with self._lock:
            self._waiting.extend(fresh)
            native = any(question.native for _, question, _ in fresh)
            most = _THREADS if self._interpreter is None or native else _OWN_THREADS
            more = min(len(fresh), most - self._threads)
            self._threads += max(more, 0)
        for _ in range(more):
            threading.Thread(target=self._work, name="ipmpi-stacks", daemon=True).start()

    def _tell(self, rank: int, question: ReadStacks, stack: RankStack) -> None:
        for tell in self._asked.pop((rank, question), ()):
            tell(rank, stack)

    # --- other processes -----------------------------------------------------------------------------------

    def _get_help(self, waiting: Sequence[_Waiting]) -> None:
        """Have other processes read these, once it is known how: that is seen at the first one."""
        running = [each for each in waiting if each[0].runs]
        if self._interpreter is None or self._interpreter.is_known is False or not running:
            self._wait(waiting)
            return
        if self._interpreter.is_known is None:
            if not self._threads:
                self._wait(running[:1])
                waiting = [each for each in waiting if each is not running[0]]
            self._loop.call_later(_SOON, lambda: self._get_help(waiting))
            return
        left = {(target.rank, question): (target, question, asked) for target, question, asked in waiting}

        def came(found: list[tuple[bytes, list[_Waiting]]]) -> None:
            for data, readings in found:
                stack = decode_answer(data)
                assert isinstance(stack, RankStack)
                for target, question, _ in readings:
                    if left.pop((target.rank, question), None) is not None:
                        _close(target.pipe)
                        self._tell(target.rank, question, stack)

        def ended() -> None:
            if left:
                self._wait(list(left.values()))  # perhaps py-spy can

        try:
            shares = [waiting[i::_HELPERS] for i in range(min(_HELPERS, len(waiting)))]
            read_apart(self._loop, shares, self._read_apart, came, ended)
        except OSError:
            ended()

    def _read_apart(self, reading: _Waiting) -> bytes:
        """In another process: read a rank, or raise."""
        target, question, asked = reading
        return encode(self._look(target, question, asked, alone=True))

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

    def _look(self, target: StackTarget, question: ReadStacks, asked: float, *, alone: bool = False) -> RankStack:
        """Return where a rank is; ``alone``, raise UnreadableError if we cannot read it ourselves."""
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
            frames, note = self._frames(target, question.native, state.is_stopped, alone)
            frames = users(frames)
            typed = typed_source(target.operation, frames)
        frames = self._lines.added(frames, typed)
        running = int(time.monotonic() - target.since) if target.runs else 0
        if state.is_stopped:
            return RankStack(STOPPED, state.signal, rested, target.runs, running, frames, note, list(target.calls))
        return RankStack(RUNNING, 0, -1, target.runs, running, frames, note, list(target.calls))

    def _frames(
        self, target: StackTarget, native: bool, is_stopped: bool, alone: bool
    ) -> tuple[list[StackFrame], str]:
        ours = None if native else self._interpreter
        for _ in range(_TRIES if ours is not None else 0):
            with contextlib.suppress(UnreadableError):
                assert ours is not None
                return [frame_of(*frame) for frame in ours.stack(target.pid)], ""
        if alone:
            raise UnreadableError("it changes while it is read")
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
                return found, f"functions of C are not known: {why}" if native else ""
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
