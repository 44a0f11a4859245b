"""How often a controller of others is asked for its engines."""

from __future__ import annotations

from ipmpi.cli.watch import COUNT_FIRST, COUNT_LONGEST, COUNT_STARTING, next_pause


def pauses(complete: bool, times: int) -> list[float]:
    found = [COUNT_FIRST]
    for _ in range(times):
        found.append(next_pause(found[-1], changed=False, complete=complete))
    return found


def test_a_whole_cluster_is_hardly_asked_at_all() -> None:
    assert pauses(True, 10)[-1] == COUNT_LONGEST
    # In an hour, where it was asked 14,400 times.
    assert 3600 / COUNT_LONGEST <= 240


def test_engines_that_are_still_missing_are_looked_for_more_often_and_at_once_when_they_come() -> None:
    assert pauses(False, 10)[-1] == COUNT_STARTING
    assert next_pause(COUNT_LONGEST, changed=True, complete=False) == COUNT_FIRST
