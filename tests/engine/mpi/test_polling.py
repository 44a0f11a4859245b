"""Waits that a flag ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from ipmpi.engine.mpi.polling import Watch
from ipmpi.errors import PeerError


def test_the_first_true_answer() -> None:
    answers: Iterator[object] = iter([False, 0, None, *[[]] * 20, "there", "later"])
    assert Watch().wait(lambda: next(answers)) == "there"


def test_an_answer_that_takes_longer() -> None:
    began = time.monotonic()
    assert Watch().wait(lambda: time.monotonic() > began + 0.01)


def test_a_flag_from_another_thread_ends_the_wait() -> None:
    text: list[str] = []
    watch = Watch(lambda: text[0] if text else None)
    asked = threading.Event()

    def leave() -> None:
        asked.wait()
        text.append("rank 3 raised ValueError")

    thread = threading.Thread(target=leave)
    thread.start()
    with pytest.raises(PeerError, match="rank 3 raised ValueError"):
        watch.wait(asked.set)
    thread.join()


def test_the_flag_stays_until_it_is_taken_down() -> None:
    text: list[str | None] = [None]
    watch = Watch(lambda: text[0])
    watch.look()
    text[0] = "gone"
    for _ in range(2):
        with pytest.raises(PeerError, match="gone"):
            watch.look()
        with pytest.raises(PeerError, match="gone"):
            watch.wait(lambda: False)
    text[0] = None
    watch.look()


def test_what_has_come_is_not_lost_to_the_flag() -> None:
    text: list[str | None] = [None]
    watch = Watch(lambda: text[0])

    def answer() -> bool:
        text[0] = "gone"
        return True

    assert watch.wait(answer)


def test_waiting_leaves_the_processor_to_others() -> None:
    end, used = time.monotonic() + 0.2, time.thread_time()
    Watch().wait(lambda: time.monotonic() > end)
    assert time.thread_time() - used < 0.1


def test_interrupts_are_heard() -> None:
    me = threading.get_ident()
    timer = threading.Timer(0.02, lambda: signal.pthread_kill(me, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        Watch().wait(lambda: False)
    timer.join()


def test_errors_of_the_question_pass() -> None:
    with pytest.raises(ZeroDivisionError):
        Watch().wait(lambda: 1 / 0)
