"""The event loop: sockets, timers, other threads, the end of a turn. Every wait ends by an event."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from ipmpi.transport.loop import READ, WRITE, Loop


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


def test_poll_is_called_until_it_is_taken_away(loop: Loop) -> None:
    calls: list[int] = []

    def poll() -> bool:
        calls.append(1)
        if len(calls) == 20:
            loop.set_poll(None)
            loop.stop()
        return len(calls) % 2 == 0

    loop.set_poll(poll)
    loop.run()
    assert len(calls) == 20


def test_call_now_keeps_the_order_of_calls_and_is_never_made_twice(loop: Loop) -> None:
    seen: list[int] = []
    threads: set[int] = set()
    started = threading.Event()
    loop.call_soon(started.set)
    thread = threading.Thread(target=loop.run)
    thread.start()
    started.wait(10)
    for number in range(3000):
        call = loop.call_now if number % 3 else loop.call_threadsafe

        def heard(number: int = number) -> None:
            seen.append(number)
            threads.add(threading.get_ident())

        call(heard)
    loop.call_threadsafe(loop.stop)
    thread.join(10)
    assert not thread.is_alive()
    assert seen == list(range(3000))
    assert threads <= {loop.thread, threading.get_ident()}


def test_what_call_now_queues_goes_out_at_its_end(loop: Loop) -> None:
    seen: list[str] = []
    # Nothing runs the loop: a call is kept for it.
    loop.call_now(lambda: seen.append("early"))
    assert seen == []
    loop.call_soon(loop.stop)
    loop.run()
    assert seen == ["early"]


def test_calls_after_the_end_are_made_at_once(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run()
    made: list[str] = []
    loop.call_threadsafe(lambda: made.append("threadsafe"))
    loop.call_now(lambda: made.append("now"))
    assert made == ["threadsafe", "now"]


def test_the_last_calls_may_make_further_ones(loop: Loop) -> None:
    made: list[str] = []

    def last() -> None:
        loop.call_threadsafe(lambda: made.append("further"))

    loop.call_soon(lambda: (loop.stop(), loop.call_threadsafe(last)))
    loop.run()
    assert made == ["further"]
