"""S1, S2, S3, S31: strangers on the network, before they have proved anything."""

from __future__ import annotations

import os
import random
import resource
import socket
import struct
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from ipmpi import furl, limits
from ipmpi.client import MultiEngineClient
from ipmpi.furl import Furl
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection
from ipmpi.protocol.handshake import DiallerHandshake, Welcome
from ipmpi.tls import TlsSession
from tests.security.cluster import Controller, controller, engines, memory_kib, wait_until
from tests.security.wire import EVERY_MESSAGE, Member, TlsPeer

_RESET = struct.pack("ii", 1, 0)


def refusals(running: Controller) -> int:
    return running.log().count("refused a connection")


def let_in(running: Controller, engines: int = 0) -> float:
    """How long a legitimate client takes from nothing to its first answer, in seconds."""
    begin = time.perf_counter()
    with MultiEngineClient(str(running.furl_file("mec"))) as mec:
        assert len(mec.get_ids()) == engines
    return time.perf_counter() - begin


def knock(address: tuple[str, int], data: bytes = b"", source: str = "127.0.0.1", reset: bool = True) -> None:
    with socket.socket() as sock, suppress(OSError):
        sock.bind((source, 0))
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.connect(address)
        if data:
            sock.sendall(data)


@pytest.mark.parametrize(
    "count", [3_000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(300)], id="10000")]
)
def test_connecting_and_leaving_costs_no_descriptor_and_one_line(controller: Controller, count: int) -> None:
    let_in(controller)
    before, lines = controller.descriptors(), refusals(controller)
    address = controller.address("mec")
    for number in range(count):
        knock(address, reset=number % 2 == 0)
    assert let_in(controller) < 2
    wait_until(lambda: controller.descriptors() <= before, "all descriptors closed")
    assert refusals(controller) - lines <= 1


def test_every_source_has_a_line_of_its_own(tmp_path: Path) -> None:
    with controller(tmp_path) as own:
        for source in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
            knock(own.address("mec"), b"hello", source, reset=False)
        wait_until(lambda: refusals(own) == 2, "a line for each source")
        assert "refused a connection from 127.0.0.3" in own.log()


def client_hello() -> bytes:
    tls = TlsSession.dialler()
    tls.handshake()
    return tls.ciphertext_to_send()


def nonsense(count: int) -> list[bytes]:
    source = random.Random(5)
    found = [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"\0", b"ipmp\x10\x00",
             b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(300)]  # fmt: skip
    while len(found) < count:
        if source.random() < 0.5:
            found.append(source.randbytes(source.randrange(1, 600)))
            continue
        hello = bytearray(client_hello())
        for _ in range(source.randrange(1, 8)):
            hello[source.randrange(len(hello))] = source.randrange(256)
        found.append(bytes(hello[: source.randrange(1, len(hello) + 1)]))
    return found


def test_nonsense_leaves_the_controller_as_it_was(controller: Controller) -> None:
    let_in(controller)
    before, lines = controller.descriptors(), refusals(controller)
    for role in ("mec", "engine"):
        for data in nonsense(500):
            knock(controller.address(role), data, reset=False)
    assert let_in(controller) < 2
    wait_until(lambda: controller.descriptors() <= before, "all descriptors closed", 10)
    assert refusals(controller) - lines <= 2  # one for each port


def test_slow_strangers_keep_nobody_out(controller: Controller) -> None:
    let_in(controller)
    hello, before = client_hello(), memory_kib(controller.pid)
    socks = []
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        for _ in range(limits.HALF_OPEN + 200):
            sock = socket.create_connection(controller.address("mec"), 5)
            socks.append(sock)
            sock.sendall(hello[:1])
        times = []
        for turn in range(1, 6):
            for sock in socks:
                with suppress(OSError):
                    sock.sendall(hello[turn : turn + 1])
            times.append(let_in(controller))
        assert max(times) < 1
        assert controller.descriptors() < limits.HALF_OPEN + 40
        assert memory_kib(controller.pid) < before + 150 * 1024
    finally:
        for sock in socks:
            sock.close()


def test_strangers_that_leave_halfway_leave_no_memory_behind(controller: Controller) -> None:
    let_in(controller)
    hello, before = client_hello(), memory_kib(controller.pid)
    for _ in range(2000):
        knock(controller.address("mec"), hello, reset=False)
    let_in(controller)
    assert memory_kib(controller.pid) < before + 100 * 1024


def test_honest_engines_that_come_all_at_once_get_in(controller: Controller) -> None:
    """As those of a job array do, on nodes that are so busy that there is a while between TLS and Hello."""
    address = controller.furl("engine")
    with ExitStack() as stack:
        peers = [stack.enter_context(TlsPeer(address.hints[0])) for _ in range(300)]
        handshakes = [DiallerHandshake("engine", address.secret, peer.tls.exporter(), "a test") for peer in peers]
        time.sleep(0.5)  # the engines' way from TLS to Hello
        for peer, handshake in zip(peers, handshakes, strict=True):
            peer.send(handshake.hello())
        connections = [Connection(EVERY_MESSAGE) for _ in peers]
        for number, (peer, connection) in enumerate(zip(peers, connections, strict=True)):
            connection.send(m.Register([m.EngineInfo(0, number, "testhost", 1)], "no MPI", "3"))
            peer.send(b"".join(bytes(part) for part in connection.data_to_send()))
        ids = set()
        for peer, handshake, connection in zip(peers, handshakes, connections, strict=True):
            while (welcome := handshake.receive(peer.receive())) is None:
                pass
            assert isinstance(welcome, Welcome)
            data = handshake.leftover
            while not (heard := list(connection.receive_data(data))):
                data = peer.receive()
            registered = heard[0].message  # type: ignore[union-attr]
            assert isinstance(registered, m.Registered)
            ids.update(registered.ids)
        assert len(ids) == 300


def test_an_engine_that_may_wait_is_not_turned_away_by_an_old_furl(tmp_path: Path) -> None:
    """It cannot tell an old furl from a controller that had no time for it; a new furl may be on its way."""
    with controller(tmp_path) as own:
        real = own.furl("engine")
        path = tmp_path / "old.furl"
        furl.save(path, Furl(real.fingerprint, real.hints, "engine", bytes(32)))
        with engines(tmp_path, 1, ["--furl-file", str(path)]) as (engine,):
            wait_until(lambda: refusals(own) >= 1, "the line about a wrong secret")
            furl.save(path, real)
            own.wait_engines(1)
            assert engine.poll() is None


def test_half_a_handshake_is_ended_by_its_deadline(controller: Controller) -> None:
    begin = time.monotonic()
    with socket.create_connection(controller.address("mec"), 10) as sock:
        sock.sendall(client_hello()[:50])
        with suppress(ConnectionResetError):
            assert sock.recv(100) == b""
    assert limits.HANDSHAKE_TIMEOUT - 0.5 < time.monotonic() - begin < limits.HANDSHAKE_TIMEOUT + 1.5


def test_only_so_many_bytes_before_the_proof(controller: Controller) -> None:
    with TlsPeer(controller.address("mec")) as peer:
        frame = b"ipmp" + (limits.AUTHENTICATION_BYTES - 7).to_bytes(2, "big")
        peer.send(frame + bytes(limits.AUTHENTICATION_BYTES))
        assert peer.rest() == b""


# --- S31: where it listens -----------------------------------------------------------------------------------


def listening(pid: int) -> set[str]:
    """Addresses of the listening TCP sockets of a process."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            name = str(entry.readlink())
            if name.startswith("socket:["):
                inodes.add(name[8:-1])
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        path = Path(f"/proc/{pid}/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                raw = bytes.fromhex(fields[1].partition(":")[0])
                raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
                found.add(socket.inet_ntop(family, raw))
    return found


def test_it_listens_on_the_named_interface_only(controller: Controller) -> None:
    assert listening(controller.pid) == {"127.0.0.1"}


def test_another_interface_and_all_of_them_are_told_apart(tmp_path: Path) -> None:
    with controller(tmp_path, ["--client-ip", "127.0.0.2", "--client-location", "127.0.0.2"]) as own:
        everywhere = "::" if os.path.exists("/proc/net/if_inet6") else "0.0.0.0"
        assert listening(own.pid) == {"127.0.0.2", everywhere}
        with Member(own.furl("mec")) as member:
            member.ping()
