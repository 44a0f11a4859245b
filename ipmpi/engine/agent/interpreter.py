"""Reads the Python stack of a process that runs the same interpreter as this one, from its memory.

A node agent was forked from one of its ranks, so the layout of the objects of its own interpreter is that of
theirs. It finds the layout by looking for known objects in its own memory, and checks it by reading its own stack.
Whatever is not as expected raises :class:`UnreadableError`, and py-spy is asked, which knows more interpreters.

Only memory is read, by way of ``/proc/PID/mem``: the other process neither stops nor notices.
"""

from __future__ import annotations

import itertools
import os
import struct
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

_WORD: Final = struct.Struct("=Q")
_INT: Final = struct.Struct("=i")
_STATE: Final = 128
_BLOCK: Final = 32
_FRAME: Final = 12
"""Words of a thread's state, of other objects, and of a frame, in which fields are looked for."""
_TAGS: Final = ~3
"""Later interpreters mark references in the lowest bits."""
_DEEPEST: Final = 400
_TEXT: Final = 4096
_TABLE: Final = 1 << 20
_SHIMS: Final = ("<shim>", "<trampoline>", "<interpreter trampoline>")
"""Files of frames that the interpreter makes for calls from C."""


class UnreadableError(Exception):
    """The memory is not as expected."""


class PythonFrame(NamedTuple):
    """A frame: names and line."""

    function: str
    file: str
    line: int


class Memory:
    """The memory of a process; to be closed."""

    def __init__(self, pid: int) -> None:
        try:
            self._file = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UnreadableError(f"its memory cannot be read: {error.strerror}") from None

    def bytes(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes."""
        try:
            data = os.pread(self._file, size, address)
        except (OSError, OverflowError, ValueError):
            raise UnreadableError(f"there is nothing at {address:#x}") from None
        if len(data) < size:
            raise UnreadableError(f"there is nothing at {address:#x}")
        return data

    def words(self, address: int, count: int) -> tuple[int, ...]:
        """Return ``count`` words of 8 bytes."""
        return struct.unpack(f"={count}Q", self.bytes(address, 8 * count))

    def word(self, address: int) -> int:
        """Return one word."""
        return int(_WORD.unpack(self.bytes(address, 8))[0])

    def close(self) -> None:
        """Close it."""
        os.close(self._file)


class _Layout(NamedTuple):
    """Where fields are, in bytes.

    Attributes:
        thread: of a thread's state, the system's number of the thread.
        top: of a thread's state, its innermost frame, or what refers to it.
        hop: in that, the innermost frame; -1 if it is the frame.
        code, previous, instruction: of a frame.
        start: of a code object, its first instruction.
        filename, name, table, first_line: of a code object.
    """

    thread: int
    top: int
    hop: int
    code: int
    previous: int
    instruction: int
    start: int
    filename: int
    name: int
    table: int
    first_line: int


class Interpreter:
    """Reads stacks of processes of this interpreter. To be made in the main thread.

    Raises:
        UnreadableError: this interpreter is not one that can be read so.
    """

    def __init__(self) -> None:
        if sys.implementation.name != "cpython" or sys.version_info < (3, 11) or sys.maxsize < 2**32:
            raise UnreadableError("only CPython from 3.11 on is read")
        self._main = _state_of_this_thread()
        self._path, self._base = _file_at(self._main)
        self._lock = threading.Lock()
        self._layout: _Layout | UnreadableError | None = None

    def stack(self, pid: int) -> list[PythonFrame]:
        """Return the frames of the main thread of a process, innermost first. For threads other than the main one.

        Raises:
            UnreadableError: it is another interpreter, or changes while it is read.
        """
        layout = self._calibrated()
        slide = _base_of(pid, self._path) - self._base
        memory = Memory(pid)
        try:
            return _frames(memory, layout, self._main + slide, pid, slide)
        finally:
            memory.close()

    def _calibrated(self) -> _Layout:
        with self._lock:
            if self._layout is None:
                try:
                    self._layout = _calibrated()
                except UnreadableError as error:
                    self._layout = error
            if isinstance(self._layout, UnreadableError):
                raise UnreadableError(str(self._layout))
            return self._layout


def _frames(memory: Memory, layout: _Layout, state: int, thread: int, slide: int) -> list[PythonFrame]:
    if memory.word(state + layout.thread) != thread:
        raise UnreadableError("its main thread is not where it is expected")
    frame = memory.word(state + layout.top)
    if layout.hop >= 0:
        frame = memory.word(frame + layout.hop)
    found: list[PythonFrame] = []
    for _ in range(_DEEPEST):
        if not frame:
            return found
        words = memory.words(frame, _FRAME)
        code = words[layout.code // 8] & _TAGS
        if memory.word(code + 8) != id(type(None)) + slide:  # as of the interpreter's own frames in 3.13
            read = _frame(memory, layout, code, words[layout.instruction // 8], slide)
            if read.file not in _SHIMS:
                found.append(read)
        frame = words[layout.previous // 8]
    return found


def _frame(memory: Memory, layout: _Layout, code: int, instruction: int, slide: int) -> PythonFrame:
    _check(memory, code, CodeType, slide)
    words = memory.words(code, _BLOCK)
    file = _text(memory, words[layout.filename // 8], slide)
    name = _text(memory, words[layout.name // 8], slide)
    table = words[layout.table // 8]
    _check(memory, table, bytes, slide)
    size = memory.word(table + 16)
    if size > _TABLE:
        raise UnreadableError("a table of lines is too long")
    first = int(_INT.unpack(memory.bytes(code + layout.first_line, 4))[0])
    lines = memory.bytes(table + sys.getsizeof(b"") - 1, size)
    return PythonFrame(name, file, _line(lines, first, instruction - code - layout.start))


def _line(table: bytes, first: int, at: int) -> int:
    code = _EMPTY.replace(co_linetable=table, co_firstlineno=first)
    for start, end, line in code.co_lines():
        if start <= max(at, 0) < end:
            return line or first
    return first


def _text(memory: Memory, address: int, slide: int) -> str:
    _check(memory, address, str, slide)
    size = memory.word(address + 16)
    if size > _TEXT:
        raise UnreadableError("a name is too long")
    data = memory.bytes(address + sys.getsizeof("") - 1, size)
    if not all(0x20 <= byte < 0x7F for byte in data):
        raise UnreadableError("a name that is not ASCII")  # it is stored in another way
    return data.decode("ascii")


def _check(memory: Memory, address: int, kind: type, slide: int) -> None:
    """Raise UnreadableError unless there is an object of this type of the interpreter's own."""
    if memory.word(address + 8) != id(kind) + slide:
        raise UnreadableError(f"there is no {kind.__name__} where one is expected")


_EMPTY: Final = compile("", "", "exec")


# --- the layout, from this process ---------------------------------------------------------------------------


def _state_of_this_thread() -> int:
    import ctypes  # only when somebody asks where a rank is

    call: Any = ctypes.pythonapi.PyThreadState_Get
    call.restype = ctypes.c_void_p
    return int(call())


def _maps(pid: int) -> list[tuple[int, str]]:
    """The beginnings and files of what is mapped in a process; "" for memory without a file."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.rstrip("\n").split(None, 5) for line in file]
    except OSError as error:
        raise UnreadableError(f"its memory cannot be read: {error.strerror}") from None
    return [(int(row[0].partition("-")[0], 16), row[5] if len(row) > 5 else "") for row in rows]


def _file_at(address: int) -> tuple[str, int]:
    """The file whose data this is (its zeroed part follows it), and where it begins in this process."""
    before = [(start, path) for start, path in _maps(os.getpid()) if start <= address and path.startswith("/")]
    if not before:
        raise UnreadableError("the state of the main thread is in no file")
    path = max(before)[1]
    return path, min(start for start, name in before if name == path)


def _base_of(pid: int, path: str) -> int:
    starts = [start for start, name in _maps(pid) if name == path]
    if not starts:
        raise UnreadableError("it runs another interpreter")
    return min(starts)


class _Sample(threading.Thread):
    """A thread that finds the layout, and then waits, so that its stack can be read."""

    def __init__(self) -> None:
        super().__init__(name="ipmpi-sample", daemon=True)
        self.found: _Layout | UnreadableError | None = None
        self.state = 0
        self.expected: list[PythonFrame] = []
        self.may_end = threading.Lock()
        self._is_ready = threading.Lock()
        self.may_end.acquire()
        self._is_ready.acquire()

    def run(self) -> None:
        """Find the layout; then wait."""
        memory = Memory(os.getpid())
        try:
            self.found = _outer(memory)
        except UnreadableError as error:
            self.found = error
        finally:
            memory.close()
        self.state = _state_of_this_thread()
        # Through a function in C, which some interpreters show as a frame of its own.
        self.expected = list(map(_expected, [sys._getframe()]))[0]  # noqa: RUF015
        list(map(self._wait, [None]))

    def _wait(self, _: None) -> None:
        self._is_ready.release()
        self.may_end.acquire()

    def wait_until_ready(self) -> None:
        """Wait until it waits."""
        self._is_ready.acquire()


def _calibrated() -> _Layout:
    """Find the layout, and check it with the stack of a thread that waits."""
    sample = _Sample()
    sample.start()
    sample.wait_until_ready()
    try:
        if not isinstance(sample.found, _Layout):
            raise sample.found or UnreadableError("the layout was not found")
        memory = Memory(os.getpid())
        try:
            read = _frames(memory, sample.found, sample.state, sample.native_id or 0, 0)
        finally:
            memory.close()
        around = sample.expected[1:]  # its own line has changed since
        if read[0].function != "_Sample._wait" or read[1][:2] != sample.expected[0][:2] or read[2:] != around:
            raise UnreadableError("this interpreter is laid out in another way")
        return sample.found
    finally:
        sample.may_end.release()
        sample.join()


def _expected(frame: FrameType | None) -> list[PythonFrame]:
    found = []
    while frame is not None:
        code = frame.f_code
        found.append(PythonFrame(code.co_qualname, code.co_filename, frame.f_lineno))  # type: ignore[attr-defined, unused-ignore]
        frame = frame.f_back
    return found


def _outer(memory: Memory) -> _Layout:
    return _inner(memory)


def _inner(memory: Memory) -> _Layout:
    frame = sys._getframe()
    outer = frame.f_back
    assert outer is not None
    assert outer.f_back is not None
    codes = [frame.f_code, outer.f_code, outer.f_back.f_code]
    state = _state_of_this_thread()
    top, hop, code, previous = _chain(memory, codes)
    address = memory.word(state + top)
    if hop >= 0:
        address = memory.word(address + hop)
    while memory.word(address + code) & _TAGS != id(outer.f_code):  # up to one that waits for this one
        address = memory.word(address + previous)
    instruction, start = _instruction(memory, address, previous, [outer, outer.f_back])
    codes.append(Memory.bytes.__code__)
    number = threading.get_native_id()
    return _Layout(
        8 * _only([at for at, word in enumerate(memory.words(state, _STATE)) if word == number]),
        top, hop, code, previous, instruction, start,
        filename=_field(memory, codes, lambda each: each.co_filename),
        name=_field(memory, codes, lambda each: each.co_qualname),  # type: ignore[attr-defined, unused-ignore]
        table=_field(memory, codes, lambda each: each.co_linetable),
        first_line=_first_line(memory, codes),
    )  # fmt: skip


def _only(places: list[int]) -> int:
    if len(places) != 1:
        raise UnreadableError("the objects of this interpreter are laid out in another way")
    return places[0]


def _chain(memory: Memory, codes: list[CodeType]) -> tuple[int, int, int, int]:
    """Find where a thread's state has its innermost frame, and a frame its code and its caller."""
    reader = id(Memory.bytes.__code__)  # the innermost function whenever memory is read
    wanted = [id(code) for code in codes]
    state = _state_of_this_thread()
    for top, hop in itertools.product(range(_STATE), (-1, 0, 8)):
        try:
            # Each read is made by a call from here, so the frames of reading are in the same places each time.
            frame = memory.words(state + 8 * top, 1)[0]
            if hop >= 0:
                frame = memory.words(frame + hop, 1)[0]
            block = memory.words(frame, _FRAME)
        except UnreadableError:
            continue
        for code, previous in itertools.product(range(_FRAME), range(_FRAME)):
            if block[code] & _TAGS != reader:
                continue
            callers: list[int] = []
            caller = block[previous]
            try:
                while caller and len(callers) < 3 + len(wanted):
                    words = memory.words(caller, _FRAME)
                    callers.append(words[code] & _TAGS)
                    caller = words[previous]
            except UnreadableError:
                pass
            if callers[2 : 2 + len(wanted)] == wanted:  # after those of words() and of this function
                return 8 * top, hop, 8 * code, 8 * previous
    raise UnreadableError("the frames of this interpreter are not found")


def _instruction(memory: Memory, address: int, previous: int, callers: list[FrameType]) -> tuple[int, int]:
    """Find where a frame has its instruction, and a code object its first one, from frames that wait."""
    possible: list[set[tuple[int, int]]] = []
    for frame in callers:
        code = frame.f_code
        possible.append({
            (8 * at, word - frame.f_lasti - id(code))
            for at, word in enumerate(memory.words(address, _FRAME))
            if id(code) < word < id(code) + code.__sizeof__()
        })  # fmt: skip
        address = memory.word(address + previous)
    both = set.intersection(*possible)
    if len(both) != 1:
        raise UnreadableError("the instructions of this interpreter are not found")
    return both.pop()


def _field(memory: Memory, codes: list[CodeType], value: Callable[[CodeType], object]) -> int:
    """Find where code objects have an object."""
    blocks = [memory.words(id(code), _BLOCK) for code in codes]
    places = range(_BLOCK)
    return 8 * _only([
        at for at in places if all(b[at] == id(value(c)) for b, c in zip(blocks, codes, strict=True))
    ])  # fmt: skip


def _first_line(memory: Memory, codes: list[CodeType]) -> int:
    blocks = [struct.unpack(f"={2 * _BLOCK}i", memory.bytes(id(code), 8 * _BLOCK)) for code in codes]
    return 4 * _only([
        at for at in range(2 * _BLOCK)
        if all(block[at] == code.co_firstlineno for block, code in zip(blocks, codes, strict=True))
    ])  # fmt: skip
