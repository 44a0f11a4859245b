"""Files that a hostile process of the same user hands to a controller: it refuses them, and loses nothing."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ipmpi.protocol import messages as m, operations
from ipmpi.protocol.connection import DataReceived, StreamAborted
from ipmpi.protocol.frames import COUNT, FrameKind, prefix
from ipmpi.transport.memoryfile import SEALS, in_memory
from ipmpi.transport.segmentpool import SegmentPool
from tests.security.cluster import Controller, controller, wait_until
from tests.security.localwire import LocalMember

SIZE = 3_000_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    with controller(tmp_path_factory.mktemp("controller")) as running:
        yield running


class Scene:
    """A client that may send the body of a command in a file, and the engine that asks for it."""

    def __init__(self, running: Controller, stack: ExitStack) -> None:
        self.engine = LocalMember(running.furl("engine"))
        stack.callback(self.engine.close)
        self.engine.connection.send(m.Register([m.EngineInfo(0, 0, "testhost", 1)], "no MPI", "3"))
        (number,) = self.engine.hear(m.Registered).message.ids  # type: ignore[union-attr]
        self.client = LocalMember(running.furl("mec"))
        stack.callback(self.client.close)
        operation = operations.encode(operations.Push())
        command = m.Command(1, [number], "push", "push", operation, [SIZE])
        self.stream = self.client.connection.send_streamed(command, SIZE)
        self.client.until(lambda: not self.client.connection.wants_to_send)
        self.incoming = self.engine.hear(m.Dispatch).stream

    def ask(self) -> None:
        """The engine asks for the body, and the client hears of it."""
        self.engine.connection.allow_files(self.incoming)
        self.engine.connection.grant(self.incoming, 1000)
        self.engine.until(lambda: not self.engine.connection.wants_to_send)
        self.client.until(self.client.has_credit)
        assert self.stream.files

    def frame(self, size: int = SIZE) -> bytes:
        return prefix(FrameKind.FILE, COUNT.size, self.stream.id) + COUNT.pack(size)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def memory(seals: int, size: int = SIZE) -> int:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def a_pipe() -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


FILES: dict[str, Callable[[], int]] = {
    "unsealed": lambda: memory(0),
    "can be cut off": lambda: memory(fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE),
    "can grow": lambda: memory(fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE),
    "too small": lambda: memory(SEALS, SIZE - 1),
    "empty": lambda: memory(SEALS, 0),
    "a file": lambda: os.open(__file__, os.O_RDONLY),
    "a folder": lambda: os.open("/", os.O_RDONLY),
    "a device": lambda: os.open("/dev/zero", os.O_RDWR),
    "a pipe": a_pipe,
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_could_be_cut_off_or_lies_about_its_size_ends_its_link(
    running: Controller, stack: ExitStack, kind: str
) -> None:
    scene = Scene(running, stack)
    scene.ask()
    before = running.descriptors()
    descriptor = FILES[kind]()
    scene.client.send_raw(scene.frame(), [descriptor])
    os.close(descriptor)
    scene.client.until(lambda: scene.client.is_ended)
    scene.engine.until(lambda: any(isinstance(event, StreamAborted) for event in scene.engine.events))
    assert scene.engine.connection.files == type(scene.engine.connection.files)()  # type: ignore[misc]
    wait_until(lambda: running.descriptors() == before - 1, "its files are closed")
    assert running.is_alive()


@pytest.mark.parametrize("is_kept", [False, True], ids=["used once", "of a pool"])
def test_a_good_file_arrives(running: Controller, stack: ExitStack, is_kept: bool) -> None:
    """The tests above could fail otherwise for another reason."""
    scene = Scene(running, stack)
    scene.ask()
    pool = SegmentPool(lambda: 2 * SIZE if is_kept else 0)
    stack.callback(pool.close)
    descriptor = pool.file_with([b"x" * SIZE], SIZE, 0.0)
    assert pool.is_empty != is_kept
    before = running.descriptors()
    scene.client.send_raw(scene.frame(), [descriptor])
    os.close(descriptor)
    scene.engine.until(lambda: any(isinstance(event, DataReceived) for event in scene.engine.events))
    (event,) = [event for event in scene.engine.events if isinstance(event, DataReceived)]
    assert not isinstance(event.data, memoryview)
    assert bytes(event.data.part(SIZE - 3, 3)) == b"xxx"
    scene.engine.connection.acknowledge()
    scene.engine.until(lambda: not scene.engine.connection.wants_to_send)
    wait_until(lambda: running.descriptors() == before, "the controller keeps no file that has arrived")


def test_a_frame_whose_file_did_not_come(running: Controller, stack: ExitStack) -> None:
    scene = Scene(running, stack)
    scene.ask()
    scene.client.send_raw(scene.frame(), [])
    scene.client.until(lambda: scene.client.is_ended)
    assert running.is_alive()


def test_a_file_that_nobody_has_asked_for(running: Controller, stack: ExitStack) -> None:
    scene = Scene(running, stack)
    descriptor = in_memory([b"x" * SIZE], sealed=True)
    scene.client.send_raw(scene.frame(), [descriptor])
    os.close(descriptor)
    scene.client.until(lambda: scene.client.is_ended)
    assert running.is_alive()


@pytest.mark.parametrize("at_once", [1, 50])
def test_files_without_a_frame_are_not_collected(running: Controller, stack: ExitStack, at_once: int) -> None:
    client = LocalMember(running.furl("monitor"))
    stack.callback(client.close)
    assert client.answers()
    before = running.descriptors()
    descriptor = in_memory([b"x"], sealed=True)
    ping = prefix(FrameKind.PING, 0)
    try:
        for _ in range(20):
            client.send_raw(ping, [descriptor] * at_once)
    except OSError:
        pass  # it has had enough
    os.close(descriptor)
    client.until(lambda: client.is_ended)
    wait_until(lambda: running.descriptors() <= before, "the files are closed")
    assert running.is_alive()


def test_over_tls_a_frame_that_announces_a_file_ends_the_link(running: Controller) -> None:
    from tests.security.wire import Member

    with Member(running.furl("mec")) as member:
        member.send(prefix(FrameKind.FILE, COUNT.size, 1) + COUNT.pack(10))
        assert member.is_ended()
    assert running.is_alive()


def test_a_controller_without_a_free_descriptor_loses_the_link_and_no_more(tmp_path: Path) -> None:
    """It cannot know which file it was. The client comes back by TCP, and sends the same in chunks."""
    with controller(tmp_path) as running, ExitStack() as stack:
        scene = Scene(running, stack)
        scene.ask()
        resource_limit(running.pid, 1)
        descriptor = in_memory([b"x" * SIZE], sealed=True)
        scene.client.send_raw(scene.frame(), [descriptor])
        os.close(descriptor)
        scene.client.until(lambda: scene.client.is_ended)
        assert running.is_alive()
        wait_until(lambda: "no descriptor is left" in running.log(), "its log")


def resource_limit(pid: int, files: int) -> None:
    import resource

    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, hard))
