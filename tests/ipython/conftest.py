"""IPython in this process, and a client of engines that are here as well."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("IPython")

from ipmpi.client import MultiEngineClient
from ipmpi.client.session.commandoutput import CommandOutput
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.partial import CommandFuture, SoFar
from ipmpi.client.session.session import Submission
from ipmpi.ipython import ParallelMagics
from tests.client.conftest import FakeSession
from tests.ipython_here import ipython


class LiveSession(FakeSession):
    """Engines that answer when ``finish`` is called, and print what a test says."""

    def __init__(self, engines: int = 4) -> None:
        super().__init__(engines)
        self.output = CommandOutput()
        self.so_far = SoFar([])
        self.future = CommandFuture([])
        self.submission: Submission | None = None

    def command(self, submission: Submission) -> Future[list[EngineReply]]:
        self.sent.append(submission)
        targets = sorted(self.engines) if submission.targets is None else submission.targets
        self.output, self.so_far, self.submission = CommandOutput(), SoFar(targets), submission
        self.future = CommandFuture([self.so_far], [self.output], [len(self.sent)])
        self.began()
        return self.future

    def began(self) -> None:
        """A test replaces this: a command has been sent."""

    def finish(self) -> None:
        """All engines run the last command, and answer."""
        assert self.submission is not None
        submission = self.submission
        replies = [self._reply(engine, submission) for engine in self.so_far.order or ()]
        self.so_far.add(replies, self.so_far.order)
        self.future.set_result(replies)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with ipython(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def magics(shell: Any) -> ParallelMagics:
    found: ParallelMagics = shell.magics_manager.registry["ParallelMagics"]
    return found


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def mec(shell: Any, session: FakeSession) -> MultiEngineClient:
    """A client with four engines, to which the magics are bound."""
    client = MultiEngineClient(session=session)  # type: ignore[arg-type]
    client.activate()
    return client


@pytest.fixture
def live() -> LiveSession:
    return LiveSession()


@pytest.fixture
def live_mec(shell: Any, live: LiveSession) -> MultiEngineClient:
    """As ``mec``, with engines that answer when a test wants."""
    client = MultiEngineClient(session=live)  # type: ignore[arg-type]
    client.activate()
    return client
