"""The orders that are built in, and one of a site's own."""

from __future__ import annotations

import pytest
from farm_stage import SET, Stage

from ipmpi.controller.farm.order import ORDERS, Fifo, Lifo, Order, Priority, Queued

ARRIVED = [Queued(1, 1, 10, 0, None), Queued(2, 2, 1, 5, 2.0), Queued(3, 1, 4, 0, 1.0), Queued(4, 1, 4, 5, None)]


def arranged(order: Order) -> list[int]:
    return [queued.arrival for queued in sorted(ARRIVED, key=order.rank)]


@pytest.mark.parametrize(
    ("name", "expected"), [("fifo", [1, 2, 3, 4]), ("lifo", [4, 3, 2, 1]), ("priority", [2, 4, 1, 3])]
)
def test_orders(name: str, expected: list[int]) -> None:
    assert arranged(ORDERS[name]()) == expected


def test_only_the_last_in_first_out_turns_groups_round() -> None:
    assert [kind.newest_first for kind in (Fifo, Lifo, Priority)] == [False, True, False]


class ShortestFirst:
    """A site's own, with many equal ranks."""

    newest_first = False

    def rank(self, queued: Queued) -> tuple[float, ...]:
        return (queued.expected or 0.0,)


def test_an_order_of_ones_own() -> None:
    stage = Stage(ShortestFirst())
    for number, expected in ((1, 9.0), (2, 1.0), (3, 9.0), (4, None), (5, 1.0)):
        stage.submit(number, [b"", b""], expected=expected)
    stage.add_set(SET, 10)
    assert [group for group, _ in stage.running[SET]] == [4, 4, 2, 2, 5, 5, 1, 1, 3, 3]


@pytest.mark.parametrize("order", [Fifo, Lifo, Priority])
def test_what_comes_back_keeps_its_place(order: type[Order]) -> None:
    stage = Stage(order())
    stage.add_set(SET, 1)
    for number in (1, 2, 3):
        stage.submit(number)
    (first,) = stage.given[SET]
    stage.return_(SET, [first], "taken")
    if order is Lifo:
        assert list(stage.given[SET]) == [(3, 0)], "which came after it"
    else:
        assert list(stage.given[SET]) == [first]
