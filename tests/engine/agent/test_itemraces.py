"""A rank runs items, and its agent takes them back at any moment: each runs or comes back."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from ipmpi.engine.agent.itembook import Finished, ItemBatch, ItemBook
from ipmpi.engine.rank.controlblock import BELL, RESULT_BYTES, RESULTS, RING, SLOTS, TAKEN, ControlBlock
from ipmpi.engine.rank.interrupts import Interrupts
from ipmpi.engine.rank.items import ItemRunner
from ipmpi.engine.rank.outcomes import DONE, SKIPPED
from ipmpi.engine.rank.taskrunner import Program
from ipmpi.protocol import packed, rankmessages as rm

SECONDS = float(os.environ.get("IPMPI_RACE_SECONDS", "3"))
SEED = int(os.environ.get("IPMPI_SEED", "1"))
PATIENCE = 20.0


class Process:
    """User code does not fork here."""

    is_child = False


class Echo:
    """Runs an item: its result is its arguments."""

    process = Process()

    def run(self, _program: Program, payload: bytes) -> tuple[int, bytes]:
        return DONE, payload


def runner(block: ControlBlock, ring: Callable[[], None]) -> ItemRunner:
    return ItemRunner(cast(Any, Echo()), block, Interrupts(block), ring, lambda *_: None)


@pytest.fixture
def block() -> Iterator[tuple[ControlBlock, int]]:
    made, descriptor = ControlBlock.create()
    yield made, descriptor
    os.close(descriptor)


class Link:
    """Messages to the rank: only serial numbers, eight bytes each, through a pipe."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def send(self, message: rm.ToRank, _body: Any, _files: tuple[int, ...]) -> None:
        assert isinstance(message, rm.RunItems)
        for offset in range(packed.count(message.lengths)):
            os.write(self.write, (message.first + offset).to_bytes(8, "little"))

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


def be_rank(descriptor: int, pipe: int) -> None:
    """Work on what comes through a pipe, until it ends."""
    block = ControlBlock(descriptor)
    work = runner(block, lambda: None)
    program = Program(b"")
    os.set_blocking(pipe, True)
    while data := os.read(pipe, 8 * 50):
        serials = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
        work.give((serial, program, b"%d" % serial, False) for serial in serials)
        work.work(lambda: True)


@pytest.fixture(params=["thread", "process"])
def rank(request: pytest.FixtureRequest, block: tuple[ControlBlock, int]) -> Iterator[Link]:
    """A rank at the other end of a link: a thread, or a process with a mapping of its own."""
    link = Link()
    if request.param == "thread":
        thread = threading.Thread(target=be_rank, args=(block[1], link.read))
        thread.start()
        yield link
        os.close(link.write)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        os.close(link.read)
        return
    child = os.fork()
    if not child:
        try:
            os.close(link.write)
            signal.alarm(120)
            be_rank(block[1], link.read)
        finally:
            os._exit(0)
    yield link
    link.close()
    assert os.waitpid(child, 0)[1] == 0


def test_each_item_runs_or_comes_back(block: tuple[ControlBlock, int], rank: Link) -> None:
    book = ItemBook(block[0], rank.send, lambda serial: False)
    chance = random.Random(SEED)
    given = ItemBatch(1, b"", None)
    came: Counter[int] = Counter()
    ran = back = skipped = total = 0

    def ended(finished: Sequence[Finished]) -> None:
        nonlocal ran, back, skipped
        for _, index, (kind, data), _ in finished:
            came[index] += 1
            if kind == SKIPPED:
                assert data in (b"taken", b"cancelled")
                skipped += 1
            else:
                assert (kind, data) == (DONE, b"%d" % (index + 1))  # serial numbers begin with 1
                ran += 1

    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        number = chance.choice([1, 2, 5, 40])
        book.give(given, range(total, total + number), packed.pack([0] * number), ())
        total += number
        for _ in range(chance.choice([0, 1, 10, 300])):
            pass
        if chance.random() < 0.5:
            taken, finished = book.take_back(chance.randrange(number + 2))
        else:
            some = {total - 1 - chance.randrange(number) for _ in range(3)}
            taken, running, finished = book.remove(1, some)
            assert {index for _, index in running} <= some
        ended(finished)
        for _, index in taken:
            came[index] += 1
            back += 1
        if chance.random() < 0.3:
            ended(book.collect())
    until = time.monotonic() + PATIENCE
    while book.is_active:
        ended(book.collect())
        assert time.monotonic() < until, f"{total - len(came)} of {total} are lost"
    assert set(came.values()) == {1}, "an item came twice"
    assert len(came) == total
    assert ran, "none ran"
    assert back, "none came back"
    print(f"\n{total} items: {ran} ran, {back} came back, {skipped} were skipped")


def test_results_go_round_the_ring_and_wait_while_it_is_full(
    block: tuple[ControlBlock, int],
) -> None:
    ours = block[0]
    rung = threading.Event()
    work = runner(ControlBlock(block[1]), rung.set)
    chance = random.Random(SEED)
    sizes = [chance.choice([0, 1, 1000, 60_000]) for _ in range(400)]
    payloads = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    assert sum(sizes) > 10 * RING
    program = Program(b"")
    sent: list[rm.ToRank] = []
    book = ItemBook(ours, lambda message, body, files: sent.append(message), lambda serial: False)
    book.give(ItemBatch(1, b"", None), range(400), packed.pack([0] * 400), ())
    work.give((number + 1, program, payload, False) for number, payload in enumerate(payloads))
    thread = threading.Thread(target=work.work, args=(lambda: True,))
    thread.start()
    found: dict[int, bytes] = {}
    while len(found) < 400:
        assert rung.wait(PATIENCE)
        rung.clear()
        assert ours.words[RESULTS] - ours.words[TAKEN] <= SLOTS
        for _, index, (kind, data), _ in book.collect():
            assert kind == DONE
            found[index] = data
    thread.join(PATIENCE)
    assert [found[number] for number in range(400)] == payloads
    assert ours.words[RESULT_BYTES] == sum(sizes)


def test_more_results_than_slots_wait_until_some_are_taken(block: tuple[ControlBlock, int]) -> None:
    ours = block[0]
    work = runner(ControlBlock(block[1]), lambda: None)
    book = ItemBook(ours, lambda message, body, files: None, lambda serial: False)
    count = 2 * SLOTS + 3
    book.give(ItemBatch(1, b"", None), range(count), packed.pack([0] * count), ())
    program = Program(b"")
    work.give((number, program, b"", False) for number in range(1, count + 1))
    thread = threading.Thread(target=work.work, args=(lambda: True,))
    thread.start()
    until = time.monotonic() + PATIENCE
    while ours.words[RESULTS] < SLOTS:
        assert time.monotonic() < until
    found: list[int] = []
    while len(found) < count:
        finished = book.collect()
        assert len(finished) <= SLOTS
        found += [index for _, index, _, _ in finished]
        assert time.monotonic() < until
    thread.join(PATIENCE)
    assert found == list(range(count))


def test_results_can_be_seen_while_a_later_item_takes_long(block: tuple[ControlBlock, int]) -> None:
    ours = block[0]
    go = threading.Event()

    class Slow(Echo):
        def run(self, program: Program, payload: bytes) -> tuple[int, bytes]:
            del program
            if payload == b"slow":
                assert go.wait(PATIENCE)
            return DONE, payload

    theirs = ControlBlock(block[1])
    work = ItemRunner(cast(Any, Slow()), theirs, Interrupts(theirs), lambda: None, lambda *_: None)
    book = ItemBook(ours, lambda message, body, files: None, lambda serial: False)
    book.give(ItemBatch(1, b"", None), range(3), packed.pack([0] * 3), ())
    work.give((n, Program(b""), data, n == 3) for n, data in ((1, b"a"), (2, b"slow"), (3, b"b")))
    thread = threading.Thread(target=work.work, args=(lambda: True,))
    thread.start()
    until = time.monotonic() + PATIENCE
    while book.running()[0] != 2:
        assert time.monotonic() < until
    assert [index for _, index, _, _ in book.collect()] == [0]
    taken, running, _ = book.remove(1, {1, 2})
    assert ([index for _, index in taken], [index for _, index in running]) == ([2], [1])
    go.set()
    thread.join(PATIENCE)
    assert [(index, kind) for _, index, (kind, _), _ in book.collect()] == [(1, DONE)]
    assert ours.words[BELL] == 0
