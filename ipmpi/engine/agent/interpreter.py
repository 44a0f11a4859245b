"""Reads the Python stack of a process that runs the same interpreter as this one, from its memory.

A node agent was forked from one of its ranks, so the layout of the objects of its own interpreter is that of
theirs. It finds the layout by looking for known objects in its own memory, and checks it by reading its own stack.
Whatever is not as expected raises :class:`UnreadableError`, and py-spy is asked, which knows more interpreters.

Only memory is read, by way of ``/proc/PID/mem``: the other process neither stops nor notices.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
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
_TEXT_BEFORE, _TABLE_BEFORE = sys.getsizeof("") - 1, sys.getsizeof(b"") - 1
"""Bytes before the content of a str of ASCII, and of bytes."""
_HUGE_PAGE: Final = 1 << 21
"""Newer kernels align files of that size so, wherever the loader is."""
_PROGRAM, _LOADER = 3, 7
"""AT_PHDR and AT_BASE of getauxval(3)."""
_AT_ONCE: Final = 512
"""Bytes of a str or bytes object that are read at first."""
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
        self._anchor = _PROGRAM if self._path == os.path.realpath("/proc/self/exe") else _LOADER
        self._behind = _loaded_at(os.getpid(), self._anchor) - self._base
        self._lock = threading.Lock()
        self._layout: _Layout | UnreadableError | None = None

    @property
    def is_known(self) -> bool | None:
        """Whether stacks can be read; None before the first one was."""
        return None if self._layout is None else isinstance(self._layout, _Layout)

    def stack(self, pid: int) -> list[PythonFrame]:
        """Return the frames of the main thread of a process, innermost first. For threads other than the main one.

        Raises:
            UnreadableError: it is another interpreter, or changes while it is read.
        """
        layout = self._calibrated()
        memory = Memory(pid)
        try:
            # Where it is not, the number of the thread is not found either.
            for base in self._likely(pid):
                with contextlib.suppress(UnreadableError):
                    return self._frames(memory, layout, pid, base)
            return self._frames(memory, layout, pid, _base_of(pid, self._path))
        finally:
            memory.close()

    def _likely(self, pid: int) -> Iterable[int]:
        """Return where the interpreter may be: as far from the loader as here, or aligned as here."""
        alike = _loaded_at(pid, self._anchor) - self._behind
        align = min(self._base & -self._base, _HUGE_PAGE)
        below = alike - alike % align
        return dict.fromkeys((alike, below + align, below))

    def _frames(self, memory: Memory, layout: _Layout, pid: int, base: int) -> list[PythonFrame]:
        slide = base - self._base
        return _frames(memory, layout, self._main + slide, pid, slide)

    def _calibrated(self) -> _Layout:
        if isinstance(self._layout, _Layout):  # forked processes cannot wait for a thread that has the lock
            return self._layout
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
        block = memory.bytes(code, 8 * _BLOCK)
        if _type_in(block) != id(type(None)) + slide:  # as of the interpreter's own frames in 3.13
            read = _frame(memory, layout, block, words[layout.instruction // 8] - code, slide)
            if read.file not in _SHIMS:
                found.append(read)
        frame = words[layout.previous // 8]
    return found


def _frame(memory: Memory, layout: _Layout, block: bytes, instruction: int, slide: int) -> PythonFrame:
    """Read a frame whose code object begins with ``block``, and whose instruction is that far behind it."""
    if _type_in(block) != id(CodeType) + slide:
        raise UnreadableError("there is no code where it is expected")
    file = _text(memory, _word_in(block, layout.filename), slide)
    name = _text(memory, _word_in(block, layout.name), slide)
    lines = _content(memory, _word_in(block, layout.table), bytes, _TABLE_BEFORE, _TABLE, slide)
    first = int(_INT.unpack_from(block, layout.first_line)[0])
    return PythonFrame(name, file, _line(lines, first, instruction - layout.start))


def _line(table: bytes, first: int, at: int) -> int:
    code = _EMPTY.replace(co_linetable=table, co_firstlineno=first)
    for start, end, line in code.co_lines():
        if start <= max(at, 0) < end:
            return line or first
    return first


def _text(memory: Memory, address: int, slide: int) -> str:
    data = _content(memory, address, str, _TEXT_BEFORE, _TEXT, slide)
    if not data.isascii() or not all(0x20 <= byte < 0x7F for byte in data):
        raise UnreadableError("a name that is not ASCII")  # it is stored in another way
    return data.decode("ascii")


def _content(memory: Memory, address: int, kind: type, before: int, most: int, slide: int) -> bytes:
    """Return the content of a str or bytes object, which stands ``before`` bytes behind its beginning.

    One read suffices for nearly all: each costs as much as the work with what it returns.
    """
    try:
        block = memory.bytes(address, _AT_ONCE)
    except UnreadableError:  # the mapping ends before
        block = memory.bytes(address, before)
    if _type_in(block) != id(kind) + slide:
        raise UnreadableError(f"there is no {kind.__name__} where one is expected")
    size = _word_in(block, 16)
    if size > most:
        raise UnreadableError(f"a {kind.__name__} is too long")
    return block[before : before + size] if before + size <= len(block) else memory.bytes(address + before, size)


def _type_in(block: bytes) -> int:
    """The type of the object whose memory this is."""
    return _word_in(block, 8)


def _word_in(block: bytes, place: int) -> int:
    return int(_WORD.unpack_from(block, place)[0])


_EMPTY: Final = compile("", "", "exec")


# --- the layout, from this process ---------------------------------------------------------------------------


def _state_of_this_thread() -> int:
    import ctypes  # only when somebody asks where a rank is

    call: Any = ctypes.pythonapi.PyThreadState_Get
    call.restype = ctypes.c_void_p
    return int(call())


def _maps(pid: int) -> Iterator[tuple[int, str]]:
    """The beginnings and files of what is mapped in a process, ascending; "" for memory without a file."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                row = line.rstrip("\n").split(None, 5)
                yield int(row[0].partition("-")[0], 16), row[5] if len(row) > 5 else ""
    except OSError as error:
        raise UnreadableError(f"its memory cannot be read: {error.strerror}") from None


def _file_at(address: int) -> tuple[str, int]:
    """The file whose data this is (its zeroed part follows it), and where it begins in this process."""
    before = [(start, path) for start, path in _maps(os.getpid()) if start <= address and path.startswith("/")]
    if not before:
        raise UnreadableError("the state of the main thread is in no file")
    path = max(before)[1]
    return path, min(start for start, name in before if name == path)


def _base_of(pid: int, path: str) -> int:
    found = next((start for start, name in _maps(pid) if name == path), None)
    if found is None:
        raise UnreadableError("it runs another interpreter")
    return found


def _loaded_at(pid: int, anchor: int) -> int:
    """Where the system has put the loader of libraries, or the program, without the list of all mappings.

    A process with MPI has hundreds of them, and the list takes as long as all else.
    """
    try:
        with open(f"/proc/{pid}/auxv", "rb") as file:
            data = file.read()
    except OSError as error:
        raise UnreadableError(f"its memory cannot be read: {error.strerror}") from None
    return next((value for key, value in struct.iter_unpack("=QQ", data[: len(data) & ~15]) if key == anchor), 0)


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
