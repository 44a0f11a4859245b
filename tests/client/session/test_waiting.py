"""Futures that are completed by one thread while others begin to wait, cancel, and call back."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from ipmpi.client.session import waiting
from ipmpi.client.session.waiting import SessionFuture

ROUNDS: Final = 2_000
PATIENCE: Final = 60.0


def by_wait(future: SessionFuture) -> object:
    (done,), _ = concurrent.futures.wait([future], PATIENCE)
    return done.result()


def by_as_completed(future: SessionFuture) -> object:
    return next(concurrent.futures.as_completed([future], PATIENCE)).result()


def by_callback(future: SessionFuture) -> object:
    called = threading.Event()
    future.add_done_callback(lambda _: called.set())
    assert called.wait(PATIENCE), "nobody was called back"
    return future.result(0)


WAYS: Final[dict[str, Callable[[SessionFuture], object]]] = {
    "result": lambda future: future.result(PATIENCE),
    "wait": by_wait,
    "as_completed": by_as_completed,
    "callback": by_callback,
}


@pytest.fixture(autouse=True)
def threads_change_often() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.parametrize("way", WAYS)
def test_all_who_begin_to_wait_while_the_result_comes_get_it(way: str) -> None:
    """Each of three threads gets all futures, so that they are busy with each of them at about the same time."""
    futures = [SessionFuture() for _ in range(ROUNDS)]
    began = threading.Barrier(3)

    def wait_for_all() -> list[object]:
        began.wait()
        return [WAYS[way](future) for future in futures]

    with concurrent.futures.ThreadPoolExecutor(2) as others:
        waits = [others.submit(wait_for_all) for _ in range(2)]
        began.wait()
        for number, future in enumerate(futures):
            future.set_result(number)
        for wait in waits:
            assert wait.result(PATIENCE) == list(range(ROUNDS))


@pytest.mark.parametrize("backwards", [False, True], ids=["same-order", "from-the-end"])
def test_a_future_is_cancelled_or_has_a_result_never_both(backwards: bool) -> None:
    futures = [SessionFuture() for _ in range(ROUNDS)]
    cancelled: list[bool] = []
    began = threading.Barrier(2)

    def cancel() -> None:
        began.wait()
        cancelled.extend(future.cancel() for future in futures)

    thread = threading.Thread(target=cancel)
    thread.start()
    began.wait()
    told: dict[int, bool] = {}
    for number in reversed(range(ROUNDS)) if backwards else range(ROUNDS):
        try:
            futures[number].set_result(None)
        except concurrent.futures.InvalidStateError:
            told[number] = False
        else:
            told[number] = True
    thread.join()
    assert [told[number] for number in range(ROUNDS)] == [not each for each in cancelled]
    assert [future.cancelled() for future in futures] == cancelled
    assert all(future.done() for future in futures)


def has_waited(future: SessionFuture) -> None:
    """Somebody has waited for it, for a moment."""
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0.001)


@pytest.mark.parametrize("is_told", [False, True], ids=["nobody is told", "somebody is told"])
@pytest.mark.parametrize("somebody_waits", [False, True], ids=["nobody", "somebody"])
@pytest.mark.parametrize("first", [None, ValueError("no good")], ids=["result", "exception"])
def test_it_is_completed_once(is_told: bool, somebody_waits: bool, first: Exception | None) -> None:
    future, told = SessionFuture(), []
    if is_told:
        future.add_done_callback(told.append)
    if somebody_waits:
        has_waited(future)
    assert not future.done()
    assert not future.running()
    future.set_result(5) if first is None else future.set_exception(first)
    for again in (lambda: future.set_result(6), lambda: future.set_exception(ValueError("another"))):
        with pytest.raises(concurrent.futures.InvalidStateError):
            again()
    assert future.exception() is first
    assert not future.cancel()
    assert told == [future] * is_told
    future.add_done_callback(told.append)
    assert told == [future] * (is_told + 1)
    if first is None:
        assert future.result() == 5
    else:
        with pytest.raises(ValueError, match="no good"):
            future.result()


def test_signal_handlers_may_use_futures_at_any_moment() -> None:
    future = SessionFuture()
    over = threading.Timer(PATIENCE, os._exit, (1,))  # nothing else ends the wait for one's own lock
    over.start()
    with SessionFuture.brief:
        future.set_result(1)
        waited = SessionFuture()
        waited.add_done_callback(lambda _: None)
        assert future.result() == 1
    over.cancel()


def test_a_callback_that_is_added_while_somebody_begins_to_wait_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread, or a signal handler, comes between the look whether somebody waits and what follows it."""
    future, called = SessionFuture(), []
    usual = waiting._Waiters

    def interrupted(born: int) -> Any:
        monkeypatch.setattr(waiting, "_Waiters", usual)
        future.add_done_callback(lambda _: called.append("second"))
        return usual(born)

    future.add_done_callback(lambda _: called.append("first"))
    monkeypatch.setattr(waiting, "_Waiters", interrupted)
    has_waited(future)
    future.add_done_callback(lambda _: called.append("third"))
    future.set_result(None)
    assert called == ["first", "second", "third"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking with threads: that is what this is about
def test_a_forked_process_has_futures_of_its_own_whatever_its_parent_was_doing() -> None:
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with SessionFuture.brief:
            held.set()
            over.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)
    pid = os.fork()
    if not pid:
        signal.alarm(int(PATIENCE))
        try:
            future: Any = SessionFuture()
            future.add_done_callback(lambda _: None)
            future.set_result(3)
            os._exit(future.result())
        finally:
            os._exit(1)
    over.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_a_result_goes_when_nobody_has_it_any_more() -> None:
    """Arrays of 100 MB cannot wait for the garbage collector, which looks at the number of objects only."""

    class Array:
        pass

    gc.disable()
    try:
        future, array = SessionFuture(), Array()
        alive = weakref.ref(array)
        calls: list[object] = []
        future.add_done_callback(lambda done, held=future: calls.append(held is done))  # type: ignore[misc]
        future.set_result(array)
        del array, future
        assert calls == [True]
        assert alive() is None
    finally:
        gc.enable()


def test_a_callback_is_called_once_however_it_comes() -> None:
    future = SessionFuture()
    calls: list[str] = []
    future.add_done_callback(lambda _: calls.append("before"))
    future.set_result(1)
    future.add_done_callback(lambda _: calls.append("after"))
    assert not future.cancel()
    assert calls == ["before", "after"]
