"""A body that comes by TLS for a process of this machine arrives there as one file, or as if there were none."""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from ipmpi import limits
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, DataReceived, MessageReceived, StreamAborted
from ipmpi.protocol.streams import FileFrame
from ipmpi.transport import landing
from ipmpi.transport.loop import Loop
from ipmpi.transport.memoryfile import MemoryFile
from ipmpi.transport.timedpool import TimedPool
from ipmpi.transport.transfers import Transfers

ALL: frozenset[type[m.Message]] = frozenset(get_args(m.AnyMessage))
SIZE = 3 * limits.STREAM_WINDOW + 12_345
DATA = random.Random(5).randbytes(SIZE)


class Line:
    """An endpoint here and its peer; ``files``: both are on this machine."""

    def __init__(self, files: bool) -> None:
        self.connection, self.peer = Connection(ALL), Connection(ALL)
        self.set_files(files)
        self.got: list[Any] = []

    def set_files(self, files: bool) -> None:
        self.connection.files, self.peer.files = (deque(), deque()) if files else (None, None)

    def wake(self) -> None:
        """The test moves all there is."""

    def out(self) -> None:
        while self.connection.wants_to_send:
            for buffer in self.connection.data_to_send():
                if isinstance(buffer, FileFrame):
                    assert self.peer.files is not None
                    self.peer.files.append(MemoryFile(os.dup(buffer.file.descriptor)))
                self.got += self.peer.receive_data(bytes(buffer))

    def into(self, transfers: Transfers) -> None:
        while self.peer.wants_to_send:
            for event in self.connection.receive_data(b"".join(self.peer.data_to_send())):
                transfers.handle(self, event)

    @property
    def pieces(self) -> list[Any]:
        return [event.data for event in self.got if isinstance(event, DataReceived)]

    @property
    def bytes(self) -> bytes:
        return b"".join(
            bytes(each) if isinstance(each, memoryview) else os.pread(each.descriptor, each.size, 0)
            for each in self.pieces
        )


@pytest.fixture(autouse=True, params=["used again", "used once"])
def _kind_of_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "used once":
        monkeypatch.setattr(limits, "POOL_BYTES", 0)


_LOOPS: list[Loop] = []


@pytest.fixture(autouse=True)
def _loops_are_closed() -> Iterator[None]:
    yield
    while _LOOPS:
        _LOOPS.pop().close()


def new_pool() -> TimedPool:
    _LOOPS.append(Loop())
    return TimedPool(_LOOPS[-1])


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


class Passing:
    """A body of a client that is elsewhere, on its way to engine sets."""

    def __init__(self, sinks: list[bool], data: bytes = DATA) -> None:
        self.pool = new_pool()
        self.transfers = Transfers(self.pool)
        self.source = Line(files=False)
        self.sinks = [Line(files) for files in sinks]
        self.ended: list[bool] = []
        message = m.Result(1, [0], True, b"", [len(data)])
        self.out = self.source.peer.send(message, [data])
        (event,) = self.source.connection.receive_data(b"".join(self.source.peer.data_to_send()))
        assert isinstance(event, MessageReceived)
        outs = [(line, line.connection.send_streamed(message, len(data))) for line in self.sinks]
        self.transfers.start(self.source, event.stream, outs, self.ended.append)
        self.stream = event.stream
        self.move()

    def move(self) -> None:
        for _ in range(12):
            self.source.out()
            self.source.into(self.transfers)
            for sink in self.sinks:
                sink.out()
                sink.into(self.transfers)

    def accept(self, sink: int = 0, size: int = limits.STREAM_WINDOW, *, files: bool = True) -> None:
        peer = self.sinks[sink].peer
        if files:
            peer.allow_files(1)
        peer.grant(1, size)
        self.move()

    @property
    def received(self) -> int:
        stream = self.source.connection._incoming.get(self.stream)
        return SIZE if stream is None else stream.received


def test_the_whole_body_arrives_as_one_file() -> None:
    passing = Passing([True])
    passing.accept()
    (file,) = passing.sinks[0].pieces
    assert isinstance(file, MemoryFile)
    file.claim(SIZE)
    assert passing.sinks[0].bytes == DATA
    assert passing.ended == [True]


def test_nothing_is_asked_for_before_the_receiver_listens() -> None:
    passing = Passing([True])
    assert passing.received == 0
    passing.accept()
    assert passing.received == SIZE


def test_the_slowest_of_several_sets_holds_up_the_sender() -> None:
    passing = Passing([True, False])
    passing.accept(0)
    assert passing.received == 0
    passing.accept(1, 100_000, files=False)
    assert passing.received == 100_000
    passing.accept(1, SIZE - 100_000, files=False)
    assert [line.bytes == DATA for line in passing.sinks] == [True, True]
    assert [type(piece) for piece in passing.sinks[0].pieces] == [MemoryFile]


@pytest.mark.parametrize(("data", "files"), [(DATA[: limits.FILE_BODY - 1], True), (DATA, False)])
def test_small_bodies_and_those_who_take_no_files_get_pieces(data: bytes, files: bool) -> None:
    passing = Passing([True], data)
    passing.accept(size=1000, files=files)
    assert sum(map(len, passing.sinks[0].pieces)) == 1000, "as much as was asked for"
    passing.accept(size=len(data) - 1000, files=False)
    assert passing.sinks[0].bytes == data


def test_where_the_system_gives_no_file_pieces_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    passing = Passing([True])
    passing.accept(size=SIZE)
    assert passing.sinks[0].bytes == DATA
    assert passing.ended == [True]


def test_what_there_is_no_memory_for_follows_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    full = limits.STREAM_WINDOW + 7

    def until_it_is_full(descriptor: int, data: memoryview, at: int) -> int:
        if at >= full:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, data[: full - at], at)

    monkeypatch.setattr(os, "pwrite", until_it_is_full)
    passing = Passing([True])
    passing.accept(size=SIZE)
    file, *rest = passing.sinks[0].pieces
    assert isinstance(file, MemoryFile)
    file.claim(limits.STREAM_WINDOW - limits.STREAM_WINDOW % len(rest[0]))
    assert {type(piece) for piece in rest} == {memoryview}
    monkeypatch.undo()
    assert passing.sinks[0].bytes == DATA, "nothing of the piece that did not find room twice"


@pytest.mark.parametrize("sixteenths", [7, 9])
def test_a_body_that_would_take_most_of_the_memory_is_passed_on_in_pieces(
    monkeypatch: pytest.MonkeyPatch, sixteenths: int
) -> None:
    monkeypatch.setattr(limits, "POOL_BYTES", 0)
    monkeypatch.setattr(landing, "available_bytes", lambda: SIZE * 16 // sixteenths)
    passing = Passing([True])
    passing.accept(size=SIZE)
    assert passing.sinks[0].bytes == DATA
    kinds = {type(piece) for piece in passing.sinks[0].pieces}
    assert kinds == ({MemoryFile} if sixteenths < 8 else {memoryview})


def test_a_set_that_comes_back_from_elsewhere_gets_pieces() -> None:
    passing = Passing([True, True])
    passing.accept(0)
    line = passing.sinks[0]
    assert passing.received == 0, "the second set has not asked for anything yet"
    line.set_files(False)
    line.connection.resume(line.peer.received)
    line.peer.resume(line.connection.received)
    passing.accept(1)
    line.peer.grant(1, SIZE)
    passing.move()
    assert [each.bytes == DATA for each in passing.sinks] == [True, True]
    assert {type(piece) for piece in line.pieces} == {memoryview}


@pytest.mark.parametrize("how", ["sender aborts", "sender lost", "refused", "receiver lost"])
def test_the_memory_of_what_nobody_gets_is_freed(how: str) -> None:
    passing = Passing([True, False])
    before = open_files()
    passing.accept(0)
    passing.accept(1, 1000, files=False)
    assert passing.received == 1000
    assert open_files() > before
    if how == "sender aborts":
        assert passing.out is not None
        passing.source.peer.abort(passing.out)
    elif how == "sender lost":
        passing.transfers.endpoint_lost(passing.source)
    elif how == "refused":
        passing.sinks[0].peer.refuse(1)
    else:
        passing.transfers.endpoint_lost(passing.sinks[0])
    passing.move()
    assert open_files() == before
    if how.startswith("sender"):
        assert passing.sinks[0].got[-1] == StreamAborted(1)
        assert passing.ended == [False]
    else:
        passing.accept(1, SIZE - 1000, files=False)
        assert passing.sinks[1].bytes == DATA, "the other set gets all of it"


def test_an_engine_set_sends_its_files_to_a_client_elsewhere() -> None:
    transfers = Transfers(new_pool())
    source, sink = Line(files=True), Line(files=False)
    message = m.Result(1, [0], True, b"", [SIZE])
    source.peer.send_streamed(message, SIZE)
    (event,) = source.connection.receive_data(b"".join(source.peer.data_to_send()))
    assert isinstance(event, MessageReceived)
    out = sink.connection.send_streamed(message, SIZE)
    transfers.start(source, event.stream, [(sink, out)], files=True)
    source.out()
    assert source.peer._streams[1].files, "the ranks' files need not be read by the agent"
