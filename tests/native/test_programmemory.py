"""Views of memory that belongs to somebody else: what they show, what is refused, and whether it is there."""

from __future__ import annotations

import ctypes
import mmap
from random import Random

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ipmpi.native import programmemory as pm

DOUBLE = np.dtype("f8")
shapes = st.lists(st.integers(0, 4), max_size=4)


@given(shapes, st.randoms(use_true_random=False), st.sampled_from(["f8", "i2", "c16", "u1"]))
def test_a_view_is_the_memory_whatever_its_order_and_direction(
    shape: list[int], random: Random, kind: str
) -> None:
    whole = np.arange(np.prod([2 * length for length in shape], dtype=int)).astype(kind)
    whole = whole.reshape([2 * length for length in shape])
    part = whole[(..., *(slice(None, None, random.choice((-2, 2))) for _ in shape))]
    axes = list(range(len(shape)))
    random.shuffle(axes)
    part = part.transpose(axes)
    seen, extent = pm.view(part.ctypes.data, part.shape, part.strides, part.dtype)
    assert seen.strides == part.strides or not part.size
    assert np.array_equal(seen, part)
    assert extent.is_there()
    if part.size:
        seen[...] = 7
        assert (part == 7).all()


def test_without_strides_the_order_is_that_of_c() -> None:
    memory = np.arange(24.0)
    seen, _ = pm.view(memory.ctypes.data, [2, 3, 4], None, DOUBLE)
    assert seen.flags.c_contiguous
    assert np.array_equal(seen, memory.reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("data", "shape", "strides", "why"),
    [
        (None, [3], None, "the address is NULL"),
        (0, [], None, "the address is NULL"),
        (4096, [3, -1], None, r"its shape is \(3, -1\): no length can be negative"),
        (2**62, [2**40, 2**40], None, "does not fit in memory"),
        (64, [3], [-4096], "does not fit in memory"),
        (1 << 20, [1 << 40], None, r"there is no memory for shape \(1099511627776,\) at this address"),
    ],
)
def test_what_is_no_memory_is_refused(
    data: int | None, shape: list[int], strides: list[int] | None, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        pm.view(data, shape, strides, DOUBLE)


def test_memory_that_was_given_back_to_the_system_is_noticed() -> None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    size = 3 * mmap.PAGESIZE
    address = libc.mmap(None, ctypes.c_size_t(size), 3, 0x22, -1, ctypes.c_size_t(0))
    seen, extent = pm.view(address, [size // 8], None, DOUBLE)
    assert seen.sum() == 0
    assert extent.is_there()
    libc.munmap(ctypes.c_void_p(address + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE))
    assert not extent.is_there()
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))


@pytest.mark.parametrize("name", ["T", "_nu2", "größe"])
def test_names_of_python_are_taken(name: str) -> None:
    assert pm.check_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [(None, "the name is NULL"), ("", "cannot be a name"), ("a b", "'a b' cannot"), ("if", "'if' cannot")],
)
def test_other_names_are_refused(name: str | None, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        pm.check_name(name)


@pytest.mark.parametrize("text", ["f8", "float32", ">i4", "c16", "f8,i4", "S3"])
def test_dtypes_of_fixed_size_are_taken(text: str) -> None:
    assert pm.dtype_named(text) == np.dtype(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "the dtype is NULL"),
        ("x9", "NumPy knows no dtype 'x9'"),
        ("f8,,", "NumPy knows no dtype"),
        ("O", "no plain memory"),
        ("V0", "no plain memory"),
    ],
)
def test_other_dtypes_are_refused(text: str | None, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        pm.dtype_named(text)


def test_a_number_is_read_and_written_where_it_is() -> None:
    x, n = ctypes.c_double(0.1), ctypes.c_int(3)
    number = pm.number_at(ctypes.addressof(x), "f8")
    count = pm.number_at(ctypes.addressof(n), "i4")
    x.value = 0.25
    assert (number[0], count[0]) == (0.25, 3)
    number[0], count[0] = 0.5, -4
    assert (x.value, n.value) == (0.5, -4)
    with pytest.raises(ValueError, match="the address is NULL"):
        pm.number_at(None, "f8")
