"""Bulk lanes: who may have one, what a stranger gets out of it, and bodies whose lane is cut at any moment."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ipmpi import limits
from ipmpi.client import MultiEngineClient
from ipmpi.errors import ConnectionError
from ipmpi.protocol import messages as m
from ipmpi.protocol.lanes import PREAMBLE
from ipmpi.tls import Identity, TlsClosed, TlsError, TlsSession
from tests.security.cluster import ROOT, Controller, controller, engines, memory_kib, wait_until
from tests.security.relay import Relay
from tests.security.test_link_cut import through
from tests.security.wire import Member, register

pytestmark = [pytest.mark.timeout(180)]

SOON_AGAIN = """
from ipmpi import limits
limits.LANE_AGAIN = limits.LANE_AGAIN_LONGEST = 0.05
"""
SHORT = """
from ipmpi import limits
limits.LANE_MADE = 0.5
"""
HAS_LANE = "have a bulk lane"
SIZE = 6_000_000


@contextmanager
def laned(
    home: Path, budget: Callable[[], tuple[int, bool]] = lambda: (-1, False), settings: str = SOON_AGAIN
) -> Iterator[tuple[MultiEngineClient, Relay, Controller]]:
    """A controller, and one engine and a client that are on other machines, as far as they can see."""
    home.mkdir(exist_ok=True)
    (home / "sitecustomize.py").write_text(settings)
    with (
        controller(home, extra={"PYTHONPATH": f"{home}:{ROOT}"}) as running,
        Relay(running.address("mec"), budget) as relay,
        distant_engine(running),
        MultiEngineClient(str(through(relay, running, "mec"))) as mec,
    ):
        yield mec, relay, running


@contextmanager
def distant_engine(running: Controller) -> Iterator[Relay]:
    """An engine that comes by TCP; what it dials."""
    with (
        Relay(running.address("engine")) as relay,
        engines(running.home, 1, ["--furl-file", str(through(relay, running, "engine"))]),
    ):
        running.wait_engines(1)
        yield relay


def array(seed: int, size: int = SIZE) -> np.ndarray:
    """An array that is no other's."""
    return np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)


def there_and_back(mec: MultiEngineClient, relay: Relay, least: int) -> None:
    """Push and pull so many arrays at least, and until the relay has cut four times."""
    rounds = 0
    while rounds < least or relay.cuts < 4:
        data = array(rounds)
        mec.push({"x": data})
        assert np.array_equal(mec.pull("x")[0], data)
        rounds += 1


def test_large_bodies_of_both_directions_go_by_one_lane(tmp_path: Path) -> None:
    with laned(tmp_path) as (mec, relay, running):
        mec.push({"x": array(1)})
        wait_until(lambda: HAS_LANE in running.log(), "a lane")
        before = len(relay.recorded)
        for seed in range(4):
            mec.push({"x": array(seed)})
            assert np.array_equal(mec.pull("x")[0], array(seed))
        assert len(relay.recorded) - before > 4 * SIZE
        assert relay.connections == 2
        assert running.log().count(HAS_LANE) == 1


def test_credit_waits_for_nothing_but_what_a_lane_brings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An acknowledgement that is due some time later would bring it along."""
    never = "from ipmpi import limits\nlimits.ACK_DELAY = 3600.0\n"
    monkeypatch.setattr(limits, "ACK_DELAY", 3600.0)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # of the engine, too
    with laned(tmp_path, settings=never) as (mec, _, running):
        mec.push({"x": array(1)})
        wait_until(lambda: HAS_LANE in running.log(), "a lane")
        large = array(2, 16 * limits.STREAM_WINDOW)
        mec.push({"x": large}, block=False).get_result(timeout=60)
        assert np.array_equal(mec.pull("x", block=False).get_result(timeout=60)[0], large)


@pytest.mark.parametrize("local", ["client", "engine"])
def test_an_end_on_the_machine_of_the_controller_needs_no_lane(tmp_path: Path, local: str) -> None:
    with controller(tmp_path) as running, Relay(running.address("mec")) as relay, contextlib.ExitStack() as stack:
        if local == "client":
            stack.enter_context(distant_engine(running))
            path = running.furl_file("mec")
        else:
            stack.enter_context(engines(tmp_path, 1))
            running.wait_engines(1)
            path = through(relay, running, "mec")
        with MultiEngineClient(str(path)) as mec:
            for seed in range(2):
                mec.push({"x": array(seed)})
                assert np.array_equal(mec.pull("x")[0], array(seed))
        assert "bulk lane" not in running.log()


def test_small_bodies_need_no_lane(tmp_path: Path) -> None:
    with laned(tmp_path) as (mec, relay, _):
        for seed in range(4):
            mec.push({"x": array(seed, limits.LANE_BODY // 2)})
            assert np.array_equal(mec.pull("x")[0], array(seed, limits.LANE_BODY // 2))
        assert relay.connections == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_lane_that_is_cut_at_any_moment_loses_nothing(tmp_path: Path, seed: int) -> None:
    """What was on its way goes by the session, and the next body by a new lane."""
    source = random.Random(seed)
    first = iter([(-1, False)])

    def budget() -> tuple[int, bool]:
        return next(first, (source.randrange(1, 8_000_000), source.random() < 0.5))

    with laned(tmp_path, budget) as (mec, relay, running):
        there_and_back(mec, relay, 10)
        assert "is gone" not in running.log()


@pytest.mark.parametrize("seed", range(2))
def test_lane_and_link_that_are_both_cut_lose_nothing(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    with laned(tmp_path, lambda: (source.randrange(300_000, 9_000_000), source.random() < 0.5)) as (mec, relay, _):
        there_and_back(mec, relay, 8)


def test_calls_end_when_the_controller_of_a_lane_is_killed(tmp_path: Path) -> None:
    with laned(tmp_path) as (mec, _, running):
        mec.push({"x": array(1)})
        wait_until(lambda: HAS_LANE in running.log(), "a lane")
        pending = mec.push({"y": np.zeros(200_000_000, np.uint8)}, block=False)
        running.stop(signal.SIGKILL)
        with pytest.raises(ConnectionError):
            pending.get_result()


def test_the_controller_neither_keeps_a_body_nor_leaves_others_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with laned(tmp_path) as (_, _relay, running):
        other = MultiEngineClient(str(running.furl_file("mec")))
        monkeypatch.setattr("ipmpi.transport.dial.dial.is_possible", lambda: False)
        with MultiEngineClient(str(running.furl_file("mec"))) as mec:
            mec.push({"x": array(1)})
            wait_until(lambda: HAS_LANE in running.log(), "a lane")
            before, waits, sent = memory_kib(running.pid), [], threading.Event()

            def ask() -> None:
                while not sent.is_set():
                    start = time.perf_counter()
                    other.queue_status()
                    waits.append(time.perf_counter() - start)
                    sent.wait(0.02)

            asking = threading.Thread(target=ask)
            asking.start()
            try:
                mec.push({"x": np.ones(1_000_000_000, np.uint8)})
            finally:
                sent.set()
                asking.join()
            assert memory_kib(running.pid) - before < 50 * 1024
            assert statistics.median(waits) <= 0.02
        other.close()


# --- tickets -------------------------------------------------------------------------------------------------


@contextmanager
def introduced(running: Controller) -> Iterator[tuple[Member, Member, m.JoinLane, m.JoinLane]]:
    """A client and an engine set made by hand, and what the controller tells them about their lane."""
    engine, _ = register(running.furl("engine"))
    with engine, Member(running.furl("mec")) as client:
        client.connection.send_streamed(m.Command(1, None, "push", "push", b"x", [SIZE]), SIZE)
        client.say()
        offer = engine.hear(m.OfferLane)
        engine.say(m.LaneOffered(offer.lane, bytes(32), bytes(32)))
        yield client, engine, client.hear(m.JoinLane), engine.hear(m.JoinLane)


def come(running: Controller, ticket: bytes) -> socket.socket:
    """A connection that begins with a ticket."""
    sock = socket.create_connection(running.address("mec"), 10)
    sock.sendall(PREAMBLE + ticket)
    return sock


def is_refused(sock: socket.socket) -> bool:
    """Whether the controller closes it."""
    with sock:
        try:
            return sock.recv(1) == b""
        except ConnectionResetError:
            return True


def test_a_ticket_is_good_once(tmp_path: Path) -> None:
    with controller(tmp_path) as running, introduced(running) as (_, _, of_client, of_set):
        assert of_client.ticket != of_set.ticket
        first = come(running, of_client.ticket)
        assert is_refused(come(running, of_client.ticket))
        assert "its ticket for a bulk lane is not good (any more)" in running.log()
        with first, come(running, of_set.ticket) as second:
            first.sendall(b"what only the other end reads")
            assert second.recv(100) == b"what only the other end reads"
            second.sendall(b"yes")
            assert first.recv(100) == b"yes"


@pytest.mark.parametrize("ticket", [bytes(32), b"x" * 32])
def test_an_invented_ticket_opens_nothing(tmp_path: Path, ticket: bytes) -> None:
    with controller(tmp_path) as running, introduced(running):
        assert is_refused(come(running, ticket))


def test_a_ticket_ends_after_a_moment(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SHORT)
    with (
        controller(tmp_path, extra={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as running,
        introduced(running) as (client, engine, of_client, of_set),
    ):
        waits = come(running, of_set.ticket)
        assert client.hear(m.LaneOver).lane == engine.hear(m.LaneOver).lane == of_client.lane
        assert is_refused(waits)
        assert is_refused(come(running, of_client.ticket))


def test_a_connection_that_begins_like_a_lane_and_says_nothing_is_closed(tmp_path: Path) -> None:
    with controller(tmp_path) as running:
        sock = socket.create_connection(running.address("mec"), 30)
        sock.sendall(PREAMBLE + b"half a ticket")
        assert is_refused(sock)


def test_nobody_speaks_about_the_lane_of_others(tmp_path: Path) -> None:
    with (
        controller(tmp_path) as running,
        introduced(running) as (client, engine, of_client, _),
        Member(running.furl("mec")) as other,
    ):
        other.say(m.LaneUp(of_client.lane), m.LaneCut(of_client.lane, 0), m.LaneOver(of_client.lane))
        other.say(m.LaneBytes(of_client.lane, [3]), body=[b"abc"])
        other.ping()
        for end in (client, engine):
            end.ping()
            assert not [said for said in end._arrived if isinstance(said, m.LaneCut | m.LaneOver | m.LaneBytes)]


def test_bytes_of_a_stream_by_a_lane_that_is_not_for_it_end_the_session(tmp_path: Path) -> None:
    from ipmpi.protocol.streams import LanePart

    with controller(tmp_path) as running, introduced(running) as (client, _, of_client, _):
        client.send(LanePart(of_client.lane, 1, 100).frame(1))
        assert client.is_ended()


def test_the_client_says_nothing_to_an_end_with_another_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its body goes by the session."""
    expected, other = Identity.create(time.time()), Identity.create(time.time())
    monkeypatch.setattr("ipmpi.transport.dial.dial.is_possible", lambda: False)
    with controller(tmp_path) as running:
        engine, _ = register(running.furl("engine"))
        with engine, MultiEngineClient(str(running.furl_file("mec"))) as mec:
            pending = mec.push({"x": array(1)}, block=False)
            offer = engine.hear(m.OfferLane)
            engine.say(m.LaneOffered(offer.lane, expected.fingerprint, bytes(32)))
            with come(running, engine.hear(m.JoinLane).ticket) as sock:
                assert said_to(sock, TlsSession.listener(other)) == b""
            assert engine.hear(m.LaneOver).lane == offer.lane
            del pending


def said_to(sock: socket.socket, tls: TlsSession) -> bytes:
    """What the other end says after its handshake, until it closes."""
    said = b""
    sock.settimeout(20)
    try:
        while True:
            tls.handshake()
            while data := tls.ciphertext_to_send():
                sock.sendall(data)
            data = sock.recv(65536)
            if not data:
                return said
            tls.receive_ciphertext(data)
            if tls.handshake():
                said += tls.read()
    except (TlsClosed, TlsError, OSError):
        return said
