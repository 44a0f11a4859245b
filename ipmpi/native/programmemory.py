"""Memory of a program in C or Fortran, as NumPy arrays and numbers of Python."""

from __future__ import annotations

import ctypes
import errno
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any, Final

import numpy as np

MOST_DIMENSIONS: Final = 15
"""As many as arrays in Fortran have."""

_MS_ASYNC: Final = 1
"""Of ``msync``: writes nothing by itself, and says whether there is memory."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def check_name(name: str | None) -> str:
    """Return ``name`` if Python can have it.

    Raises:
        ValueError: it is no name; says why.
    """
    if name is None:
        raise ValueError("the name is NULL")
    if not name.isidentifier() or iskeyword(name):
        raise ValueError(f"{name!r} cannot be a name in Python: use letters, digits and _")
    return name


def dtype_named(text: str | None) -> np.dtype[Any]:
    """The dtype of that name, of elements without pointers.

    Raises:
        ValueError: there is none.
    """
    if text is None:
        raise ValueError("the dtype is NULL, or a type of Fortran that NumPy does not have")
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError, SyntaxError):
        raise ValueError(f"NumPy knows no dtype {text!r}; IPMPI_DOUBLE is 'f8', a C int is 'i4'") from None
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"elements of dtype {text!r} are no plain memory of fixed size")
    return dtype


@dataclass(frozen=True)
class Extent:
    """A range of addresses: those of the elements of an array.

    Attributes:
        first: of the first byte.
        size: in bytes.
    """

    first: int
    size: int

    def is_there(self) -> bool:
        """Whether all of it is memory of this process. What was freed and kept by the allocator still is."""
        if not self.size:
            return True
        begin = self.first - self.first % mmap.PAGESIZE
        length = self.first + self.size - begin
        done = _libc.msync(ctypes.c_void_p(begin), ctypes.c_size_t(length), _MS_ASYNC)
        return done == 0 or ctypes.get_errno() != errno.ENOMEM


def view(
    data: int | None, shape: Sequence[int], strides: Sequence[int] | None, dtype: np.dtype[Any]
) -> tuple[np.ndarray[Any, Any], Extent]:
    """An array that is the program's memory, and where that is.

    Args:
        data: the address of element ``[0, 0, ...]``.
        shape: of the array.
        strides: in bytes; ``None``: contiguous, in the order of C.
        dtype: of an element.

    Raises:
        ValueError: this is no memory.
    """
    if any(length < 0 for length in shape):
        raise ValueError(f"its shape is {tuple(shape)}: no length can be negative")
    if strides is None:
        strides = [dtype.itemsize * int(np.prod(shape[axis + 1 :], dtype=object)) for axis in range(len(shape))]
    if 0 in shape:
        return np.empty(shape, dtype), Extent(0, 0)
    if not data:
        raise ValueError("the address is NULL")
    steps = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    before = -sum(step for step in steps if step < 0)
    size = before + sum(step for step in steps if step > 0) + dtype.itemsize
    if data - before < 0 or data - before + size > 2**63:
        raise ValueError(f"an array of shape {tuple(shape)} and strides {tuple(strides)} does not fit in memory")
    extent = Extent(data - before, size)
    if not extent.is_there():
        raise ValueError(f"there is no memory for shape {tuple(shape)} at this address: is the shape right?")
    memory = memoryview((ctypes.c_char * size).from_address(extent.first)).cast("B")
    return np.ndarray(shape, dtype, memory, before, strides), extent


def number_at(address: int | None, kind: str) -> memoryview:
    """A number of the program: the only element of what is returned.

    Raises:
        ValueError: there is none.
    """
    return view(address, [1], None, dtype_named(kind))[0].data
