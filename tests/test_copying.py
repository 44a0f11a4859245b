"""Large arrays are copied by several threads, and are the same then."""

from __future__ import annotations

import _thread
import os
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ipmpi import copying, limits
from ipmpi.copying import copy, shared


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One for each thread that was started; this process may use eight cores, and shares are small."""
    begun: list[object] = []
    start = _thread.start_new_thread

    def noted(function: Callable[[], object], arguments: tuple[()]) -> int:
        begun.append(function)
        return start(function, arguments)

    monkeypatch.setattr(_thread, "start_new_thread", noted)
    monkeypatch.setattr(copying, "_cores", lambda: 8)
    monkeypatch.setattr(limits, "COPY_SHARE", 1000)
    return begun


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(1, 3)), max_size=6), st.integers(1, 200)
)
def test_shares_have_every_row_once_and_in_order(shapes: list[tuple[int, ...]], size: int) -> None:
    sources = [np.random.default_rng(0).random(shape) for shape in shapes]
    pairs = [(np.zeros(source.shape), source) for source in sources]
    shares = shared(pairs, size)
    for share in shares:
        for place, source in share:
            assert not place.any()  # no row is in two shares
            place[:] = source + 1
        rows = [place.nbytes // len(place) for place, _ in share]
        assert sum(place.nbytes for place, _ in share) < size + max(rows, default=1)
    for place, source in pairs:
        np.testing.assert_array_equal(place, source + 1)


@pytest.mark.parametrize("shape", [(100_000,), (3, 5000), (5000, 3, 2), (1, 70_000)], ids=str)
def test_arrays_are_copied_by_threads(started: list[object], shape: tuple[int, ...]) -> None:
    source = np.random.default_rng(1).random(shape)
    place, other = np.zeros(shape), np.zeros(shape, np.float32)
    copy([(place, source), (other, source)])
    np.testing.assert_array_equal(place, source)
    np.testing.assert_array_equal(other, source.astype(np.float32))
    assert 1 <= len(started) <= limits.COPY_THREADS - 1


def test_small_arrays_take_no_thread(started: list[object]) -> None:
    place = np.zeros(1999, np.uint8)
    copy([(place, np.ones(1999, np.uint8)), (np.zeros((0, 3)), np.zeros((0, 3)))])
    copy([])
    assert place.all()
    assert not started


def test_one_core_takes_no_thread(started: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = os.sched_getaffinity(0)
    monkeypatch.setattr(limits, "COPY_SHARE", 1000)
    monkeypatch.setattr(_thread, "start_new_thread", lambda function, _arguments: started.append(function))
    os.sched_setaffinity(0, {min(before)})
    try:
        place = np.zeros(100_000, np.uint8)
        copy([(place, np.ones(100_000, np.uint8))])
    finally:
        os.sched_setaffinity(0, before)
    assert place.all()
    assert not started


def refuse(_function: object, _arguments: object) -> int:
    raise RuntimeError("can't start new thread")


def delay(_function: object, _arguments: object) -> int:
    """Another thread has the GIL all the time."""
    return 1


@pytest.mark.parametrize("start", [refuse, delay])
@pytest.mark.usefixtures("started")
def test_what_no_other_thread_begins_is_copied_here(start: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "start_new_thread", start)
    place = np.zeros(100_000, np.uint8)
    copy([(place, np.ones(100_000, np.uint8))])
    assert place.all()


@pytest.mark.parametrize("failing", range(3))
def test_what_fails_in_another_thread_fails_here(started: list[object], failing: int) -> None:
    places = [np.zeros(10_000) for _ in range(3)]
    places[failing].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        copy([(place, np.ones(10_000)) for place in places])
    assert started


def test_nobody_writes_after_a_failure(started: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    here = threading.get_ident()
    begun, returned = threading.Event(), threading.Event()
    late = []

    def copyto(place: object, source: object) -> None:
        if threading.get_ident() == here:
            assert begun.wait(60)
            raise MemoryError
        begun.set()
        late.append(returned.wait(0.2))

    monkeypatch.setattr(np, "copyto", copyto)
    with pytest.raises(MemoryError):
        copy([(np.zeros(100_000, np.uint8), np.ones(100_000, np.uint8))])
    returned.set()
    assert started
    assert late
    assert not any(late)


def test_nobody_refers_to_the_arrays_afterwards(started: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else their memory could not be released, or taken for the next ones."""
    here, ended, told = threading.get_ident(), threading.Event(), threading.Event()

    class Slow(threading.Semaphore):
        def release(self, n: int = 1) -> None:
            if threading.get_ident() == here:
                assert told.wait(60)
            super().release(n)
            if threading.get_ident() != here:
                told.set()
                assert ended.wait(60)

    monkeypatch.setattr(copying, "Semaphore", Slow)
    place, source = np.zeros(100_000, np.uint8), np.ones(100_000, np.uint8)
    before = sys.getrefcount(place), sys.getrefcount(source)
    copy([(place, source)])
    after = sys.getrefcount(place), sys.getrefcount(source)
    ended.set()
    assert started
    assert after == before


KINDS = {
    "other byte order": np.arange(9000, dtype=">f8"),
    "fields with gaps": np.ones(9000, np.dtype({"names": "ab", "formats": ["i1", "f8"], "offsets": [0, 16]})),
    "column-major": np.asfortranarray(np.random.default_rng(2).random((300, 50))),
    "backwards": np.arange(9000.0)[::-1],
    "objects": np.array([str(number) for number in range(9000)], object),
    "no bytes": np.zeros(9000, "S0"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("started")
def test_arrays_of_any_kind_are_copied(kind: str) -> None:
    source = KINDS[kind]
    place = np.zeros(source.shape, np.result_type(source))
    copy([(place, source)])
    np.testing.assert_array_equal(place, source)


def test_arrays_that_do_not_fit_are_refused_before_anything_is_copied(started: list[object]) -> None:
    place, other = np.zeros(5000), np.zeros(5000)
    with pytest.raises(ValueError, match=r"shape \(4999,\) cannot be copied into one of \(5000,\)"):
        copy([(place, np.ones(5000)), (other, np.ones(4999))])
    assert not place.any()
