"""A body put together from pieces, in private memory."""

from __future__ import annotations

import os
import random
from typing import Any, get_args

import pytest

from ipmpi import limits
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, MessageReceived
from ipmpi.transport.bodyreceiver import BodyReceiver
from ipmpi.transport.memoryfile import MemoryFile, in_memory
from ipmpi.transport.privatememory import PrivateMemory
from ipmpi.transport.transfers import Transfers

ALL: frozenset[type[m.Message]] = frozenset(get_args(m.AnyMessage))


class Notes:
    """An assembly, and what it says."""

    def __init__(self, lengths: list[int]) -> None:
        self.done: list[BodyReceiver] = []
        self.aborted = 0
        self.assembly = BodyReceiver(lengths, PrivateMemory(lengths), self.done.append, self._abort)

    def _abort(self) -> None:
        self.aborted += 1


def test_pieces_become_segments() -> None:
    data = random.Random(1).randbytes(10_000)
    notes = Notes([1, 0, 4999, 5000])
    at = 0
    for size in (1, 2, 3, 4000, 5000, 994):
        assert not notes.done
        notes.assembly.feed(notes.assembly, data[at : at + size])
        at += size
    assert notes.done == [notes.assembly]
    parts = notes.assembly.segments()
    assert [bytes(part) for part in parts] == [data[:1], b"", data[1:5000], data[5000:]]
    view: Any = parts[3]
    view[0] = 7
    assert view[0] == 7, "the memory is the receiver's to write"


def test_segments_outlive_the_assembly() -> None:
    notes = Notes([3, 3])
    notes.assembly.feed(notes.assembly, b"abcdef")
    parts = notes.done.pop().segments()
    notes.assembly.memory.close()
    del notes
    assert [bytes(part) for part in parts] == [b"abc", b"def"]


@pytest.mark.parametrize("before", [0, 1, 4096, 5000])
@pytest.mark.parametrize("sizes", [(4096,), (8192, 4096), (5,), (8192, 5), (5, 4096)])
def test_files_take_the_place_of_segments_and_are_private(before: int, sizes: tuple[int, ...]) -> None:
    data = random.Random(before).randbytes(before + sum(sizes))
    notes = Notes([before, sum(sizes)])
    notes.assembly.feed(notes.assembly, data[:before])
    at, files = before, []
    for size in sizes:
        files.append(MemoryFile(in_memory([data[at : at + size]], sealed=True), size))
        notes.assembly.feed(notes.assembly, files[-1])
        at += size
    assert notes.done
    parts: Any = notes.assembly.segments()
    assert bytes(parts[1]) == data[before:]
    parts[1][:] = bytes(sum(sizes))
    assert bytes(files[0].part(0, sizes[0])) == data[before : before + sizes[0]], "what is written stays here"


def test_a_body_in_one_file_with_several_segments_is_copied() -> None:
    data = random.Random(3).randbytes(10_000)
    notes = Notes([1, 9_999])
    notes.assembly.feed(notes.assembly, MemoryFile(in_memory([data], sealed=True), len(data)))
    assert b"".join(bytes(part) for part in notes.assembly.segments()) == data


@pytest.mark.parametrize("size", [5000, 2 * limits.MIB])
def test_what_is_parsed_is_a_copy_that_its_sender_cannot_change(size: int) -> None:
    """The first segment: a pickle, which a client may open in a way that looks at it first."""
    data = random.Random(4).randbytes(size)
    descriptor = in_memory([data])
    notes = Notes([size])
    notes.assembly.feed(notes.assembly, MemoryFile(os.dup(descriptor), size))
    os.pwrite(descriptor, bytes(size), 0)
    os.close(descriptor)
    assert bytes(notes.assembly.segments()[0]) == data


def test_abort() -> None:
    notes = Notes([5])
    notes.assembly.feed(notes.assembly, b"ab")
    notes.assembly.abort(notes.assembly)
    assert (notes.aborted, notes.done) == (1, [])


@pytest.mark.parametrize("size", [limits.CHUNK, limits.STREAM_WINDOW, 3 * limits.STREAM_WINDOW + 5])
def test_credit_is_a_window_that_moves_in_steps(size: int) -> None:
    notes = Notes([size])
    assembly = notes.assembly
    received, steps = 0, {assembly.credit}
    piece = bytes(limits.CHUNK)
    while received < size:
        assert received < assembly.credit <= min(size, received + limits.STREAM_WINDOW)
        part = piece[: min(len(piece), assembly.credit - received)]
        received += len(part)
        assembly.feed(assembly, part)
        steps.add(assembly.credit)
    assert notes.done
    assert assembly.credit == size
    assert len(steps) <= 2 + 4 * size // limits.STREAM_WINDOW


class Line:
    """A connection that stands alone, as the source of a transfer."""

    def __init__(self) -> None:
        self.connection = Connection(ALL)

    def wake(self) -> None:
        """Its bytes are moved by hand."""


def test_as_the_sink_of_a_transfer() -> None:
    size = 2 * limits.STREAM_WINDOW + 11
    data = random.Random(2).randbytes(size)
    peer, line, transfers = Connection(ALL), Line(), Transfers()
    peer.send(m.Result(1, [0], True, b"", [7, size - 7]), [data[:7], data[7:]])
    notes = Notes([7, size - 7])
    while peer.wants_to_send:
        for event in line.connection.receive_data(b"".join(peer.data_to_send())):
            if isinstance(event, MessageReceived):
                transfers.start(line, event.stream, [(notes.assembly, notes.assembly)])
            else:
                assert transfers.handle(line, event)
        list(peer.receive_data(b"".join(line.connection.data_to_send())))
    (assembly,) = notes.done
    assert b"".join(bytes(part) for part in assembly.segments()) == data
