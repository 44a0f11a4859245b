"""Where the ranks of one node find their leader, on file systems of all kinds."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.transport import unix
from ipmpi.transport.loop import Loop
from ipmpi.transport.pipes import UnixPipe
from ipmpi.transport.unix import UnixListener, connect_unix


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def talk(loop: Loop, listener: UnixListener) -> bytes:
    """What a rank says to its leader."""
    pipes: list[UnixPipe] = []

    def arrived(pipe: UnixPipe) -> None:
        pipes.append(pipe)
        loop.stop()

    listener.accept(loop, 1, arrived)
    rank = connect_unix(listener.path)
    try:
        loop.run()
        rank.send([b"here I am"])
        assert rank.flush()
        return bytes(pipes[0].receive())
    finally:
        for pipe in (rank, *pipes):
            pipe.close()


class NoSockets(socket.socket):
    """A socket that cannot be bound in some folders, as on Lustre and FUSE."""

    refused: tuple[str, ...] = ()

    def bind(self, address: object) -> None:
        if isinstance(address, str) and address.startswith(self.refused):
            raise OSError(95, "Operation not supported")
        super().bind(address)  # type: ignore[arg-type]


def refuse(monkeypatch: pytest.MonkeyPatch, *folders: str) -> None:
    monkeypatch.setattr(NoSockets, "refused", folders)
    monkeypatch.setattr(unix.socket, "socket", NoSockets)


def test_the_folder_is_its_users(loop: Loop) -> None:
    listener = UnixListener()
    folder = Path(listener.path).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert talk(loop, listener) == b"here I am"
    assert not folder.exists(), "all ranks are here"


def test_a_tmpdir_without_sockets_is_left_for_another_folder(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    refuse(monkeypatch, str(tmp_path))
    listener = UnixListener()
    assert not listener.path.startswith(str(tmp_path))
    assert not list(tmp_path.iterdir()), "nothing is left behind"
    assert talk(loop, listener) == b"here I am"


def test_a_node_without_any_folder_for_sockets(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "/")
    listener = UnixListener()
    assert listener.path.startswith("@ipmpi-")
    assert talk(loop, listener) == b"here I am"


def test_another_users_process_is_no_leader_and_no_rank(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "/")
    listener = UnixListener()
    listener.accept(loop, 1, lambda pipe: pytest.fail("a stranger was taken for a rank"))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(LauncherError, match="a process of another user listens"):
        connect_unix(listener.path)
    loop.call_later(0.05, loop.stop)
    loop.run()
    listener.close()


def test_no_place_at_all_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "/", "\0")
    with pytest.raises(LauncherError, match=r"no folder here takes the socket.*/tmp: Operation not.*set TMPDIR"):
        UnixListener()
