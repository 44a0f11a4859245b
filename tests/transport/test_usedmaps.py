"""Memory of large bodies is used again when, and only when, nobody refers to it any more."""

from __future__ import annotations

import mmap
import os
import random
import threading
from collections.abc import Callable

import numpy as np
import pytest

from ipmpi import limits
from ipmpi.transport.memoryfile import MemoryFile, in_memory
from ipmpi.transport.privatememory import PrivateMemory
from ipmpi.transport.usedmaps import UsedMaps

SIZE = 3_000_000


class Clock:
    """What is to be called later."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        self.calls.append((delay, call))

    def ring(self) -> float:
        delay, call = self.calls.pop()
        call()
        return delay


def received(used: UsedMaps, value: int, size: int = SIZE) -> np.ndarray:
    """An array as a body brings it."""
    memory = PrivateMemory([size], used)
    memory.write(0, memoryview(bytes([value]) * size))
    (segment,) = memory.segments([size])
    return np.frombuffer(segment, np.uint8)


def place(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_whose_array_is_gone_is_filled_again() -> None:
    used = UsedMaps(Clock().call_later)
    first = received(used, 1)
    where = place(first)
    del first
    assert place(received(used, 2)) == where


HELD: list[Callable[[np.ndarray], object]] = [
    lambda array: array,
    lambda array: array[5:9][::2],
    lambda array: memoryview(array)[7:8],
    lambda array: array.view(np.int16).reshape(2, -1).T,
    lambda array: {"x": [array.data]},
    lambda array: np.lib.stride_tricks.as_strided(array, (3,), (2,)),
]


@pytest.mark.parametrize("hold", HELD, ids=["array", "slice", "memoryview", "reshaped", "container", "strided"])
def test_what_anything_refers_to_stays_as_it_is(hold: Callable[[np.ndarray], object]) -> None:
    used = UsedMaps(Clock().call_later)
    array = received(used, 1)
    where = place(array)
    held = hold(array)
    del array
    others = [received(used, value) for value in range(2, 6)]
    assert where not in map(place, others)
    del held
    assert place(received(used, 9)) == where
    assert [int(other[-1]) for other in others] == [2, 3, 4, 5]


def test_a_body_that_is_arriving_is_in_use() -> None:
    used = UsedMaps(Clock().call_later)
    arriving = [PrivateMemory([SIZE], used) for _ in range(3)]
    for value, memory in enumerate(arriving):
        memory.write(0, memoryview(bytes([value]) * SIZE))
    assert [bytes(memory.segments([SIZE])[0]) for memory in arriving] == [bytes([v]) * SIZE for v in range(3)]


def test_random_lives_of_arrays() -> None:
    used, dice = UsedMaps(Clock().call_later), random.Random(4)
    alive: list[tuple[int, np.ndarray]] = []
    for value in range(300):
        alive.append(
            (value % 256, received(used, value % 256, dice.randrange(1, 200_000))[:: dice.choice([1, 3])])
        )
        while len(alive) > dice.randrange(1, 8):
            del alive[dice.randrange(len(alive))]
        assert all((array == number).all() for number, array in alive)


def test_threads_never_get_the_same_memory() -> None:
    used = UsedMaps(Clock().call_later)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(100):
            array = received(used, number, 100_000)
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_that_is_much_too_large_is_left_alone() -> None:
    used = UsedMaps(Clock().call_later)
    where = place(received(used, 1, 10 * SIZE))
    assert place(received(used, 2, 7 * SIZE)) != where
    assert place(received(used, 3, 9 * SIZE)) == where


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "USED_MAPS", 10 * SIZE)
    used = UsedMaps(Clock().call_later)
    arrays = [received(used, 1) for _ in range(20)]
    del arrays
    assert sum(map(len, used._maps)) <= 10 * SIZE
    large = received(used, 2, 6 * SIZE)
    assert all(len(each) < len(large) for each in used._maps), "what is above half the bound is not kept"


def test_all_is_given_back_when_nothing_has_come_for_some_seconds() -> None:
    clock = Clock()
    used = UsedMaps(clock.call_later)
    for value in range(3):
        received(used, value)
    assert len(clock.calls) == 1, "one timer, however many bodies"
    received(used, 3)
    assert clock.ring() == limits.USED_MAPS_KEPT
    assert used._maps, "something has come since the timer was set"
    clock.ring()
    assert not used._maps
    assert not clock.calls, "an idle client has no timer"
    received(used, 4)
    assert len(clock.calls) == 1


def test_a_loop_that_is_over_may_call_at_once() -> None:
    """It does that in the caller's thread, which may take memory in turn."""
    inner: list[object] = []
    used = UsedMaps(lambda _delay, _call: inner.append(used.take(SIZE)))
    thread = threading.Thread(target=used.take, args=(SIZE,), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert inner


def test_nothing_is_kept_after_the_end() -> None:
    used = UsedMaps(Clock().call_later)
    received(used, 1)
    used.close()
    received(used, 2)
    assert not used._maps


def test_memory_that_files_were_mapped_into_is_not_used_again() -> None:
    used = UsedMaps(Clock().call_later)
    size = 4 * mmap.PAGESIZE
    memory = PrivateMemory([8, size], used)
    file = MemoryFile(in_memory([b"f" * size], sealed=True), size)
    assert memory.take(8, file)
    del memory
    assert b"f" not in bytes(PrivateMemory([8, size], used).segments([8, size])[1]), "new memory, and not the file"


def test_a_forked_child_keeps_what_it_had() -> None:
    used = UsedMaps(Clock().call_later)
    array = received(used, 1)
    where, told = place(array), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told[1])
        os.read(told[0], 1)  # the parent has used the memory again
        os._exit(0 if (array == 1).all() else 1)
    os.close(told[0])
    del array
    again = received(used, 2)
    assert place(again) == where
    os.close(told[1])
    assert os.waitpid(child, 0)[1] == 0
