"""News of a controller that is somebody else's process."""

from __future__ import annotations

import os
import select
import threading
import time
from pathlib import Path

import pytest

from ipmpi.cli.monitor import MonitoredController
from ipmpi.client.session.session import Session
from ipmpi.errors import FurlError
from ipmpi.furl import save
from ipmpi.launch.cluster.happenings import ControllerEnded, ControllerReady, EngineCount, Happening, RunsOn
from tests.in_process import in_process


def hear(watched: MonitoredController, wanted: Happening) -> None:
    """Read what is told until it is this; fails if nothing is told for a while."""
    while wanted not in HEARD:
        ready, _, _ = select.select([watched.fd], [], [], 10)
        assert ready, f"{wanted} was not told, but {HEARD}"
        HEARD.extend(watched.read() or [])
    HEARD.clear()


HEARD: list[Happening] = []


@pytest.mark.parametrize("only_new", [False, True])
def test_engines_are_counted_as_they_come_and_go_and_nothing_is_asked(
    tmp_path: Path, only_new: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(Session, "request", lambda self, make: asked.append(make))
    file = tmp_path / "ipcontroller-mec.furl"
    with in_process(1) as cluster:
        save(file, cluster.furls["mec"])
        watched = MonitoredController({"mec": str(file)}, Path.exists, only_new=only_new)
        before = 1 if only_new else 0
        hear(watched, EngineCount(1) if not only_new else ControllerReady({"mec": str(file)}))
        began = time.monotonic()
        new = cluster.start_engines(2)
        hear(watched, EngineCount(3 - before))
        assert time.monotonic() - began < 5
        cluster.engines.remove(new[0])
        new[0].close()
        hear(watched, EngineCount(2 - before))
        assert asked == []
    hear(watched, ControllerEnded(0) if only_new else EngineCount(0))
    watched.close()


def test_who_waits_for_engines_is_let_go_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "ipcontroller-mec.furl"
    with in_process(1) as cluster:
        save(file, cluster.furls["mec"])
        watched = MonitoredController({"mec": str(file)}, Path.exists, only_new=False)
        hear(watched, EngineCount(1))
        (thread,) = [one for one in threading.enumerate() if one.name == "ipcluster-watch"]
        watched.close()
        thread.join(10)
        assert not thread.is_alive()


def test_nothing_is_written_into_a_file_that_gets_the_number_of_the_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watching thread is about to write when the pipe is closed, and its number is given to another file."""
    watched = MonitoredController({"mec": str(tmp_path / "none")}, lambda path: False, only_new=False)
    write, about_to, go_on = os.write, threading.Event(), threading.Event()
    mine = threading.Thread(target=watched._tell, args=({"engines": 1},))

    def slow(descriptor: int, data: bytes) -> int:
        if threading.current_thread() is mine:
            about_to.set()
            go_on.wait(5)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", slow)
    mine.start()
    assert about_to.wait(5)
    ends = watched.fd, watched._write_end
    other = tmp_path / "other"
    opened: list[int] = []

    def close_and_reuse() -> None:
        watched.close()
        opened.extend(os.open(other, os.O_WRONLY | os.O_CREAT) for _ in ends)

    closer = threading.Thread(target=close_and_reuse)
    closer.start()
    closer.join(0.2)  # it may have to wait for who writes
    go_on.set()
    closer.join(5)
    mine.join(5)
    for descriptor in opened:
        os.close(descriptor)
    assert set(opened) == set(ends), "else this shows nothing"
    assert other.read_bytes() == b""


def test_where_our_engines_run_is_told_again_until_the_controller_hears_it(tmp_path: Path) -> None:
    told: list[tuple[str, ...]] = []
    heard = threading.Event()

    def tell(nodes: tuple[str, ...]) -> None:
        told.append(nodes)
        if len(told) == 1:
            raise FurlError("nobody listens there")
        heard.set()

    file = str(tmp_path / "none.furl")
    watched = MonitoredController({"mec": file}, Path.exists, only_new=True, tell_nodes=tell)
    watched.runs_on(RunsOn(("n1",)))
    assert heard.wait(30)
    watched.close()
    assert told == [("n1",), ("n1",)]
