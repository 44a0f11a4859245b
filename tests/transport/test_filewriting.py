"""A file in memory while a body is written to it: the same, whether it is of a pool or used once."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator

import pytest

from ipmpi import limits
from ipmpi.transport.filewriting import begin_file
from ipmpi.transport.loop import Loop
from ipmpi.transport.timedpool import TimedPool

_GET_SEALS = 1034
_SEAL_SHRINK, _SEAL_WRITE = 0x2, 0x8


@pytest.fixture(params=["used again", "used once", "no pool"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[TimedPool | None]:
    if request.param == "used once":
        monkeypatch.setattr(limits, "POOL_BYTES", 0)
    loop = Loop()
    yield None if request.param == "no pool" else TimedPool(loop)
    loop.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_pieces_come_in_any_order_and_the_file_is_handed_out(pool: TimedPool | None) -> None:
    writing = begin_file(pool, 10)
    writing.write(4, b"efghij")
    writing.write(0, memoryview(b"abcd"))
    assert os.pread(writing.reader, 20, 0)[:10] == b"abcdefghij", "others can have it already"
    file = writing.finish(10)
    assert (file.size, bytes(file.part(0, 10))) == (10, b"abcdefghij")


def test_it_may_end_before_all_was_written(pool: TimedPool | None) -> None:
    writing = begin_file(pool, 1_000_000, sealed=True)
    writing.write(0, b"abc")
    file = writing.finish(3)
    file.claim(3)
    assert bytes(file.part(0, 3)) == b"abc"


def test_a_write_without_room_leaves_what_was_there(
    pool: TimedPool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = begin_file(pool, 1000, sealed=True)
    writing.write(0, b"abc")
    pwrite = os.pwrite
    calls = iter([1, 0])

    def short(descriptor: int, data: memoryview, at: int) -> int:
        if next(calls):
            return pwrite(descriptor, data[:2], at)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", short)
    with pytest.raises(OSError, match="No space left"):
        writing.write(3, b"defg")
    monkeypatch.undo()
    file = writing.finish(3)
    assert bytes(file.part(0, file.size)) == b"abc"


@pytest.mark.parametrize("sealed", [True, False])
def test_only_where_asked_for_a_file_that_is_used_once_is_sealed(sealed: bool) -> None:
    writing = begin_file(None, 3, sealed=sealed)
    writing.write(0, b"abc")
    file = writing.finish(3)
    seals = fcntl.fcntl(file.descriptor, _GET_SEALS)
    assert bool(seals & _SEAL_WRITE) is bool(seals & _SEAL_SHRINK) is sealed
    if sealed:
        file.claim(3)


@pytest.mark.parametrize("is_needed", [True, False], ids=["finished", "given up"])
def test_nothing_stays_open(pool: TimedPool | None, is_needed: bool) -> None:
    before = open_files()
    writing = begin_file(pool, 1_000_000)
    writing.write(0, b"abc")
    if is_needed:
        writing.finish(3)
    else:
        writing.give_up()
    if pool is not None:
        pool.close()
    assert open_files() == before


def test_files_that_nobody_has_any_more_are_used_again(
    request: pytest.FixtureRequest, pool: TimedPool | None
) -> None:
    inodes = set()
    files = []
    for _ in range(3):
        writing = begin_file(pool, 1_000_000)
        writing.write(0, bytes(1_000_000))
        file = writing.finish(1_000_000)
        inodes.add(os.fstat(file.descriptor).st_ino)
        if "used again" in request.node.name:
            del writing, file
        else:  # or the system may give its number again
            files.append(file)
    assert len(inodes) == (1 if "used again" in request.node.name else 3)


def test_one_that_is_used_once_is_refused_where_there_is_no_room(pool: TimedPool | None) -> None:
    before = open_files()
    if pool is not None and limits.POOL_BYTES:
        begin_file(pool, 1000, room=lambda: 0).give_up()  # the pool has a bound of its own
        return
    with pytest.raises(OSError, match="Cannot allocate memory"):
        begin_file(pool, 1001, room=lambda: 1000)
    assert open_files() == before
    begin_file(pool, 1000, room=lambda: 1000).give_up()
