from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi import errors
from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.client.display.blocks import Output
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.presence import Presence
from ipmpi.client.session.session import Submission
from ipmpi.engine.session.namespace import Namespace
from ipmpi.protocol import messages, operations

if TYPE_CHECKING:
    from fake_farm import FakeFarm
    from thread_farm import ThreadFarm

# Tests are imported by their paths (--import-mode=importlib), so what they share has to be found.
sys.path.insert(0, str(Path(__file__).parent))


class FakeSession:
    """A session whose engines are real namespaces in this process; while it is held, commands wait."""

    def __init__(self, engines: int = 4) -> None:
        self.engines: dict[int, Namespace | None] = {number: Namespace(number) for number in range(engines)}
        self.notices: list[str] = []
        self.presence = Presence()
        self.presence.update(range(engines), ())
        self.role = "mec"
        self.controller_id = "c0ffee"
        self.closed = False
        self.failure: errors.KernelError | None = None
        self.held = False
        self.fold = False
        self._bodies: list[list[Any]] = []
        self.sent: list[Submission] = []
        self.requests: list[Any] = []
        self.answers: dict[type, Any] = {messages.AskAgents: [[], []]}
        self._waiting: list[Callable[[], None]] = []
        self._runs = 0
        self._printed: dict[int, Output] = {}

    def command(self, submission: Submission) -> Future[list[EngineReply]]:
        self.sent.append(submission)
        future: Future[list[EngineReply]] = Future()
        self._waiting.append(lambda: self._settle(future, submission))
        if not self.held:
            self.release()
        return future

    def debuggers(self) -> list[Any]:
        """No debugger waits."""
        return []

    def release(self) -> None:
        """Let the engines do what waits."""
        self.held = False
        while self._waiting:
            self._waiting.pop(0)()

    def _settle(self, future: Future[list[EngineReply]], submission: Submission) -> None:
        targets = sorted(self.engines) if submission.targets is None else submission.targets
        if not targets:
            future.set_exception(errors.NoEnginesRegistered("There are no engines registered."))
            return
        for engine in targets:
            if engine not in self.engines:
                future.set_exception(errors.InvalidEngineID(f"Engine with id {engine} is not registered"))
                return
        future.set_result([self._reply(engine, submission) for engine in targets])

    def _reply(self, engine: int, submission: Submission) -> EngineReply:
        namespace = self.engines[engine]
        if namespace is None:
            undone = ("EngineLost", f"engine {engine} has died")
            return EngineReply(engine, False, operations.Nothing(), [], undone)
        sent = [bytearray(part) for part in submission.body]
        stdout, stderr = io.StringIO(), io.StringIO()
        self._runs += 1
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            answer = namespace.run(submission.method, operations.encode(submission.operation), sent, self._runs)
        printed = self._printed.get(answer.again, Output(stdout.getvalue(), stderr.getvalue()))
        self._printed[self._runs] = printed
        body = [bytes(part) for part in answer.body]
        if self.fold:
            body = self._first_equal(body)
        return EngineReply(engine, answer.ok, operations.decode_outcome(answer.outcome), body, None, printed)

    def _first_equal(self, body: list[Any]) -> list[Any]:
        """The same list for equal bodies, as folded answers come."""
        for earlier in self._bodies:
            if earlier == body:
                return earlier
        self._bodies.append(body)
        return body

    def request(self, message_factory: Callable[[int], Any]) -> Future[Any]:
        message = message_factory(len(self.requests) + 1)
        self.requests.append(message)
        future: Future[Any] = Future()
        if isinstance(message, messages.GetIds):
            future.set_result(sorted(self.engines))
        elif isinstance(message, messages.ClearQueue):
            future.set_result(sorted(self.engines) if message.targets is None else message.targets)
        elif isinstance(message, messages.RestoreAfterLoss):
            future.set_result(None)
        else:
            future.set_result(self.answers[type(message)])
        return future

    def check(self) -> None:
        pass

    def post(self, call: Callable[[], object]) -> None:
        """Nothing is done later."""

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def mec(session: FakeSession) -> MultiEngineClient:
    return MultiEngineClient(session=session)


@pytest.fixture
def farm() -> FakeFarm:
    from fake_farm import FakeFarm

    return FakeFarm()


@pytest.fixture
def tc(farm: FakeFarm) -> TaskClient:
    session: Any = farm
    return TaskClient(session=session)


@pytest.fixture
def threads() -> Iterator[ThreadFarm]:
    """A farm whose three engines are threads."""
    from thread_farm import ThreadFarm

    farm = ThreadFarm(engines=3)
    yield farm
    farm.close()


@pytest.fixture
def threaded(threads: ThreadFarm) -> TaskClient:
    session: Any = threads
    return TaskClient(session=session)
