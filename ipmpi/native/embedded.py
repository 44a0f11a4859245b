"""The side in Python of ``ipmpi_steer.c``: what a program in C or Fortran calls in the Python that it has loaded.

All functions are called by the thread that has loaded it, between two steps of the program. Whatever is wrong,
they print a sentence, and the program goes on.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_int64, c_uint64, c_void_p
from pathlib import Path
from typing import Any, Final

from .. import steering
from ..errors import KernelError
from .programmemory import MOST_DIMENSIONS, Extent, check_name, dtype_named, number_at, view
from .samempi import OtherMPI, load

_INTEGERS: Final = POINTER(c_int64)
FUNCTIONS: Final = {
    "load": ctypes.CFUNCTYPE(c_int),
    "attach": ctypes.CFUNCTYPE(c_int),
    "array": ctypes.CFUNCTYPE(c_int, c_char_p, c_void_p, c_int, _INTEGERS, _INTEGERS, c_char_p),
    "global": ctypes.CFUNCTYPE(c_int, c_char_p, _INTEGERS, _INTEGERS, _INTEGERS),
    "number": ctypes.CFUNCTYPE(c_int, c_char_p, c_void_p, c_char_p),
    "forget": ctypes.CFUNCTYPE(c_int, c_char_p),
    "tick": ctypes.CFUNCTYPE(c_int, c_int64),
    "detach": ctypes.CFUNCTYPE(c_int),
}
"""What the program can call, in the order of the table."""
FURL_FILE: Final = "IPMPI_FURL_FILE"
NAME: Final = "IPMPI_NAME"
REPLAY: Final = "IPMPI_REPLAY"
"""Variables with what programs in Python give to ``attach``."""
WORDS: Final = {"step": "at_step"}
"""Names of our table for words that have others in :class:`ipmpi.steering.TickWords`."""
DONE: Final = 0
STOP: Final = 1
REFUSED: Final = -1


class Table(ctypes.Structure):
    """``table`` of ``ipmpi_steer.c``."""

    _fields_ = (
        ("size", c_uint64),
        ("comm", c_int64),
        ("abi", c_char_p),
        ("library", c_char_p),
        ("reason", c_void_p),
        ("reason_size", c_uint64),
        *FUNCTIONS.items(),
        ("at_step", c_void_p),
        ("sent", c_void_p),
        ("received", c_void_p),
        ("due", c_void_p),
        ("label", c_void_p),
        ("ticks", c_int64),
    )


class Program:
    """A program that has loaded this interpreter.

    Args:
        table: what it shares with us.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._session: Any = None
        self._where = "this rank"
        self._extents: dict[str, Extent] = {}
        self._arrays: dict[str, Any] = {}
        self._numbers: dict[str, Any] = {}
        functions = {"global": self.spread} | {name: getattr(self, name) for name in FUNCTIONS if name != "global"}
        # Kept, as the program calls them for as long as it runs.
        self._functions = {name: kind(self._guarded(functions[name])) for name, kind in FUNCTIONS.items()}
        for name, function in self._functions.items():
            setattr(table, name, function)

    def _guarded(self, function: Callable[..., int]) -> Callable[..., int]:
        """Have exceptions end in a sentence: the program knows none."""

        @functools.wraps(function)
        def called(*values: Any) -> int:
            try:
                return function(*values)
            except (ValueError, KernelError) as error:
                name = values[0].decode(errors="replace") if values and isinstance(values[0], bytes) else ""
                self._say(f"{name + ': ' if name else ''}{error}")
            except Exception as error:
                self._say(f"ipmpi_{function.__name__} has failed in Python ({type(error).__name__}: {error})")
            return REFUSED

        return called

    def _say(self, sentence: str) -> None:
        print(f"ipmpi: {self._where}: {sentence}; the program goes on", file=sys.stderr, flush=True)

    # --- what the program calls --------------------------------------------------------------------------------

    def load(self) -> int:
        """Import what is needed, without talking to other ranks; if that fails, the reason is in the table."""
        table = self._table
        return self._unless_refused(lambda: load(table.abi.decode(), table.library.decode(errors="replace")))

    def attach(self) -> int:
        """Let the ranks of the communicator be steered. Collective; if it fails, the reason is in the table."""
        return self._unless_refused(self._attach)

    def _attach(self) -> None:
        table, environ = self._table, os.environ.get
        comm = load(table.abi.decode(), table.library.decode(errors="replace")).Comm.f2py(table.comm)
        self._where = f"rank {comm.rank}"
        self._session = steering.attach(
            comm, furl_file=environ(FURL_FILE, ""), name=environ(NAME, ""), replay=environ(REPLAY) or None,
            program=Path("/proc/self/exe").resolve().name,
        )  # fmt: skip
        for word, address in self._session.tick_words()._asdict().items():
            setattr(table, WORDS.get(word, word), address)
        table.ticks = 0

    def _unless_refused(self, step: Callable[[], object]) -> int:
        try:
            step()
        except Exception as error:
            kind = "" if isinstance(error, (OtherMPI, KernelError)) else f"{type(error).__name__}: "
            text = (ctypes.c_char * self._table.reason_size).from_address(self._table.reason)
            text.value = f"{kind}{error}".encode()[: self._table.reason_size - 1]
            return REFUSED
        return DONE

    def array(
        self, name: bytes | None, data: int | None, ndim: int, shape: Any, strides: Any, dtype: bytes | None
    ) -> int:
        """Name an array."""
        key = check_name(_text(name))
        if key in ("offset", "shape", "halo"):
            raise ValueError(f"{key!r} has another meaning for arrays: call it otherwise")
        if not 0 <= ndim <= MOST_DIMENSIONS:
            raise ValueError(f"ndim is {ndim}: it can be 0 to {MOST_DIMENSIONS}")
        if ndim and not shape:
            raise ValueError("the shape is NULL")
        array, extent = view(data, shape[:ndim], strides[:ndim] if strides else None, dtype_named(_text(dtype)))
        self._drop(key)
        self._arrays[key], self._extents[key] = array, extent
        self._session.publish(**{key: array})
        return DONE

    def spread(self, name: bytes | None, offset: Any, shape: Any, halo: Any) -> int:
        """Say which part of a global array an array is."""
        key = check_name(_text(name))
        if key not in self._arrays:
            raise ValueError("there is no array with this name: call ipmpi_array first")
        if not offset or not shape:
            raise ValueError(f"the {'shape' if offset else 'offset'} is NULL")
        array = self._arrays[key]
        ndim = array.ndim
        ghosts = tuple(halo[:ndim]) if halo else (0,) * ndim
        whole, begin = tuple(shape[:ndim]), tuple(offset[:ndim])
        for axis in range(ndim):
            owned = array.shape[axis] - 2 * ghosts[axis]
            if ghosts[axis] < 0 or owned < 0 or not 0 <= begin[axis] <= begin[axis] + owned <= whole[axis]:
                raise ValueError(
                    f"in dimension {axis}, {array.shape[axis]} elements with {ghosts[axis]} of the halo at each "
                    f"end, from {begin[axis]}, are no part of {whole[axis]}"
                )
        self._session.publish(**{key: array}, offset=begin, shape=whole, halo=ghosts)
        return DONE

    def number(self, name: bytes | None, data: int | None, kind: bytes) -> int:
        """Name a number that can be changed."""
        key = check_name(_text(name))
        number = number_at(data, kind.decode())
        self._drop(key)
        self._session.declare(key, number[0], place=number)
        self._numbers[key] = number
        return DONE

    def forget(self, name: bytes | None) -> int:
        """Take a name back."""
        key = check_name(_text(name))
        if not self._drop(key):
            raise ValueError("there is nothing with this name")
        return DONE

    def tick(self, step: int) -> int:
        """Do what is asked for between two steps; whether the program is asked to stop."""
        for key in [key for key, extent in self._extents.items() if not extent.is_there()]:
            self._drop(key)
            self._say(f'{key}: its memory was freed without ipmpi_forget("{key}"), so the name is gone')
        session = self._session
        session.set_count(self._table.ticks - 2)  # the last tick before this one
        session.tick(step)
        return STOP if session.stop_requested else DONE

    def detach(self) -> int:
        """Leave."""
        self._session.set_count(self._table.ticks - 1)
        self._session.detach()
        sys.stdout.flush()
        return DONE

    def _drop(self, key: str) -> bool:
        """Take a name back; whether there was one."""
        known = key in self._extents or key in self._numbers
        if known:
            for names in (self._extents, self._arrays, self._numbers):
                names.pop(key, None)
            self._session.withdraw(key)
        return known


def _text(name: bytes | None) -> str | None:
    return None if name is None else name.decode(errors="replace")


_programs: Final[list[Program]] = []
"""The one of this process."""


def begin(address: int) -> None:
    """Fill the table of the program at this address.

    Raises:
        RuntimeError: the program was compiled with an ``ipmpi_steer.c`` of another version.
    """
    table = Table.from_address(address)
    if table.size != ctypes.sizeof(Table):
        raise RuntimeError(
            "the program was compiled with ipmpi_steer.c of another version of ipmpi: compile it anew"
        )
    _programs[:] = [Program(table)]
