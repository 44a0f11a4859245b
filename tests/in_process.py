"""A cluster in one process: a controller, engines and clients in threads, joined by real TLS over loopback, or by
Unix sockets.

It starts in milliseconds, and a test can reach into every part of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.client.session.session import Session
from ipmpi.controller.service import ControllerService
from ipmpi.errors import KernelError
from ipmpi.furl import SECRET_BYTES, Furl
from ipmpi.protocol import rankmessages as rm
from ipmpi.protocol.permissions import RECEIVES
from ipmpi.tls import Identity
from ipmpi.transport.dial.dialled import Callbacks, DialledSession
from ipmpi.transport.dial.listen import Acceptor, Listener
from ipmpi.transport.dial.locallisten import LocalListener
from ipmpi.transport.loop import Loop
from tests.node import Node

ROLES = ("engine", "mec", "tc", "monitor")
PATIENCE = 10.0


class Gate:
    """Code on engines of this process waits here, for as long as a test wants."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._lock = threading.Lock()
        self.arrived = 0
        """How much code has come here since it was closed."""

    def close(self) -> None:
        self.arrived = 0
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def wait(self) -> None:
        with self._lock:
            self.arrived += 1
        self._open.wait(PATIENCE)


FIRST, SECOND = Gate(), Gate()


def first(*_: object) -> None:
    """A task that lasts until the first gate is open."""
    FIRST.wait()


def second(*_: object) -> None:
    """A task that lasts until the second gate is open."""
    SECOND.wait()


def wait_until(true: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """What ``true`` gives as soon as it gives anything."""
    end = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.002)
    return found


class Engine:
    """One engine without MPI, and the agent of its node. The rank is a thread, which no signal reaches."""

    def __init__(
        self,
        furl: Furl,
        log: Callable[[str], object] = lambda line: None,
        on_loop: Callable[[Loop, str], object] = lambda loop, owner: None,
    ) -> None:
        self.loop = Loop()
        on_loop(self.loop, "engine")
        self.stopped: list[str] = []
        self.node = Node(
            self.loop, [0], 0, log, self._stopping, lambda: self.session.open(),
            host="testhost", mpi="no MPI", wanted=lambda number: -1,
        )  # fmt: skip
        self.agent, self.rank = self.node.agent, self.node.ranks[0]
        self.loop.on_error = self.agent.fail
        callbacks = Callbacks(self.agent.from_above, self._started, lambda reason: None, self._ended)
        self.session = DialledSession(self.loop, furl, RECEIVES["engine"], callbacks)
        self.thread = threading.Thread(target=self._run, name="engine-agent", daemon=True)
        self.node.start()
        self.thread.start()

    def _run(self) -> None:
        self.loop.run()
        for local in self.node.local.values():
            local.close()
        self.loop.close()

    def _started(self) -> None:
        self.agent.forget_controller()
        self.agent.above = self.session
        self.agent.register()

    def _ended(self, error: KernelError) -> None:
        self.agent.stop(str(error))

    def _stopping(self, reason: str, orphaned: bool) -> None:
        del orphaned
        self.stopped.append(reason)
        self.session.close(reason, self.agent.has_failed)
        for local in self.node.local.values():
            local.stop(rm.Stop(reason))
        self.loop.stop()

    @property
    def is_alive(self) -> bool:
        return self.thread.is_alive() and self.node.is_alive

    def close(self) -> None:
        """End it, and wait for that."""
        self.loop.call_threadsafe(lambda: self.agent.stop("the test is over"))
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.node.close(PATIENCE)


class InProcess:
    """A controller, and what connects to it.

    Args:
        on_loop: told of the loops of the 'controller' and of each 'engine', before they are used.
        local: whether the controller listens on a Unix socket, too.
    """

    def __init__(
        self, on_loop: Callable[[Loop, str], object] = lambda loop, owner: None, local: bool = False
    ) -> None:
        self._on_loop = on_loop
        self.loop = Loop()
        on_loop(self.loop, "controller")
        self.lines: list[str] = []
        self.counts: list[int] = []
        identity = Identity.create(time.time())
        secrets = {role: os.urandom(SECRET_BYTES) for role in ROLES}
        self.service = ControllerService(self.loop, self.lines.append, on_engines=self.counts.append)
        self.listener = Listener(
            self.loop, ("127.0.0.1", 0), identity, secrets, self.service.sessions.admit, self.lines.append
        )
        self.listener.on_lane = self.service.lanes.came
        self.listeners: list[Acceptor] = [self.listener]
        if local:
            port, admit = self.listener.port, self.service.sessions.admit
            beside = LocalListener(self.loop, identity.fingerprint, port, secrets, admit, self.lines.append)
            self.listeners.append(beside)
        where = (("127.0.0.1", self.listener.port),)
        self.furls = {role: Furl(identity.fingerprint, where, role, secrets[role]) for role in ROLES}
        self.engines: list[Engine] = []
        self.sessions: list[Session] = []
        self.thread = threading.Thread(target=self.loop.run, name="controller", daemon=True)
        self.thread.start()

    @property
    def is_alive(self) -> bool:
        return self.thread.is_alive()

    def registered(self) -> int:
        """How many engines are registered."""
        return len(self.service.router.registry.engines)

    def start_engines(self, number: int) -> list[Engine]:
        """Start engines, and wait until they are there."""
        wanted = self.registered() + number
        started = [self.new_engine() for _ in range(number)]
        self.engines += started
        wait_until(lambda: self.registered() == wanted, f"{wanted} engines")
        return started

    def new_engine(self) -> Engine:
        """An engine that is on its way."""
        return Engine(self.furls["engine"], self.lines.append, self._on_loop)

    def session(self, role: str) -> Session:
        """An open session."""
        session = Session(self.furls[role])
        session.open()
        self.sessions.append(session)
        return session

    def mec(self) -> MultiEngineClient:
        return MultiEngineClient(session=self.session("mec"))

    def tc(self) -> TaskClient:
        return TaskClient(session=self.session("tc"))

    def do(self, call: Callable[[], Any]) -> Any:
        """What a call gives that is made in the controller's thread."""
        answers: list[Any] = []
        done = threading.Event()
        self.loop.call_threadsafe(lambda: (answers.append(call()), done.set()))
        assert done.wait(PATIENCE)
        return answers[0]

    def close(self) -> None:
        """End all."""
        for session in self.sessions:
            session.close()
        for engine in self.engines:
            engine.close()
        self.loop.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        for listener in self.listeners:
            listener.close()
        self.service.lanes.close()
        self.service.sessions.dismiss("the test is over")
        self.loop.close()


@contextmanager
def in_process(engines: int = 0, local: bool = False) -> Iterator[InProcess]:
    """A cluster for the length of a with statement."""
    cluster = InProcess(local=local)
    try:
        cluster.start_engines(engines)
        yield cluster
    finally:
        cluster.close()
