"""When the process of a controller collects garbage."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from ipmpi.cli.collector import SESSIONS, Collector

MAIN = """
import gc
from ipmpi.cli import ipcontroller

class Stands:
    def __init__(self, options):
        self.loop, self.service, self.sessions = None, self, self
    def start(self):
        print(gc.get_threshold()[0] > 1000, gc.get_freeze_count() > 10_000)
    def run(self):
        print(self.on_gone.__qualname__)

ipcontroller.Controller = Stands
ipcontroller.main(["-l", "LOG"])
"""


class Later:
    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def call_later(self, delay: float, call: Callable[[], object]) -> object:
        self.calls.append(call)
        return delay


class Own:
    """Refers to itself: only the collector finds that nobody else does."""

    alive = 0

    def __init__(self) -> None:
        self.own = self
        Own.alive += 1

    def __del__(self) -> None:
        Own.alive -= 1


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.collect()
    gc.freeze()  # as tests/conftest.py has left it


def test_what_is_left_of_sessions_goes_when_many_have_ended() -> None:
    loop = Later()
    collector = Collector(loop)
    Own()
    gc.collect(1)
    Own()
    old, young = Own(), Own()
    del old, young
    for _ in range(SESSIONS - 1):
        collector.session_gone()
    assert not loop.calls
    left = Own.alive
    assert left > 0
    for _ in range(SESSIONS):
        collector.session_gone()
    (collect,) = loop.calls
    assert Own.alive == left, "not in the turn in which a session ends"
    collect()
    assert Own.alive == 0
    for _ in range(SESSIONS):
        collector.session_gone()
    assert len(loop.calls) == 2


def test_the_controller_begins_with_it_when_its_modules_are_loaded(tmp_path: object) -> None:
    program = MAIN.replace("LOG", f"{tmp_path}/log")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split("\n")[:2] == ["True True", "Collector.session_gone"], done.stderr
