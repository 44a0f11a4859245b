"""A sender never writes to a file that anybody can see, and keeps no more of them, and no longer, than it may."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import mmap
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest

from ipmpi import limits
from ipmpi.transport import segmentpool
from ipmpi.transport.loop import Loop
from ipmpi.transport.memoryfile import FIXED_SIZE, SEALS, MemoryFile
from ipmpi.transport.packetlink import PacketLink
from ipmpi.transport.packets import packet_pair
from ipmpi.transport.privatememory import PrivateMemory
from ipmpi.transport.segmentpool import SegmentPool

SIZE = 300_000
BOUND = 100 * SIZE
GET_SEALS = getattr(fcntl, "F_GET_SEALS", 1034)


def pattern(number: int, size: int = SIZE) -> bytes:
    """Bytes that are others for each number."""
    return np.random.default_rng(number).bytes(size)


@pytest.fixture
def pool() -> Iterator[SegmentPool]:
    made = SegmentPool(lambda: BOUND)
    yield made
    made.close()


def filled(pool: SegmentPool, number: int, size: int = SIZE, now: float = 0.0) -> int:
    return pool.file_with([pattern(number, size)], size, now)


def once(pool: SegmentPool, number: int, size: int = SIZE, now: float = 0.0) -> int:
    """Fill a file and let go of it; which one it was."""
    descriptor = filled(pool, number, size, now)
    assert os.pread(descriptor, size, 0) == pattern(number, size)
    file = os.fstat(descriptor).st_ino
    os.close(descriptor)
    return file


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def is_dropped(file: int) -> bool:
    """Whether this process has no descriptor of a file."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/self/fd/{name}").st_ino == file:
                return False
    return True


# --- who can see a file --------------------------------------------------------------------------------------

Sees = tuple[Callable[[], bytes], Callable[[], object]]
"""What the file has for whoever can see it, and how that one lets go of it."""


def by_descriptor(descriptor: int) -> Sees:
    return lambda: os.pread(descriptor, SIZE, 0), lambda: os.close(descriptor)


def by_copy_of_descriptor(descriptor: int) -> Sees:
    copy = os.dup(descriptor)
    os.close(descriptor)
    return by_descriptor(copy)


def in_socket(descriptor: int) -> Sees:
    here, there = socket.socketpair()
    socket.send_fds(here, [b"x"], [descriptor])
    os.close(descriptor)
    here.close()
    received: list[int] = []

    def sees() -> bytes:
        received.extend(socket.recv_fds(there, 1, 1)[1])
        return os.pread(received[0], SIZE, 0)

    return sees, lambda: (there.close(), os.close(received[0]))


def in_closed_socket(descriptor: int) -> Sees:
    """It is on its way, and nobody takes it."""
    here, there = socket.socketpair()
    socket.send_fds(here, [b"x"], [descriptor])
    os.close(descriptor)
    here.close()
    return lambda: b"", there.close


def in_queue_of_a_rank(descriptor: int) -> Sees:
    """The rank reads nothing, so packets for it wait in the agent."""
    loop = Loop()
    here, there = packet_pair()
    link = PacketLink(loop, here, lambda *_: None, lambda *_: None)
    while not link._waiting:
        link.send(bytes(50_000))
    link.send(b"x", (descriptor,))
    os.close(descriptor)
    waiting = link._waiting[-1][1][0]
    return lambda: os.pread(waiting, SIZE, 0), lambda: (link.close(), there.close(), loop.close())


def by_file(descriptor: int) -> Sees:
    """As the controller has it until it was acknowledged."""
    files = [MemoryFile(descriptor, SIZE)]
    return lambda: bytes(files[0].part(0, SIZE)), files.clear


def by_part_of_file(descriptor: int) -> Sees:
    parts = [MemoryFile(descriptor, SIZE).part(0, SIZE)]
    return lambda: bytes(parts[0]), parts.clear


def by_mapping(descriptor: int) -> Sees:
    """As ranks map it."""
    memory = mmap.mmap(descriptor, SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(descriptor)
    return lambda: bytes(memory), memory.close


def by_view_of_a_view(descriptor: int) -> Sees:
    whole = mmap.mmap(descriptor, SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(descriptor)
    views = [np.frombuffer(whole, np.uint8)[:][::-1][::-1]]
    del whole
    return lambda: views[0].tobytes(), views.clear


def by_mapping_alone(descriptor: int) -> Sees:
    """As clients map it: without a descriptor."""
    memory = PrivateMemory([0, SIZE])
    assert memory.take(0, MemoryFile(descriptor, SIZE))
    gc.collect()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)
    views = [memory.segments([0, SIZE])[1]]
    del memory
    return lambda: bytes(views[0]), views.clear


def child_main(pipe: Connection, memory: mmap.mmap) -> None:
    while pipe.recv() == "what?":
        pipe.send_bytes(bytes(memory))


def by_forked_child(descriptor: int) -> Sees:
    memory = mmap.mmap(descriptor, SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(descriptor)
    pipe, its = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=child_main, args=(its, memory))
    child.start()
    memory.close()

    def sees() -> bytes:
        pipe.send("what?")
        return pipe.recv_bytes()

    return sees, lambda: (pipe.send("end"), child.join(60))


RECEIVER = """
import mmap, os, socket, sys
sock = socket.socket(fileno=0)
(descriptor,) = socket.recv_fds(sock, 1, 1)[1]
memory = mmap.mmap(descriptor, int(sys.argv[1]), flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
sock.send(b"!")
while sock.recv(1):
    sock.sendall(memory)
"""


def receiver(descriptor: int) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Another process, which has mapped the file."""
    here, there = socket.socketpair()
    process = subprocess.Popen([sys.executable, "-c", RECEIVER, str(SIZE)], stdin=there)
    there.close()
    socket.send_fds(here, [b"x"], [descriptor])
    os.close(descriptor)
    assert here.recv(1) == b"!"
    return process, here


def asked(sock: socket.socket) -> bytes:
    sock.send(b"?")
    return sock.recv(SIZE, socket.MSG_WAITALL)


def by_stopped_process(descriptor: int) -> Sees:
    process, sock = receiver(descriptor)
    os.kill(process.pid, signal.SIGSTOP)

    def sees() -> bytes:
        os.kill(process.pid, signal.SIGCONT)
        return asked(sock)

    return sees, lambda: (sock.close(), process.wait(60))


def by_process_that_is_killed(descriptor: int) -> Sees:
    process, sock = receiver(descriptor)
    return lambda: asked(sock), lambda: (process.kill(), process.wait(60), sock.close())


HOLDERS = (
    by_descriptor, by_copy_of_descriptor, in_socket, in_closed_socket, in_queue_of_a_rank, by_file,
    by_part_of_file, by_mapping, by_view_of_a_view, by_mapping_alone, by_forked_child, by_stopped_process,
    by_process_that_is_killed,
)  # fmt: skip


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: holder.__name__)
def test_it_is_not_written_while_somebody_can_see_it_and_used_again_then(
    pool: SegmentPool, holder: Callable[[int], Sees]
) -> None:
    descriptor = filled(pool, 1)
    file = os.fstat(descriptor).st_ino
    sees, let_go = holder(descriptor)
    others = {once(pool, number, now=float(number)) for number in range(2, 6)}
    assert file not in others
    assert len(others) == 1, "the others are one file, which is free each time"
    found = sees()
    assert found in (pattern(1), b"")
    let_go()
    gc.collect()
    held = filled(pool, 6, now=6.0)  # the one that was used last longest ago comes first
    assert os.fstat(held).st_ino == file
    assert os.pread(held, SIZE, 0) == pattern(6)
    os.close(held)


def test_receivers_cannot_write_to_it_nor_cut_it_off(pool: SegmentPool) -> None:
    descriptor = filled(pool, 1)
    with pytest.raises(OSError, match="Bad file"):
        os.write(descriptor, b"x")
    with pytest.raises(OSError, match=r"Invalid|Bad file"):
        os.ftruncate(descriptor, 1)
    with pytest.raises(PermissionError):
        mmap.mmap(descriptor, SIZE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
    for size in (1, 2 * SIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(again, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(again, getattr(fcntl, "F_ADD_SEALS", 1033), SEALS)
    os.close(again)
    MemoryFile(descriptor).claim(SIZE)


# --- which file is used again --------------------------------------------------------------------------------


def test_a_smaller_body_uses_a_file_again_if_it_fills_half_of_it(pool: SegmentPool) -> None:
    file = once(pool, 1)
    assert once(pool, 2, SIZE // 2 + 20_000) == file
    assert once(pool, 3, SIZE // 3) != file
    assert once(pool, 4, SIZE + 5000) == file, "sizes are rounded up"
    assert once(pool, 5, 2 * SIZE) != file


def test_several_buffers_are_one_body(pool: SegmentPool) -> None:
    descriptor = pool.file_with([b"abc", bytearray(b"de"), memoryview(np.arange(2)), b""], 21, 0.0)
    assert os.pread(descriptor, 21, 0) == b"abcde" + np.arange(2).tobytes()
    os.close(descriptor)


def test_threads_never_get_the_same_file(pool: SegmentPool) -> None:
    wrong: list[int] = []

    def work(thread: int) -> None:
        for number in range(40):
            wanted = bytes([thread]) * (SIZE - number)
            descriptor = pool.file_with([wanted], len(wanted), float(number))
            if os.pread(descriptor, len(wanted), 0) != wanted:
                wrong.append(thread)
            os.close(descriptor)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


# --- bounds --------------------------------------------------------------------------------------------------


def kept(pool: SegmentPool) -> int:
    return sum(segment.size for segment in pool._segments)


def test_no_more_bytes_are_kept_than_the_bound_and_those_used_last_stay() -> None:
    pool = SegmentPool(lambda: 4 * SIZE)
    held = [filled(pool, number, now=float(number)) for number in range(8)]
    assert 2 * SIZE < kept(pool) <= 4 * SIZE
    files = [os.fstat(descriptor).st_ino for descriptor in held]
    for descriptor in held:
        os.close(descriptor)
    assert [is_dropped(file) for file in files] == [True] * 5 + [False] * 3
    pool.close()
    assert all(map(is_dropped, files))


def test_one_that_is_larger_than_the_bound_is_used_once_and_can_never_be_written_again() -> None:
    pool = SegmentPool(lambda: SIZE - 1)
    small = once(pool, 2, SIZE // 3)
    descriptor = filled(pool, 1)
    assert not is_dropped(small), "nothing has to make room for it"
    pool.close()
    assert fcntl.fcntl(descriptor, GET_SEALS) & SEALS == SEALS
    MemoryFile(descriptor).claim(SIZE)


def test_the_bound_may_change(pool: SegmentPool) -> None:
    bounds = [10 * SIZE, 3 * SIZE]
    pool = SegmentPool(lambda: bounds.pop(0))
    held = [filled(pool, number, now=0.0) for number in range(5)]
    assert kept(pool) > 5 * SIZE
    held.append(filled(pool, 5, now=100.0))
    assert kept(pool) <= 3 * SIZE
    for descriptor in held:
        os.close(descriptor)
    pool.close()


def test_no_more_files_are_kept_than_descriptors_can_be_spared(pool: SegmentPool) -> None:
    before = descriptors()
    held = [filled(pool, number, 4096) for number in range(limits.POOL_FILES + 5)]
    assert descriptors() == before + len(held) + limits.POOL_FILES
    for descriptor in held:
        os.close(descriptor)
    pool.close()
    assert descriptors() == before


def test_a_file_is_given_back_when_it_was_not_used_for_a_while_also_if_somebody_has_it(pool: SegmentPool) -> None:
    assert pool.give_back(0.0) is None
    free, held = once(pool, 1, now=10.0), filled(pool, 2, 3 * SIZE, now=11.0)
    later = once(pool, 3, 10 * SIZE, now=13.0)
    assert pool.give_back(14.0) == pytest.approx(10.0 + limits.POOL_KEEPS - 14.0)
    assert not is_dropped(free)
    assert pool.give_back(12.0 + limits.POOL_KEEPS) == pytest.approx(1.0)
    assert is_dropped(free)
    assert not is_dropped(later)
    assert os.pread(held, 3 * SIZE, 0) == pattern(2, 3 * SIZE)
    assert pool.give_back(13.0 + limits.POOL_KEEPS) is None
    assert pool.is_empty
    assert is_dropped(later)
    os.close(held)


def test_a_file_that_is_being_written_is_neither_given_back_nor_closed(
    pool: SegmentPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number could be that of another file a moment later."""
    write, began, goes_on = segmentpool.write_all, threading.Event(), threading.Event()

    def slow(descriptor: int, data: Any) -> int:
        began.set()
        assert goes_on.wait(60)
        return write(descriptor, data)

    monkeypatch.setattr(segmentpool, "write_all", slow)
    made: list[int] = []
    thread = threading.Thread(target=lambda: made.append(filled(pool, 1)))
    thread.start()
    assert began.wait(60)
    pool.give_back(1000.0)
    assert not pool.is_empty
    pool.close()
    goes_on.set()
    thread.join(60)
    assert os.pread(made[0], SIZE, 0) == pattern(1)
    assert pool.is_empty
    os.close(made[0])


def test_after_its_end_a_pool_keeps_nothing(pool: SegmentPool) -> None:
    pool.close()
    descriptor = filled(pool, 1)
    assert os.pread(descriptor, SIZE, 0) == pattern(1)
    assert pool.is_empty
    os.close(descriptor)


def test_a_pool_that_nobody_has_any_more_leaves_no_file_open() -> None:
    before = descriptors()
    pool = SegmentPool(lambda: BOUND)
    file = once(pool, 1)
    assert not is_dropped(file)
    del pool
    gc.collect()
    assert descriptors() == before


# --- what can go wrong ---------------------------------------------------------------------------------------


def is_used_once(pool: SegmentPool) -> bool:
    before = descriptors()
    descriptor = filled(pool, 9)
    seals = fcntl.fcntl(descriptor, GET_SEALS)
    assert os.pread(descriptor, SIZE, 0) == pattern(9)
    os.close(descriptor)
    return descriptors() <= before and pool.is_empty and seals & SEALS == SEALS


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EMFILE, errno.EACCES])
def test_where_it_cannot_be_opened_once_more_a_file_is_used_once(
    pool: SegmentPool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """There is no /proc, say."""
    once(pool, 1)

    def refuse(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(segmentpool.os, "open", refuse)
    assert is_used_once(pool)


def test_where_files_in_memory_are_not_locked_a_file_is_used_once(
    pool: SegmentPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentpool.fcntl, "flock", lambda *_: None)
    assert is_used_once(pool)


def test_a_file_that_somebody_has_locked_is_not_written(pool: SegmentPool) -> None:
    file = once(pool, 1)
    other = os.open(f"/proc/self/fd/{pool._segments[0].descriptor}", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    assert once(pool, 2) != file
    os.close(other)


def test_without_room_it_says_so_and_keeps_nothing_half_written(
    pool: SegmentPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(segmentpool, "write_all", full)
        with pytest.raises(OSError, match="No space"):
            filled(pool, 1)
    assert pool.is_empty
    assert descriptors() == before
    once(pool, 2)


def test_without_a_descriptor_it_says_so_and_gives_up_what_it_keeps(pool: SegmentPool) -> None:
    once(pool, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    highest = max(map(int, os.listdir("/proc/self/fd")))
    filler: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        with contextlib.suppress(OSError):
            while True:
                filler.append(os.open(os.devnull, os.O_RDONLY))
        # The descriptor of the file that it kept is enough for one that is used once.
        descriptor = filled(pool, 2)
        assert pool.is_empty
        with pytest.raises(OSError, match="Too many open files"):
            filled(pool, 3)
        os.close(descriptor)
    finally:
        for each in (*spare, *filler):
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    file = once(pool, 4)
    assert once(pool, 5) == file


def test_a_forked_child_has_none_of_the_files_and_keeps_none(pool: SegmentPool) -> None:
    """It would share the locks of its parent, and both would write."""
    file = once(pool, 1)
    assert once(pool, 0) == file, "it is mapped now"

    def look(pipe: Connection) -> None:
        with open("/proc/self/maps") as maps:
            written = [line for line in maps if "ipmpi-body" in line and line.split()[1] == "rw-s"]
        assert not written, "others may have received some"
        pipe.send((is_dropped(file), pool.is_empty))
        mine = once(pool, 2)
        pipe.send((mine != file, pool.is_empty))

    pipe, its = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=look, args=(its,))
    child.start()
    assert pipe.poll(60)
    assert pipe.recv() == (True, True)
    assert pipe.recv() == (True, True)
    child.join(60)
    assert once(pool, 3) == file


def test_while_numpy_is_being_imported_it_is_written_all_the_same(
    pool: SegmentPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = once(pool, 1)
    monkeypatch.setitem(sys.modules, "numpy", types.ModuleType("numpy"))
    assert once(pool, 2) == file


def test_what_fails_half_way_through_a_map_leaves_nothing(
    pool: SegmentPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(pool, 1)
    before = descriptors()

    def fail(place: Any, data: Any) -> None:
        raise TimeoutError(f"{len(place)} {len(data)}")

    monkeypatch.setattr(np, "copyto", fail)
    with pytest.raises(TimeoutError):
        filled(pool, 2)
    monkeypatch.undo()
    assert pool.is_empty
    assert descriptors() == before - 1
    once(pool, 3)


def test_files_that_are_being_written_count_too(pool: SegmentPool) -> None:
    before = descriptors()
    writing = [pool.begin(100_000, 0.0) for _ in range(limits.POOL_FILES + 10)]
    begun = [each for each in writing if each is not None]
    assert len(begun) == limits.POOL_FILES
    assert descriptors() == before + 2 * limits.POOL_FILES
    for each in begun:
        each.give_up()
    assert descriptors() == before


def test_without_address_space_for_a_map_it_is_written_all_the_same(
    pool: SegmentPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> mmap.mmap:
        raise OSError(12, "Cannot allocate memory")

    file = once(pool, 1)
    monkeypatch.setattr(mmap, "mmap", refuse)
    descriptor = filled(pool, 2)
    monkeypatch.undo()
    assert os.fstat(descriptor).st_ino == file
    assert os.pread(descriptor, SIZE, 0) == pattern(2)
    os.close(descriptor)


def test_a_program_that_is_started_has_none_of_the_files(pool: SegmentPool) -> None:
    descriptor = filled(pool, 1)
    program = "import os; print(*(os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')[:-1]))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stdout
    assert "ipmpi-body" not in shown
    os.close(descriptor)


def test_the_size_is_fixed_from_the_beginning(pool: SegmentPool) -> None:
    descriptor = filled(pool, 1)
    assert fcntl.fcntl(descriptor, GET_SEALS) & FIXED_SIZE == FIXED_SIZE
    assert os.fstat(descriptor).st_size >= SIZE
    os.close(descriptor)


def test_it_costs_no_time_to_look_at_many_files_that_others_have(pool: SegmentPool) -> None:
    """A rank looks for each piece of 4 MiB, which takes a millisecond to copy."""
    held = [filled(pool, 1, 4096) for _ in range(limits.POOL_FILES)]
    begun = time.process_time()
    for _ in range(20):
        os.close(filled(pool, 1, 4096))
    assert time.process_time() - begun < 20 * 0.005
    for descriptor in held:
        os.close(descriptor)
