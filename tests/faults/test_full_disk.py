"""A real controller whose disk is full for a while, over quota, or fails; and which is killed after that."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipmpi.client import TaskClient
from ipmpi.errors import JournalDamaged, JournalFull
from tests.ports import fixed_port
from tests.security.cluster import LOOPBACK, Controller, engines, wait_until


class OnDisk:
    """A controller that writes its journal to a disk which fails while there is a file ``switch``."""

    def __init__(self, home: Path, library: Path, error: int) -> None:
        self.home = home
        self.switch = home / "fails"
        self._options = [
            *LOOPBACK, "--client-port", str(fixed_port()), "--engine-port", str(fixed_port()),
            "--journal", str(home / "journal"),
        ]  # fmt: skip
        self._extra = {
            "LD_PRELOAD": str(library), "IPMPI_DISK_FILES": str(home / "journal"),
            "IPMPI_DISK_ERRNO": str(error), "IPMPI_DISK_FAILS": str(self.switch),
        }  # fmt: skip
        self.now = Controller(home, self._options, extra=self._extra)

    def kill(self) -> None:
        self.now.stop(signal.SIGKILL)
        self.now = Controller(self.home, self._options, extra=self._extra)


@pytest.fixture
def started(tmp_path: Path, library: Path) -> Iterator[Callable[[int], OnDisk]]:
    found: list[OnDisk] = []

    def start(error: int) -> OnDisk:
        found.append(OnDisk(tmp_path, library, error))
        return found[-1]

    yield start
    for each in found:
        each.now.stop()


def wait_for(path: str) -> str:
    """A task that ends when there is a file."""
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.01)
    return path


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT], ids=["no room", "over quota"])
def test_tasks_are_refused_and_accepted_again_when_there_is_room(
    started: Callable[[int], OnDisk], tmp_path: Path, error: int
) -> None:
    disk = started(error)
    gate = tmp_path / "gate"
    with engines(tmp_path, 1), TaskClient(str(disk.now.furl_file("tc"))) as tc:
        disk.now.wait_engines(1)
        running = tc.submit(wait_for, str(gate))
        queued = [tc.submit(abs, -number) for number in range(20)]
        wait_until(
            lambda: tc.queue_status()["pending"] + tc.queue_status()["scheduled"] == 21, "they are accepted"
        )
        disk.switch.touch()
        with pytest.raises(JournalFull, match="there is no room for the journal"):
            tc.submit(abs, -1).result(60)
        gate.touch()
        assert running.result(60) == str(gate)
        assert [task.result(60) for task in queued] == list(range(20))
        disk.switch.unlink()
        assert tc.submit(abs, -2).result(60) == 2
        waits = tc.submit(wait_for, str(tmp_path / "second gate"))
        wait_until(lambda: tc.queue_status()["pending"] + tc.queue_status()["scheduled"] == 1, "it is accepted")
        disk.kill()
        (tmp_path / "second gate").touch()
        assert waits.result(60) == str(tmp_path / "second gate")
    assert "tasks are accepted again: the journal can be written" in disk.now.log()


def test_a_disk_that_has_failed_is_not_used_until_the_next_start(
    started: Callable[[int], OnDisk], tmp_path: Path
) -> None:
    disk = started(errno.EIO)
    with engines(tmp_path, 1), TaskClient(str(disk.now.furl_file("tc"))) as tc:
        disk.now.wait_engines(1)
        gate = tmp_path / "gate"
        running = tc.submit(wait_for, str(gate))
        wait_until(lambda: tc.queue_status()["pending"] + tc.queue_status()["scheduled"] == 1, "it is accepted")
        disk.switch.touch()
        with pytest.raises(JournalDamaged, match=r"the disk with the journal .* has failed"):
            tc.submit(abs, -1).result(60)
        disk.switch.unlink()
        with pytest.raises(JournalDamaged, match="start the controller again when the disk works"):
            tc.submit(abs, -1).result(60)
        disk.kill()
        gate.touch()
        assert running.result(60) == str(gate), "what was accepted before is there"
        assert tc.submit(abs, -3).result(60) == 3
