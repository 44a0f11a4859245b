"""What an agent takes back from a rank, and what has begun there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ipmpi.engine.agent.itembook import ItemBatch, ItemBook
from ipmpi.engine.rank.controlblock import CLAIMED, CURRENT, INTERRUPTS, RESULT_BYTES, RESULTS, SLOTS, ControlBlock
from ipmpi.engine.rank.interrupts import Interrupts
from ipmpi.engine.rank.outcomes import DONE, FAILED, SKIPPED
from ipmpi.limits import TASK_BATCH
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
    book.give(ItemBatch(7, b"f", None), [0, 1, 2], packed.pack([0, 0, 0]), [])
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


# --- results that are taken in runs ----------------------------------------------------------------------------


def leave(block: ControlBlock, serial: int, data: bytes, kind: int = DONE) -> None:
    """Leave a result as the rank does."""
    words = block.words
    result = words[RESULTS]
    slot = result % SLOTS
    block.serials[slot], block.kinds[slot] = serial, kind
    block.lengths[slot], block.seconds[slot] = len(data), 0.5
    block.put(words[RESULT_BYTES], data)
    words[RESULT_BYTES] += len(data)
    words[RESULTS] = result + 1


def test_results_of_tasks_that_came_together_are_taken_together(block: ControlBlock, book: ItemBook) -> None:
    other = ItemBatch(7, b"f", None)
    book.give(other, [20, 21], packed.pack([0, 0]), [])
    for serial, data in enumerate((b"a", b"", b"ccc", b"dd"), 1):
        leave(block, serial, data)
    (first, second), are_more = book.take_runs()
    assert not are_more
    assert (first.indices, first.lengths, first.data, first.seconds) == ([0, 1, 2], [1, 0, 3], b"accc", 1.5)
    assert (second.given, second.indices, second.data) == (other, [20], b"dd")
    assert book.is_active
    assert not book.has_finished
    leave(block, 5, b"e")
    (third,), _ = book.take_runs()
    assert (third.indices, third.data) == ([21], b"e")
    assert not book.is_active


def test_a_failure_ends_a_run_and_nothing_is_lost(block: ControlBlock, book: ItemBook) -> None:
    leave(block, 1, b"a")
    leave(block, 2, b"failure", FAILED)
    leave(block, 3, b"c")
    runs, are_more = book.take_runs()
    assert (runs, are_more) == ([], True)
    assert [(index, outcome) for _, index, outcome, _ in book.collect()] == [
        (0, (DONE, b"a")), (1, (FAILED, b"failure")), (2, (DONE, b"c")),
    ]  # fmt: skip
    assert book.take_runs() == ([], False)


def test_what_was_taken_back_and_ran_all_the_same_is_not_in_a_run(block: ControlBlock, book: ItemBook) -> None:
    taken, _ = book.take_back(1)
    assert [index for _, index in taken] == [2]
    leave(block, 1, b"a")
    leave(block, 2, b"b")
    leave(block, 3, b"", SKIPPED)
    runs, are_more = book.take_runs()
    found = [index for run in runs for index in run.indices] + [one[1] for one in book.collect()]
    assert found == [0, 1]
    assert are_more


def test_runs_go_on_where_slots_and_bytes_begin_anew(block: ControlBlock) -> None:
    book = ItemBook(block, lambda message, body, files: None, lambda serial: False)
    total, seen, data = 3 * SLOTS + 100, [], []
    for first in range(0, total, 1000):
        indices = range(first, min(first + 1000, total))
        book.give(ItemBatch(1, b"f", None), indices, packed.pack([0] * len(indices)), [])
        for index in indices:
            leave(block, index + 1, b"%09d" % index * 5)
        runs, are_more = book.take_runs()
        assert not are_more
        assert all(sum(run.lengths) == len(run.data) <= TASK_BATCH for run in runs)
        seen += [index for run in runs for index in run.indices]
        data += [run.data for run in runs]
    assert seen == list(range(total))
    assert b"".join(data) == b"".join(b"%09d" % index * 5 for index in range(total))
