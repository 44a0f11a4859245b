"""How often a controller of others is asked for its engines."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ipmpi.cli.watch import COUNT_FIRST, COUNT_LONGEST, COUNT_STARTING, Watched, next_pause


def pauses(complete: bool, times: int) -> list[float]:
    found = [COUNT_FIRST]
    for _ in range(times):
        found.append(next_pause(found[-1], changed=False, complete=complete))
    return found


def test_a_whole_cluster_is_hardly_asked_at_all() -> None:
    assert pauses(True, 10)[-1] == COUNT_LONGEST
    # In an hour, where it was asked 14,400 times.
    assert 3600 / COUNT_LONGEST <= 240


def test_engines_that_are_still_missing_are_looked_for_more_often_and_at_once_when_they_come() -> None:
    assert pauses(False, 10)[-1] == COUNT_STARTING
    assert next_pause(COUNT_LONGEST, changed=True, complete=False) == COUNT_FIRST


def test_nothing_is_written_into_a_file_that_gets_the_number_of_the_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watching thread is about to write when the pipe is closed, and its number is given to another file."""
    watched = Watched({"mec": str(tmp_path / "none")}, lambda path: False, 1, only_new=False)
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
