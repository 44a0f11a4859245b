"""When a session dials again: often while a controller may be started again, then rarely."""

from __future__ import annotations

import itertools

import pytest

from ipmpi import limits
from ipmpi.transport.dial.redialling import Redialling

JITTER = 1.3


def attempts(redialling: Redialling, seconds: float, *, is_cheap: bool = True) -> list[float]:
    """The times of all attempts of a session whose link broke at 100.0, and which fail at once."""
    now, times = 100.0, []
    while now < 100.0 + seconds:
        times.append(now - 100.0)
        now += redialling.pause(now, is_cheap=is_cheap)
    return times


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def test_a_controller_that_is_back_within_seconds_is_found_at_once() -> None:
    times = attempts(Redialling(), limits.RECONNECT_SOON)
    assert max(gaps(times)) <= JITTER * limits.RECONNECT_OFTEN
    assert times[1] <= JITTER * limits.RECONNECT_FIRST
    assert len(times) < 60, "and it is not stormed"


def test_one_that_stays_away_is_dialled_rarely() -> None:
    times = attempts(Redialling(), 600.0)
    rare = gaps([each for each in times if each > 60.0])
    assert min(rare) >= 0.7 * limits.RECONNECT_LONGEST - 1e-6
    assert max(rare) <= JITTER * limits.RECONNECT_LONGEST, "journals and supervisors wait for as long"


def test_proxies_and_ssh_are_not_bothered() -> None:
    times = attempts(Redialling(), limits.RECONNECT_SOON, is_cheap=False)
    assert len(times) <= 12


def test_it_is_as_quick_after_each_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 1.0)
    redialling = Redialling()
    first = attempts(redialling, 100.0)
    redialling.link_is_up()
    assert attempts(redialling, 100.0) == first
