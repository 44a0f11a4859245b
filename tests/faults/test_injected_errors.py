"""An exception in every callback of a controller, of an engine's agent thread, and of a client's thread: the
controller lives, the work of others goes on, and nobody hangs.

In turn at every place that the work below reaches, at a random call of it, before or after it does what it is for.
IPMPI_INJECTED_ERRORS=1000 has more of them than a usual run; IPMPI_SEED gives another order.
"""

from __future__ import annotations

import concurrent.futures
import faulthandler
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.client import MultiEngineClient, StringTask, TaskClient
from ipmpi.client.session.session import Session
from ipmpi.engine.agent import controllerfaults
from ipmpi.errors import KernelError
from ipmpi.transport import loop as loop_module
from tests.faults.injector import CALLS, Injector, Site
from tests.in_process import InProcess, wait_until

NUMBER = int(os.environ.get("IPMPI_INJECTED_ERRORS", "40"))
SEED = int(os.environ.get("IPMPI_SEED", "1"))
PATIENCE = 15.0
"""Seconds after which a call hangs: whatever went wrong is told at once, or when a lease has ended."""
LARGE = bytes(300_000)


class Hangs(AssertionError):
    """A call was not over in time."""


class Client:
    """Somebody who works with all kinds of calls, and notes what became of them."""

    def __init__(self, cluster: InProcess) -> None:
        self._cluster = cluster
        self._sessions: dict[str, Session] = {}

    def session(self, role: str) -> Session:
        """An open session; a new one, if there is none or the last one has failed."""
        session = self._sessions.get(role)
        if session is None or session.failure is not None:
            session = self._sessions[role] = Session(self._cluster.furls[role])
            session.open()
        return session

    @property
    def mec(self) -> MultiEngineClient:
        return MultiEngineClient(session=self.session("mec"))

    @property
    def tc(self) -> TaskClient:
        return TaskClient(session=self.session("tc"))

    def has_failed(self) -> bool:
        return any(session.failure is not None for session in self._sessions.values())

    def break_links(self) -> None:
        """The network drops them; the sessions go on."""
        for session in self._sessions.values():
            link = session._link.link
            if link is not None:
                session.post(lambda link=link: link.close("the test cuts it"))  # type: ignore[misc]

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()


def work(client: Client) -> list[tuple[Callable[[], Any], Any]]:
    """Calls, and what they give if nothing goes wrong."""
    return [
        (lambda: len(client.mec.get_ids()) > 0, True),
        (lambda: set(client.mec.push({"a": LARGE})), {None}),
        (lambda: set(client.mec.pull("a")), {LARGE}),
        (lambda: len(client.mec.execute("b = 1", block=False).get_result()) > 0, True),
        (lambda: client.tc.submit(abs, -7).result(), 7),
        (lambda: client.tc.submit(len, LARGE).result(), len(LARGE)),
        (lambda: client.tc.submit(bytes, 300_000).result(), LARGE),
        (lambda: client.tc.map(abs, range(-100, 0)), list(range(100, 0, -1))),
        (lambda: client.break_links() or len(client.mec.queue_status()) > 0, True),
        (lambda: sum(client.tc.imap(abs, [-1, -2, -3], ordered=False, timeout=60)), 6),
        (lambda: client.tc.run(StringTask("c = 5", pull="c"), block=True)["c"], 5),
        (lambda: client.tc.submit(abs, 1).cancel() in (True, False), True),
        (lambda: isinstance(client.mec.interrupt(), list), True),
        (lambda: client.tc.queue_status()["failed"] >= 0, True),
    ]


def do(client: Client, outcomes: Counter[str]) -> None:
    """All of it: each call succeeds, or fails in a way that says what has happened."""
    for call, expected in work(client):
        try:
            assert call() == expected
            outcomes["right"] += 1
        except KernelError as error:
            outcomes[type(error).__name__] += 1


def _fulfil(future: concurrent.futures.Future[Any], call: Callable[[], Any]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)


class Stage:
    """A controller that lives through all of it, its engines, and somebody who stays connected."""

    def __init__(self, injector: Injector, patch: pytest.MonkeyPatch) -> None:
        self.injector = injector
        injector.install(patch)
        self.cluster = InProcess(lambda loop, owner: injector.owners.__setitem__(id(loop), owner))
        self.cluster.start_engines(2)
        self.other = Client(self.cluster)
        self.outcomes: Counter[str] = Counter()

    def in_time(self, call: Callable[[], Any]) -> Any:
        (outcome,) = self._run([call], PATIENCE)
        return outcome

    def _run(self, calls: list[Callable[[], Any]], patience: float) -> list[Any]:
        futures: list[concurrent.futures.Future[Any]] = []
        for call in calls:
            futures.append(concurrent.futures.Future())
            threading.Thread(target=_fulfil, args=(futures[-1], call), daemon=True).start()
        if concurrent.futures.wait(futures, patience).not_done:
            faulthandler.dump_traceback(sys.__stderr__)
            raise Hangs
        return [future.result() for future in futures]

    def round(self) -> bool:
        """Two clients work at the same time; whether one of them lost its session."""
        victim = Client(self.cluster)
        stop = threading.Event()
        keeper = threading.Thread(target=self._keep_engines, args=(stop,))
        keeper.start()
        try:
            clients = (victim, self.other)
            self._run([partial(do, client, self.outcomes) for client in clients], 2 * PATIENCE)
            failed = [victim.has_failed(), self.other.has_failed()]
            self.in_time(victim.close)
            return all(failed)
        finally:
            stop.set()
            keeper.join()

    def _keep_engines(self, stop: threading.Event) -> None:
        """Start a new engine for each that ends, as a batch system would."""
        while not stop.wait(0.005):
            self.replace_engines()

    def replace_engines(self) -> None:
        for number, engine in enumerate(self.cluster.engines):
            if not engine.is_alive:
                self.cluster.engines[number] = self.cluster.new_engine()

    def is_sound(self) -> None:
        """With no error any more, all is as it should be."""
        self.injector.disarm()
        assert self.cluster.is_alive, "the controller has died"

        def count() -> bool:
            self.replace_engines()
            return self.cluster.registered() == 2

        wait_until(count, "two engines", PATIENCE)
        for client in (Client(self.cluster), self.other):
            assert self.in_time(lambda client=client: client.mec.pull("id")) == self.in_time(client.mec.get_ids)  # type: ignore[misc]
            assert self.in_time(lambda client=client: client.tc.map(abs, [-1, -2])) == [1, 2]  # type: ignore[misc]
            if client is not self.other:
                self.in_time(client.close)

    def close(self) -> None:
        self.other.close()
        self.cluster.close()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    # What would happen in minutes happens in this test: signs of life, leases, further tries.
    monkeypatch.setattr(limits, "PING_INTERVAL", 0.1)
    for name in ("LEASE_AFTER_CLOSE", "LEASE_AFTER_SILENCE", "LEASE_WITH_WORK"):
        monkeypatch.setattr(limits, name, 0.5)
    monkeypatch.setattr(limits, "LEASE_LOOK", 0.05)
    monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT", 2.0)
    monkeypatch.setattr(loop_module, "_PAUSE", 0.02)
    monkeypatch.setattr(controllerfaults, "MOST", 1_000_000)
    running = Stage(Injector(), monkeypatch)
    yield running
    running.close()


def plan(seen: Counter[Site], number: int, chance: random.Random) -> list[tuple[Site, str, int]]:
    """So many errors: at each place in turn, until there are enough."""
    sites = sorted(seen)
    chance.shuffle(sites)
    found = []
    while len(found) < number:
        for site in sites:
            found.append((site, chance.choice(["before", "after"]), chance.randint(1, max(1, seen[site] // 2))))
    return found[:number]


@pytest.mark.timeout(int(60 + 2 * NUMBER))
def test_no_error_takes_the_controller_down_and_nobody_hangs(stage: Stage) -> None:
    stage.round()
    stage.is_sound()
    stage.injector.seen.clear()
    stage.round()  # this time with a client that was there before
    chance = random.Random(SEED)
    raised: Counter[str] = Counter()
    for site, when, number in plan(stage.injector.seen, NUMBER, chance):
        stage.injector.arm(site, when, number)
        try:
            both = stage.round()
            stage.is_sound()
        except BaseException as error:
            error.add_note(f"{when} call {number} of {site}, seed {SEED}; so far {raised}")
            raise
        if stage.injector.raised.is_set():
            raised[site.owner] += 1
            assert not both or site.owner == "client", f"one error ended two clients' sessions: {site}"
    print(f"\n{sum(raised.values())} errors raised, {dict(raised)}; calls: {dict(stage.outcomes)}")
    assert set(raised) == {"controller", "engine", "client"}
    assert sum(raised.values()) > NUMBER / 2


def test_places_of_all_kinds_are_covered(stage: Stage) -> None:
    """The work above reaches every way in which callbacks are handed over."""
    assert set(CALLS) >= {"register", "call_soon", "call_later", "call_at_turn_end", "call_threadsafe"}
    stage.round()
    kinds = {(site.owner, site.kind) for site in stage.injector.seen}
    for owner in ("controller", "engine", "client"):
        for kind in ("register", "call_later", "call_at_turn_end"):
            assert (owner, kind) in kinds
    assert {kind for owner, kind in kinds if owner == "controller"} >= {
        "ListenNegotiation",
        "Listener",
        "Sessions",
    }
    assert {kind for owner, kind in kinds if owner == "client"} >= {"call_threadsafe", "DialledSession", "Dial"}
    assert {kind for owner, kind in kinds if owner == "engine"} >= {"PacketLink", "DialledSession", "Dial"}
