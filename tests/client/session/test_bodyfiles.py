"""Bodies that go to a controller on this machine in files: they arrive, are private, and leave nothing open."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ipmpi import limits
from ipmpi.client import MultiEngineClient
from ipmpi.transport import timedpool
from ipmpi.transport.privatememory import PrivateMemory
from ipmpi.transport.segmentpool import SegmentPool
from tests.in_process import InProcess, in_process, wait_until

COUNT = 3 * limits.MIB // 8


@pytest.fixture(scope="module")
def cluster() -> Iterator[InProcess]:
    with in_process(2, local=True) as cluster:
        yield cluster


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each file that a client gets was mapped."""
    found: list[bool] = []
    take = PrivateMemory.take

    def noted(self: PrivateMemory, at: int, file: Any) -> bool:
        found.append(take(self, at, file))
        return found[-1]

    monkeypatch.setattr(PrivateMemory, "take", noted)
    return found


def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The files that clients make."""
    made: list[int] = []

    class Noted(SegmentPool):
        def file_with(self, data: Any, size: int, now: float) -> int:
            made.append(super().file_with(data, size, now))
            return made[-1]

    monkeypatch.setattr(timedpool, "SegmentPool", Noted)
    return made


def test_there_and_back_in_files_of_which_none_stays_open(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, mapped = copied(monkeypatch), taken(monkeypatch)
    mec = cluster.mec()
    array = np.random.default_rng(1).random(COUNT)
    mec.push({"x": array})
    backs = mec.pull("x")
    assert all(np.array_equal(back, array) for back in backs)
    assert made
    assert mapped
    assert all(mapped)
    before = descriptors()
    for _ in range(3):
        mec.push({"x": array})
        backs = mec.pull("x")
    wait_until(lambda: descriptors() <= before, "the files are closed")


def test_a_file_is_used_again_when_engines_have_replaced_what_was_in_it(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    new: list[int] = []
    make = SegmentPool._new

    def noted(pool: SegmentPool, size: int, now: float) -> Any:
        new.append(size)
        return make(pool, size, now)

    monkeypatch.setattr(SegmentPool, "_new", noted)
    mec = cluster.mec()
    arrays = [np.full(COUNT, number) for number in range(8)]
    for array in arrays:
        mec.push({"x": array})
        # What arrives only now may still be in the file of before.
        wait_until(lambda array=array: all(np.array_equal(back, array) for back in mec.pull("x")), "it is there")
    # One is there while the next one arrives: of the client's, and of the piece of each engine.
    assert new.count(8 * COUNT) <= 3
    assert len(new) <= 3 + 2 * 3


def test_a_result_is_freed_with_its_last_reference(cluster: InProcess) -> None:
    """And not when the garbage collector runs: only then can engines use its memory again."""
    mec = cluster.mec()
    mec.push({"x": np.arange(COUNT)})
    gc.collect()
    gc.disable()
    try:
        freed: list[int] = []
        for _ in range(3):
            whole = mec.pull("x", targets=0)[0]
            weakref.finalize(whole, freed.append, 1)
            del whole
        assert freed == [1, 1, 1]
        pending = mec.pull("x", targets=0, block=False)
        found = weakref.ref(pending.get_result()[0])
        del pending
        wait_until(lambda: found() is None, "nobody holds it")
    finally:
        gc.enable()


def test_an_idle_client_has_no_file_and_no_timer_after_a_while(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "POOL_KEEPS", 0.3)
    session = cluster.session("mec")
    mec, files = MultiEngineClient(session=session), session._files
    mec.push({"x": np.arange(COUNT)})
    wait_until(lambda: files._pool.is_idle, "its files are given back")
    mec.push({"x": np.arange(COUNT)})
    wait_until(lambda: files._pool.is_idle, "its files are given back again")


def test_a_client_that_is_closed_keeps_no_file(cluster: InProcess) -> None:
    session = cluster.session("mec")
    mec, pool = MultiEngineClient(session=session), session._files._pool
    mec.push({"x": np.arange(COUNT)})
    assert not pool.is_idle
    mec.close()
    assert pool.is_idle


def test_what_was_pulled_is_the_clients_to_write_and_nobody_sees_it(cluster: InProcess) -> None:
    mec = cluster.mec()
    mec.push({"x": np.arange(COUNT)})
    first, second = mec.pull("x")
    first[:] = 0
    assert np.array_equal(second, np.arange(COUNT))
    mec.execute("x[0] = 7", targets=0)
    one, other = mec.pull("x")
    assert (one[0], other[0]) == (7, 0)
    assert second[0] == 0


def test_the_array_may_be_changed_when_the_push_has_ended(cluster: InProcess) -> None:
    mec = cluster.mec()
    array = np.zeros(COUNT)
    mec.push({"x": array})
    array[:] = 1
    assert not any(back.any() for back in mec.pull("x"))


def test_where_no_file_can_be_made_it_goes_in_chunks(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(SegmentPool):
        def file_with(self, *_arguments: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(timedpool, "SegmentPool", Full)
    mec = cluster.mec()
    array = np.random.default_rng(2).random(COUNT)
    mec.push({"x": array})
    assert all(np.array_equal(back, array) for back in mec.pull("x"))


def test_a_task_gets_and_gives_large_things_in_files(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    made, mapped = copied(monkeypatch), taken(monkeypatch)
    array = np.random.default_rng(3).random(COUNT)
    assert np.array_equal(cluster.tc().submit(np.negative, array).result(60), -array)
    assert made
    assert mapped
