"""Shared bodies: one copy in memory, and writes stay private."""

from __future__ import annotations

import os
import struct

from ipmpi.engine.agent.shared import SharedMemory
from ipmpi.engine.rank.rank import _mapped


def shared(data: bytes) -> SharedMemory:
    memory = SharedMemory(len(data))
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
