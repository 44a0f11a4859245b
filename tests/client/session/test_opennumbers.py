"""Which commands have ended, as told to the controller."""

from __future__ import annotations

from ipmpi.client.session.opennumbers import OpenNumbers


def test_numbers_below_which_all_have_ended() -> None:
    numbers = OpenNumbers()
    assert not numbers.has_begun
    assert numbers.take() == 1
    assert [numbers.begin() for _ in range(3)] == [(2, 2), (3, 2), (4, 2)]
    assert numbers.has_begun
    numbers.end(3)
    assert numbers.begin() == (5, 2)
    numbers.end(2)
    assert numbers.begin() == (6, 4)
    for number in (6, 5, 4):
        numbers.ends(number)(None)
    assert numbers.begin() == (7, 7)


def test_what_ends_twice_counts_once() -> None:
    numbers = OpenNumbers()
    first, second = numbers.begin()[0], numbers.begin()[0]
    numbers.end(first)
    numbers.end(first)
    assert numbers.begin() == (3, second)
