"""When to ask for a sign of life and when to give up, with an injected clock."""

from __future__ import annotations

from ipmpi import limits
from ipmpi.protocol.liveness import Liveness


def test_silence_is_asked_about_once_per_interval() -> None:
    live = Liveness(100.0)
    asked = [now for now in range(100, 160) if live.should_ping(float(now))]
    assert asked == [115, 130, 145]


def test_what_is_heard_puts_off_both() -> None:
    live = Liveness(0.0)
    for now in range(0, 200, 10):
        live.heard(float(now))
        assert not live.should_ping(now + limits.PING_INTERVAL - 0.1)
        assert not live.is_lost(now + limits.SILENCE - 0.1)
    assert live.should_ping(190 + limits.PING_INTERVAL)
    assert live.is_lost(190 + limits.SILENCE)


def test_asking_is_no_sign_of_life() -> None:
    live = Liveness(0.0)
    for now in range(int(limits.SILENCE)):
        live.should_ping(float(now))
    assert live.is_lost(limits.SILENCE)


def test_a_link_is_asked_several_times_before_it_is_given_up() -> None:
    assert limits.SILENCE >= 3 * limits.PING_INTERVAL
