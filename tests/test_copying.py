"""Large arrays are copied by several threads, and are the same then."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ipmpi import copying, limits
from ipmpi.copying import copy, shared


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that were started; this process may use eight cores, and shares are small."""
    names: list[str] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        names.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    monkeypatch.setattr(copying, "_cores", lambda: 8)
    monkeypatch.setattr(limits, "COPY_SHARE", 1000)
    return names


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
def test_arrays_are_copied_by_threads(started: list[str], shape: tuple[int, ...]) -> None:
    source = np.random.default_rng(1).random(shape)
    place, other = np.zeros(shape), np.zeros(shape, np.float32)
    copy([(place, source), (other, source)])
    np.testing.assert_array_equal(place, source)
    np.testing.assert_array_equal(other, source.astype(np.float32))
    assert 1 <= len(started) <= limits.COPY_THREADS - 1


def test_small_arrays_take_no_thread(started: list[str]) -> None:
    place = np.zeros(1999, np.uint8)
    copy([(place, np.ones(1999, np.uint8)), (np.zeros((0, 3)), np.zeros((0, 3)))])
    copy([])
    assert place.all()
    assert not started


def test_one_core_takes_no_thread(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = os.sched_getaffinity(0)
    monkeypatch.setattr(limits, "COPY_SHARE", 1000)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread.name))
    os.sched_setaffinity(0, {min(before)})
    try:
        place = np.zeros(100_000, np.uint8)
        copy([(place, np.ones(100_000, np.uint8))])
    finally:
        os.sched_setaffinity(0, before)
    assert place.all()
    assert not started


def test_without_threads_it_is_copied_here(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    place = np.zeros(100_000, np.uint8)
    copy([(place, np.ones(100_000, np.uint8))])
    assert place.all()


def test_arrays_that_do_not_fit_are_refused_before_anything_is_copied(started: list[str]) -> None:
    place, other = np.zeros(5000), np.zeros(5000)
    with pytest.raises(ValueError, match=r"shape \(4999,\) cannot be copied into one of \(5000,\)"):
        copy([(place, np.ones(5000)), (other, np.ones(4999))])
    assert not place.any()
