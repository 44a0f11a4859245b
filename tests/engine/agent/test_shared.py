"""Shared bodies: one copy in memory, and writes stay private."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator

import pytest

from ipmpi.engine.agent.shared import SharedMemory
from ipmpi.engine.rank.rank import _mapped
from ipmpi.transport.loop import Loop
from ipmpi.transport.memoryfile import MemoryFile, in_memory
from ipmpi.transport.timedpool import TimedPool

LARGE = 2_000_000


@pytest.fixture
def pool() -> Iterator[TimedPool]:
    loop = Loop()
    yield TimedPool(loop)
    loop.close()


def shared(data: bytes, pool: TimedPool | None = None) -> SharedMemory:
    memory = SharedMemory(len(data), pool)
    half = len(data) // 2
    memory.write(half, memoryview(data)[half:])
    memory.write(0, memoryview(data)[:half])
    return memory


def test_what_was_written_in_pieces_is_there_and_outlives_the_file() -> None:
    memory = shared(b"hello, world")
    parts = _mapped([memory.descriptor], [5, 0, 7])
    memory.close()
    memory.close()
    assert [bytes(part) for part in parts] == [b"hello", b"", b", world"]


def test_writes_stay_in_their_mapping() -> None:
    memory = shared(bytes(10_000))
    (one,), (two,) = _mapped([memory.descriptor], [10_000]), _mapped([memory.descriptor], [10_000])
    assert isinstance(one, memoryview)
    one[5000] = 7
    assert (one[5000], two[5000]) == (7, 0)
    assert os.pread(memory.descriptor, 1, 5000) == b"\0"
    memory.close()


def test_writes_stay_in_their_process() -> None:
    memory = shared(b"a" * 100_000)
    (mine,) = _mapped([memory.descriptor], [100_000])
    assert isinstance(mine, memoryview)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            (theirs,) = _mapped([memory.descriptor], [100_000])
            assert isinstance(theirs, memoryview)
            before = bytes(theirs[:4])
            theirs[:4] = b"bbbb"
            os.write(write, struct.pack("4s4s", before, bytes(theirs[:4])))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"aaaabbbb"
    os.waitpid(child, 0)
    assert bytes(mine[:4]) == b"aaaa"
    mine[:4] = b"cccc"
    assert os.pread(memory.descriptor, 4, 0) == b"aaaa"
    memory.close()


def test_descriptor_is_not_inherited_by_programs() -> None:
    memory = shared(b"x")
    assert not os.get_inheritable(memory.descriptor)
    memory.close()


def inode(memory: SharedMemory) -> int:
    return os.fstat(memory.descriptor).st_ino


def test_files_that_no_rank_has_any_more_are_used_again(pool: TimedPool) -> None:
    memory = shared(b"a" * LARGE, pool)
    first = inode(memory)
    (mapped,) = _mapped([memory.descriptor], [LARGE])
    memory.close()
    other = shared(b"b" * LARGE, pool)
    assert inode(other) != first, "a rank has it mapped"
    other.close()
    assert bytes(mapped[-3:]) == b"aaa"
    del mapped
    third, fourth = shared(b"c" * LARGE, pool), shared(b"d" * LARGE, pool)
    assert first in (inode(third), inode(fourth))
    assert [os.pread(each.descriptor, 2, LARGE - 2) for each in (third, fourth)] == [b"cc", b"dd"]
    third.close()
    fourth.close()


def test_ranks_cannot_write_to_them(pool: TimedPool) -> None:
    memory = shared(b"a" * LARGE, pool)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(memory.descriptor, b"x", 0)
    memory.close()


@pytest.mark.parametrize("size", [10, LARGE])
def test_what_ranks_hold_already_is_not_sealed_against_their_writes(pool: TimedPool, size: int) -> None:
    memory = shared(b"a" * size, pool)
    held = os.dup(memory.descriptor)
    (mapped,) = _mapped([held], [size])
    memory.close()
    assert not fcntl.fcntl(held, 1034) & 0x8, "F_GET_SEALS, F_SEAL_WRITE"
    assert isinstance(mapped, memoryview)
    mapped[0] = 7
    os.close(held)


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_body_that_does_not_come_leaves_nothing(pool: TimedPool, size: int) -> None:
    before = os.listdir("/proc/self/fd")
    memory = SharedMemory(size, pool)
    memory.write(0, memoryview(b"abc"))
    memory.close()
    memory.close()
    assert os.listdir("/proc/self/fd") == before


def test_a_file_of_the_sender_takes_its_place(pool: TimedPool) -> None:
    memory = SharedMemory(LARGE, pool)
    descriptor = in_memory([b"f" * LARGE], sealed=True)
    assert memory.take(0, MemoryFile(descriptor, LARGE))
    assert os.pread(memory.descriptor, 3, LARGE - 3) == b"fff"
    assert pool.is_idle, "its own file is not kept"
    memory.close()
