"""Links that break again and again, over both pipes: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import gc
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from ipmpi import limits
from ipmpi.client import MultiEngineClient
from ipmpi.tls import TlsSession
from ipmpi.transport.link import Link
from tests.in_process import InProcess, in_process, wait_until

PAUSE = 0.01


class Cutter:
    """Breaks the links of all sessions, each after a frame has come: so they get on, also on a busy machine."""

    def __init__(self, cluster: InProcess) -> None:
        self._cluster = cluster
        self._received: dict[int, int] = {}

    def cut(self) -> int:
        """Break links; in the controller's thread. Returns how many."""
        cut = 0
        for session in self._cluster.service.sessions.by_key.values():
            descriptor = None if session.link is None else session.link.pipe.fileno()
            received = session.connection.received
            if descriptor is not None and received > self._received.get(session.key, 0):
                self._received[session.key] = received
                # What a link that is cut had brought before may be heard after its other end has gone.
                with socket.socket(fileno=socket.dup(descriptor)) as sock, suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                    cut += 1
        return cut


@contextmanager
def cut_cluster(local: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[MultiEngineClient, list[int]]]:
    """A cluster whose links are cut at random moments; how many were, so far."""
    monkeypatch.setattr(limits, "RECONNECT_FIRST", 0.005)
    over = threading.Event()
    cuts: list[int] = []
    source = random.Random(1)
    with in_process(1, local) as cluster:
        mec, cutter = cluster.mec(), Cutter(cluster)

        def cut() -> None:
            while not over.wait(source.uniform(PAUSE, 4 * PAUSE)):
                cuts.append(cluster.do(cutter.cut))

        thread = threading.Thread(target=cut)
        thread.start()
        try:
            yield mec, cuts
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("local", [False, True], ids=["TLS", "local"])
def test_commands_arrive_once_and_in_order(local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with cut_cluster(local, monkeypatch) as (mec, cuts):
        mec.execute("seen = []", block=True)
        count = 0
        while sum(cuts) < 20:
            pending = [mec.execute(f"seen.append({i})", block=False) for i in range(count, count + 50)]
            count += 50
            for result in pending:
                result.get_result()
        assert mec.pull("seen") == [list(range(count))]


@pytest.mark.parametrize("local", [False, True], ids=["TLS", "local"])
def test_arrays_arrive_whole(local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(1).random(20_000_000 // 8)
    with cut_cluster(local, monkeypatch) as (mec, cuts):
        while sum(cuts) < 20:
            mec.push({"x": array})
            (back,) = mec.pull("x")
            assert np.array_equal(back, array)


@pytest.mark.parametrize("local", [False, True], ids=["TLS", "local"])
def test_a_link_that_broke_is_gone_without_the_garbage_collector(
    local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller looks at all objects seldom, and a session goes on over any number of links."""
    monkeypatch.setattr(limits, "RECONNECT_FIRST", 0.005)

    def links() -> int:
        return sum(isinstance(each, Link) for each in gc.get_objects())

    with in_process(1, local) as cluster:
        mec, cutter = cluster.mec(), Cutter(cluster)
        gc.collect()
        gc.disable()
        try:
            mec.execute("x = 1")
            before, cut = links(), 0
            for _ in range(10):
                cut += cluster.do(cutter.cut)
                mec.execute("x = 1")
            assert cut >= 10
            wait_until(lambda: links() <= before, "links that broke are gone")
        finally:
            gc.enable()


@pytest.mark.parametrize(
    "says", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(300)], ids=["http", "tls"]
)
def test_a_stranger_is_gone_without_the_garbage_collector(says: bytes) -> None:
    """As many may come as they like, and each waits for some seconds before it says what is wrong."""

    def strangers() -> int:
        return sum(isinstance(each, TlsSession) for each in gc.get_objects())

    with in_process() as cluster:
        gc.collect()
        gc.disable()
        try:
            before = strangers()
            for _ in range(10):
                with socket.create_connection(cluster.furls["tc"].hints[0]) as sock, suppress(OSError):
                    sock.sendall(says)
                    sock.settimeout(20)
                    while sock.recv(100):
                        pass
            wait_until(lambda: strangers() <= before, "strangers are gone")
        finally:
            gc.enable()
