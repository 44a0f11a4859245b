"""Engines of a thief: he has the furl of engines, and answers each call with a pickle that runs code."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.errors import CompositeError, FurlError, SecurityError
from ipmpi.furl import Furl
from ipmpi.protocol import messages as m, operations as o
from ipmpi.protocol.packed import pack, pack_failure, unpack
from ipmpi.tls import TlsClosed, TlsError
from tests.security.cluster import Controller, controller
from tests.security.test_given_furls import launch
from tests.security.wire import Member, register

pytestmark = [pytest.mark.timeout(120)]
WAIT = 60.0


class Bomb(Exception):
    """Makes a folder wherever it is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, (str(self.folder), 0o700, True)


class Thief:
    """An engine that answers all commands and tasks with ``pickled``; ``fails``: as the exception of a failure."""

    def __init__(self, furl: Furl, pickled: bytes, fails: bool = False) -> None:
        self._pickled, self._fails = pickled, fails
        self._engine, _ = register(furl)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(EOFError, OSError, TlsError, TlsClosed):
            self._engine.say(m.WantTasks(100))
            while True:
                message = self._engine.hear(m.Message)
                if isinstance(message, m.Dispatch):
                    outcome = o.Failed("Bomb", "bang", "") if self._fails else o.Value()
                    answer = m.Result(
                        message.id, message.ranks, not self._fails, o.encode(outcome), [len(self._pickled)]
                    )
                    self._engine.say(answer, body=[self._pickled])
                elif isinstance(message, m.GiveTasks):
                    self._tasks(message)

    def _tasks(self, given: m.GiveTasks) -> None:
        count = len(unpack(given.indices))
        one = pack_failure(o.Failed("Bomb", "bang", ""), [self._pickled]) if self._fails else self._pickled
        failed = given.indices if self._fails else b""
        body = one * count
        self._engine.say(
            m.TaskResults(given.group, 0, given.indices, failed, pack([len(one)] * count), 0.001, [len(body)]),
            body=[body],
        )
        self._engine.say(m.WantTasks(100))

    def leave(self) -> None:
        """End the link."""
        self._engine.sock.close()
        self._thread.join(10)


@contextmanager
def thief(running: Controller, kind: str, pickled: bytes, *, fails: bool = False) -> Iterator[None]:
    there = Thief(launch(running, 1) if kind == "launch" else running.furl("engine"), pickled, fails)
    try:
        yield
    finally:
        there.leave()


KINDS = pytest.mark.parametrize("kind", ["role", "launch"])


@KINDS
def test_a_safe_client_opens_nothing_of_what_a_thief_answers(tmp_path: Path, kind: str) -> None:
    mark = tmp_path / "exploded"
    with controller(tmp_path) as running, thief(running, kind, pickle.dumps(Bomb(mark))):
        with MultiEngineClient(str(running.furl_file("mec")), unpickle="safe") as mec:
            mec.wait_for_engines(1, WAIT)
            for call in (lambda: mec.pull("a"), lambda: mec.apply(abs, -1), lambda: mec.map(abs, [-1])):
                with pytest.raises(SecurityError, match=r"engine 0 sent .*makedirs.*opens plain data only"):
                    call()
            assert mec.get_ids() == [0], "the client goes on"
        with TaskClient(str(running.furl_file("tc")), unpickle="safe", cache_folder=tmp_path / "cache") as tc:
            for run in (
                lambda: tc.submit(abs, -1).result(WAIT), lambda: tc.map(abs, [-1, -2]),
                lambda: tc.submit(abs, -1, cache=True).result(WAIT), lambda: tc.map(abs, [-1, -2], cache=True),
            ):  # fmt: skip
                with pytest.raises(SecurityError, match="opens plain data only"):
                    run()
    assert not mark.exists()


@KINDS
def test_nor_of_an_exception(tmp_path: Path, kind: str) -> None:
    mark = tmp_path / "exploded"
    with controller(tmp_path) as running, thief(running, kind, pickle.dumps(Bomb(mark)), fails=True):
        with MultiEngineClient(str(running.furl_file("mec")), unpickle="safe") as mec:
            mec.wait_for_engines(1, WAIT)
            with pytest.raises(CompositeError) as caught:
                mec.pull("a")
            assert "bang" in str(caught.value.elist[0][1])
        with TaskClient(str(running.furl_file("tc")), unpickle="safe") as tc:
            with pytest.raises(Exception, match="bang"):
                tc.submit(abs, -1).result(WAIT)
            with pytest.raises(Exception, match="bang"):
                tc.map(abs, [-1, -2])
    assert not mark.exists()


def test_the_bomb_explodes_at_a_client_that_opens_everything(tmp_path: Path) -> None:
    """So the tests above can fail."""
    mark = tmp_path / "exploded"
    with (
        controller(tmp_path) as running,
        thief(running, "role", pickle.dumps(Bomb(mark))),
        MultiEngineClient(str(running.furl_file("mec"))) as mec,
    ):
        mec.wait_for_engines(1, WAIT)
        mec.pull("a")
    assert mark.exists()


def test_the_furl_of_a_launch_opens_no_operation_of_a_client(tmp_path: Path) -> None:
    with controller(tmp_path) as running:
        address = launch(running, 1)
        with Member(address) as member:
            member.say(m.GiveFurl(1, "tc", seconds=60.0))
            assert member.is_ended()
        with pytest.raises(FurlError, match="engine"):
            MultiEngineClient(str(address))
