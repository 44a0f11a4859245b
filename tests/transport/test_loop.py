"""The event loop: sockets, timers, other threads, the end of a turn. Every wait ends by an event."""

from __future__ import annotations

import select
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from ipmpi.transport import loop as loop_module
from ipmpi.transport.loop import READ, WRITE, Loop
from tests.traced import bytes_kept


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    yield a, b
    a.close()
    b.close()


def test_soon_before_turn_end_and_turn_end_once(loop: Loop) -> None:
    seen: list[str] = []

    def end() -> None:
        seen.append("end")

    def soon() -> None:
        seen.append("soon")
        loop.call_at_turn_end(end)
        loop.call_at_turn_end(end)
        loop.call_soon(loop.stop)

    loop.call_soon(soon)
    loop.run()
    assert seen == ["soon", "end"]


def test_timers_in_order_and_cancelled(loop: Loop) -> None:
    seen: list[int] = []
    late = loop.call_later(0.004, lambda: seen.append(2))
    loop.call_later(0.002, lambda: seen.append(1))
    gone = loop.call_later(0.003, lambda: seen.append(9))
    loop.call_later(0.006, loop.stop)
    gone.cancel()
    start = loop.now()
    loop.run()
    assert seen == [1, 2]
    assert loop.now() - start >= 0.006
    assert late.when > start


def test_a_call_at_a_time_has_exactly_that_time(loop: Loop) -> None:
    """So whoever wants a call at the same time again sees that it is set."""
    seen: list[str] = []
    when = loop.now() + 0.01
    loop.call_at(when - 60, lambda: seen.append("over"))
    assert loop.call_at(when, loop.stop).when == when
    loop.run()
    assert seen == ["over"]
    assert loop.now() >= when


def test_timer_set_by_a_timer_comes_in_a_later_turn(loop: Loop) -> None:
    seen: list[str] = []

    def first() -> None:
        loop.call_later(0, loop.stop)
        loop.call_at_turn_end(lambda: seen.append("end of the first turn"))

    loop.call_later(0, first)
    loop.run()
    assert seen == ["end of the first turn"]


def test_calls_from_other_threads_keep_their_order(loop: Loop) -> None:
    count, threads = 2000, 4
    seen: list[tuple[int, int]] = []

    def heard(who: int, number: int) -> None:
        assert threading.get_ident() == loop.thread
        seen.append((who, number))
        if len(seen) == count * threads:
            loop.stop()

    def talk(who: int) -> None:
        for number in range(count):
            loop.call_threadsafe(lambda number=number: heard(who, number))  # type: ignore[misc]

    talkers = [threading.Thread(target=talk, args=(who,)) for who in range(threads)]
    for talker in talkers:
        talker.start()
    loop.run()
    for talker in talkers:
        talker.join()
    for who in range(threads):
        assert [number for whose, number in seen if whose == who] == list(range(count))


def test_stop_from_another_thread_wakes_a_loop_that_waits_for_ever(loop: Loop) -> None:
    runs = threading.Event()
    loop.call_soon(runs.set)
    thread = threading.Thread(target=loop.run)
    thread.start()
    runs.wait(10)
    loop.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_files(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    seen: list[object] = []

    def writable(events: int) -> None:
        assert events == WRITE
        seen.append("writable")
        loop.register(a, READ, readable)  # instead of the interest in writing
        b.send(b"x")

    def readable(events: int) -> None:
        assert events == READ
        seen.append(a.recv(10))
        loop.unregister(a)
        loop.unregister(a)
        loop.stop()

    loop.register(a, WRITE, writable)
    loop.run()
    assert seen == ["writable", b"x"]


def test_callback_that_another_one_unregistered_is_not_called(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    a, b = pair
    a.send(b"1")
    b.send(b"2")
    seen: list[str] = []

    def heard(name: str, other: socket.socket) -> None:
        seen.append(name)
        loop.unregister(other)
        loop.stop()

    loop.register(a, READ, lambda _: heard("a", b))
    loop.register(b, READ, lambda _: heard("b", a))
    loop.run()
    assert len(seen) == 1


def test_end_of_the_other_end_is_readable(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    seen: list[int] = []

    def heard(events: int) -> None:
        seen.append(events & READ)
        loop.unregister(a)
        loop.stop()

    loop.register(a, READ, heard)
    b.close()
    loop.run()
    assert seen == [READ]


def test_calls_after_the_end_are_made_at_once(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run()
    made: list[str] = []
    loop.call_threadsafe(lambda: made.append("threadsafe"))
    assert made == ["threadsafe"]


def test_the_last_calls_may_make_further_ones(loop: Loop) -> None:
    made: list[str] = []

    def last() -> None:
        loop.call_threadsafe(lambda: made.append("further"))

    loop.call_soon(lambda: (loop.stop(), loop.call_threadsafe(last)))
    loop.run()
    assert made == ["further"]


def test_a_call_that_raises_does_not_end_the_loop(
    loop: Loop, pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    """Of every kind; each traceback is logged."""
    made: list[str] = []

    def failing(kind: str) -> Callable[..., bool]:
        def call(*_: object) -> bool:
            made.append(kind)
            loop.unregister(pair[0])
            raise ValueError(kind)

        return call

    loop.call_soon(failing("soon"))
    loop.call_later(0, failing("timer"))
    loop.call_at_turn_end(failing("turn end"))
    loop.call_threadsafe(failing("threadsafe"))
    pair[1].send(b"x")
    loop.register(pair[0], READ, failing("file"))
    loop.call_later(0.005, loop.stop)
    loop.run()
    assert sorted(made) == ["file", "soon", "threadsafe", "timer", "turn end"]
    logged = [record.exc_info[1].args for record in caplog.records if record.exc_info and record.exc_info[1]]
    assert logged == [("file",)], "the others came from the same line, and are counted"
    assert "raise ValueError(kind)" in caplog.text


def test_who_is_to_be_told_of_an_error_is_told(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    told: list[str] = []

    def failing(*_: object) -> None:
        loop.unregister(pair[0])
        raise ValueError

    loop.call_soon(failing, lambda error: told.append("soon"))
    loop.call_later(0, failing, lambda error: told.append("timer"))
    loop.call_at_turn_end(failing, lambda error: told.append("turn end"))
    loop.call_threadsafe(lambda: failing(), lambda error: told.append("threadsafe"))
    pair[1].send(b"x")
    loop.register(pair[0], READ, failing, lambda error: told.append("file"))
    loop.call_later(0.005, loop.stop)
    loop.run()
    assert sorted(told) == ["file", "soon", "threadsafe", "timer", "turn end"]


def test_telling_of_an_error_may_fail_too(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    def tell(error: BaseException) -> None:
        raise KeyError("telling")

    loop.call_soon(lambda: [].pop(), tell)
    loop.call_later(0.001, loop.stop)
    loop.run()
    assert "IndexError" in caplog.text
    assert "KeyError: 'telling'" in caplog.text


def test_sys_exit_in_a_callback_does_not_end_a_loop_of_another_thread(loop: Loop) -> None:
    went_on = threading.Event()
    loop.call_soon(sys.exit)
    loop.call_later(0.001, went_on.set)
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert went_on.wait(10)
    loop.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_a_file_whose_callback_raises_each_time_does_not_keep_the_loop_busy(
    loop: Loop, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "_PAUSE", 0.02)
    calls: list[int] = []

    def failing(_events: int) -> None:
        calls.append(1)
        if len(calls) < 4:
            raise ValueError
        pair[0].recv(1)
        loop.stop()

    pair[1].send(b"x")
    loop.register(pair[0], READ, failing)
    start = loop.now()
    loop.run()
    assert len(calls) == 4, "it is looked at again"
    assert loop.now() - start >= 0.06


def test_a_paused_file_can_be_registered_anew_and_forgotten(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    seen: list[str] = []

    def failing(_events: int) -> None:
        raise ValueError

    def anew() -> None:
        loop.register(pair[0], READ, lambda _: (seen.append("anew"), loop.stop()))

    pair[0].send(b"x")
    pair[1].send(b"x")
    loop.register(pair[0], READ, failing)
    loop.register(pair[1], READ, failing)
    loop.call_later(0.001, lambda: loop.unregister(pair[1]))
    loop.call_later(0.002, anew)
    loop.run()
    assert seen == ["anew"]


def test_a_loop_that_fails_itself_still_makes_the_calls_that_others_wait_for(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_timeout: object) -> None:
        loop.call_threadsafe(lambda: made.append("before the end"))
        raise OSError("the poller is gone")

    made: list[str] = []
    monkeypatch.setattr(loop, "_wait", broken)
    with pytest.raises(OSError, match="poller"):
        loop.run()
    loop.call_threadsafe(lambda: made.append("after it"))
    assert made == ["before the end", "after it"]


def test_calls_of_many_threads_after_the_end_are_all_made(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run()
    made: list[int] = []

    def talk() -> None:
        for number in range(3000):
            loop.call_threadsafe(lambda number=number: made.append(number))  # type: ignore[misc]

    talkers = [threading.Thread(target=talk) for _ in range(4)]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join()
    assert len(made) == 12_000


def test_a_timer_of_next_year_is_no_trouble(loop: Loop) -> None:
    """poll() takes 24 days at most, or raises."""
    loop.call_later(400 * 86_400.0, lambda: None)
    where: list[int] = []
    runs = threading.Event()
    thread = threading.Thread(target=loop.run)
    thread.start()
    loop.call_threadsafe(lambda: (where.append(threading.get_ident()), runs.set()))
    assert runs.wait(10)
    assert where == [thread.ident], "its own thread lives"
    loop.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_a_cancelled_timer_keeps_nothing_alive(loop: Loop) -> None:
    """A link has timers that are due long after its end."""

    class Owner:
        def call(self) -> None:
            pass

        def fail(self, error: BaseException) -> None:
            pass

    owner = Owner()
    gone = weakref.ref(owner)
    timer = loop.call_later(1000, owner.call, owner.fail)
    timer.cancel()
    del owner
    assert gone() is None


def test_timers_that_are_set_anew_again_and_again_do_not_fill_the_memory(loop: Loop) -> None:
    """As that of the controller's effects: for tomorrow, a moment later, and for tomorrow again."""
    tomorrow, made = loop.now() + 86_400, []
    kept = [loop.call_at(tomorrow + at, loop.stop) for at in range(10)]

    def set_anew(count: int) -> None:
        for _ in range(count):
            loop.call_at(tomorrow, loop.stop).cancel()

    set_anew(1_000)
    assert bytes_kept(lambda: set_anew(20_000)) < 100_000
    assert all(timer.call is not None for timer in kept)
    for at in (3, 1, 2):
        loop.call_later(at / 1000, lambda at=at: made.append(at))  # type: ignore[misc]
    set_anew(1_000)
    loop.call_later(0.01, loop.stop)
    loop.run()
    assert made == [1, 2, 3]


def test_a_signal_that_comes_before_the_wait_ends_it(loop: Loop) -> None:
    """Python has not called its handler when the system begins to wait; here it never does anything."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        loop.wake_on_signals()
        signal.raise_signal(signal.SIGUSR1)
        assert select.select([loop._wake_read], [], [], 10)[0]
    finally:
        signal.signal(signal.SIGUSR1, before)
    loop.close()
    assert signal.set_wakeup_fd(-1) == -1
