"""What an agent takes back from a rank, and what has begun there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ipmpi.engine.agent.itembook import Given, ItemBook
from ipmpi.engine.rank.controlblock import CLAIMED, CURRENT, INTERRUPTS, ControlBlock
from ipmpi.engine.rank.interrupts import Interrupts
from ipmpi.protocol import packed


@pytest.fixture
def block() -> Iterator[ControlBlock]:
    made, descriptor = ControlBlock.create()
    yield made
    os.close(descriptor)


@pytest.fixture
def book(block: ControlBlock) -> ItemBook:
    """Three items, 0 to 2, with the serial numbers 1 to 3."""
    book = ItemBook(block, lambda message, body, files: None, lambda serial: False)
    book.give(Given(7, b"f", None), [0, 1, 2], packed.pack([0, 0, 0]), [])
    return book


def test_an_item_whose_large_result_is_on_its_way_is_not_taken_back(block: ControlBlock, book: ItemBook) -> None:
    block.words[CLAIMED] = block.words[CURRENT] = 2  # the first has ended, and its packet has not been read
    taken, finished = book.take_back(3)
    assert [index for _, index in taken] == [2]
    assert finished == []
    ended = book.ended(1)
    assert ended is not None
    assert ended[1] == 0


def test_an_item_that_has_begun_and_is_to_be_cancelled_may_run(block: ControlBlock, book: ItemBook) -> None:
    block.words[CLAIMED] = block.words[CURRENT] = 1
    waited, running, finished = book.remove(7, {0, 2})
    assert [index for _, index in waited] == [2]
    assert [index for _, index in running] == [0]
    assert finished == []


def test_an_interrupt_that_is_meant_for_nothing_hits_nothing(block: ControlBlock) -> None:
    block.words[INTERRUPTS] = 1
    Interrupts(block).arrived()
