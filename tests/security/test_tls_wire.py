"""S4 to S8: TLS as it is on the wire between real processes."""

from __future__ import annotations

import datetime
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from ipmpi.client.session.connecting import connect
from ipmpi.errors import SecurityError
from ipmpi.furl import Furl
from ipmpi.ids import Ids
from ipmpi.protocol import messages as m
from ipmpi.tls import Identity, TlsSession
from tests.security.cluster import Controller
from tests.security.relay import Relay
from tests.security.wire import Member, Stranger, TlsPeer, TlsServer, register

OLD = {"TLS 1.0": SSL.TLS1_VERSION, "TLS 1.1": SSL.TLS1_1_VERSION, "TLS 1.2": SSL.TLS1_2_VERSION}


@contextmanager
def foreign(
    running: Controller, context: SSL.Context, session: SSL.Session | None = None
) -> Iterator[SSL.Connection]:
    """A TLS client that is not ours, after its handshake."""
    with socket.create_connection(running.address("mec"), 5) as sock:
        sock.settimeout(None)
        connection = SSL.Connection(context, sock)
        if session is not None:
            connection.set_session(session)
        connection.set_connect_state()
        connection.do_handshake()
        yield connection


def context(lowest: int = SSL.TLS1_3_VERSION, highest: int = SSL.TLS1_3_VERSION) -> SSL.Context:
    made = SSL.Context(SSL.TLS_CLIENT_METHOD)
    made.set_min_proto_version(lowest)
    made.set_max_proto_version(highest)
    return made


@pytest.mark.parametrize("version", OLD)
def test_older_tls_is_refused(controller: Controller, version: str) -> None:
    old = context(OLD[version], OLD[version])
    old.set_cipher_list(b"ALL:@SECLEVEL=0")
    with pytest.raises(SSL.Error), foreign(controller, old):
        pass


@pytest.mark.parametrize("suite", [b"TLS_AES_128_CCM_SHA256", b"TLS_AES_128_CCM_8_SHA256"])
def test_other_suites_are_refused(controller: Controller, suite: bytes) -> None:
    other = context()
    other.set_tls13_ciphersuites(suite)
    with pytest.raises(SSL.Error), foreign(controller, other):
        pass


@pytest.mark.parametrize(
    "suite", ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"]
)
def test_a_foreign_client_with_tls13_gets_as_far_as_the_proof(controller: Controller, suite: str) -> None:
    right = context(SSL.TLS1_2_VERSION)
    right.set_tls13_ciphersuites(suite.encode())
    with foreign(controller, right) as connection:
        assert (connection.get_protocol_version_name(), connection.get_cipher_name()) == ("TLSv1.3", suite)


def test_sessions_are_not_resumed(controller: Controller) -> None:
    client = context()
    session = None
    for _ in range(20):
        with foreign(controller, client, session) as connection:
            assert not SSL._lib.SSL_session_reused(connection._ssl)  # type: ignore[attr-defined]
            connection.send(b"no hello")
            with suppress(SSL.Error):
                connection.recv(1)  # reads the tickets that were sent, if any
            session = connection.get_session()


# --- S6: who answers is not the controller of the furl -----------------------------------------------------------


def certificate(identity: Identity, now: float, days: int = 3650) -> Identity:
    """Another certificate for the same key."""
    start = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    name = x509.load_der_x509_certificate(identity.certificate_der).subject
    builder = x509.CertificateBuilder(
        issuer_name=name, subject_name=name, public_key=identity.private_key.public_key(),
        serial_number=x509.random_serial_number(), not_valid_before=start,
        not_valid_after=start + datetime.timedelta(days=days),
    )  # fmt: skip
    signed = builder.sign(identity.private_key, hashes.SHA256())
    return Identity(signed.public_bytes(Encoding.DER), identity.private_key)


def refused_cases() -> dict[str, tuple[Identity, bytes]]:
    """Name -> (who answers, the hash in the furl)."""
    now = time.time()
    right = Identity.create(now)
    expired = certificate(right, now - 10 * 86400, days=1)
    future = certificate(right, now + 10 * 86400)
    return {
        "another certificate of the same name": (Identity.create(now), right.fingerprint),
        "the same key in another certificate": (certificate(right, now), right.fingerprint),
        "expired": (expired, expired.fingerprint),
        "not valid yet": (future, future.fingerprint),
        "one bit of the hash": (right, bytes([right.fingerprint[0] ^ 1]) + right.fingerprint[1:]),
    }


@pytest.mark.parametrize("case", list(refused_cases()))
def test_dialler_sends_no_application_byte_to_somebody_else(case: str) -> None:
    identity, pin = refused_cases()[case]
    with TlsServer(identity) as server:
        with pytest.raises(SecurityError):
            connect(str(Furl(pin, (server.address,), "mec", bytes(32))))
        assert server.over.wait(5)
        assert server.application_bytes == 0


def test_dialler_does_send_to_the_right_one() -> None:
    identity = Identity.create(time.time())
    received = threading.Event()

    def close(tls: TlsSession, data: bytes) -> None:
        received.set()
        raise EOFError

    with TlsServer(identity, close) as server:
        with pytest.raises(SecurityError, match="closed the connection without an answer"):
            connect(str(Furl(identity.fingerprint, (server.address,), "mec", bytes(32))))
        assert received.is_set()
        assert server.application_bytes > 100


# --- S7: somebody in the middle ----------------------------------------------------------------------------------


def test_man_in_the_middle_with_his_own_certificate_hears_nothing(controller: Controller) -> None:
    real = controller.furl("mec")
    with TlsServer(Identity.create(time.time())) as middle:
        with pytest.raises(SecurityError, match="shows a different certificate"):
            connect(str(Furl(real.fingerprint, (middle.address,), "mec", real.secret)))
        assert middle.over.wait(5)
        assert middle.application_bytes == 0


def test_relayed_hello_is_refused_even_where_the_certificate_was_not_compared(controller: Controller) -> None:
    real = controller.furl("mec")
    answers: list[bytes] = []

    def relay(tls: TlsSession, data: bytes) -> None:
        with TlsPeer(real.hints[0]) as onward:
            onward.send(data)
            answers.append(onward.rest())
        raise EOFError

    with (
        TlsServer(Identity.create(time.time()), relay) as middle,
        Stranger(real, address=middle.address) as victim,
    ):
        assert victim.rest() == b""
    assert answers == [b""]


def test_plain_relay_that_touches_nothing_is_only_a_wire(controller: Controller) -> None:
    real = controller.furl("mec")
    with Relay(real.hints[0]) as relay:
        session = connect(str(Furl(real.fingerprint, (relay.address,), "mec", real.secret)))
        assert session.request(m.GetIds).result(5) == []
        session.close()
        relay.passed_all_on()  # else the session would be kept for a client that may come back


# --- S8: replay --------------------------------------------------------------------------------------------------


def test_recorded_session_cannot_be_replayed(controller: Controller) -> None:
    engine, number = register(controller.furl("engine"))
    real = controller.furl("mec")
    with engine, Relay(real.hints[0]) as relay:
        with Member(Furl(real.fingerprint, (relay.address,), "mec", real.secret)) as victim:
            victim.say(m.Command(1, [number], "execute", "execute", b"transfer 1000"))
            dispatch = engine.hear(m.Dispatch)
            assert dispatch.operation == b"transfer 1000"
            engine.say(m.Result(dispatch.id, [0], True, b"done"))
            victim.say(m.Goodbye("done"))
            victim.ping()
        record = bytes(relay.recorded)
        assert len(record) > 500
        with socket.create_connection(real.hints[0], 10) as replay:
            replay.sendall(record)
            answer = b""
            with suppress(ConnectionResetError):
                while piece := replay.recv(65536):
                    answer += piece
        assert answer[:1] in (b"\x16", b"\x15"), "a new handshake began, and was not finished"
        with Member(real) as observer:
            # The victim's own session ends when the relay has passed on the end of its connection.
            until = time.monotonic() + 10
            clients = ["mec", "mec"]
            while clients != ["mec"] and time.monotonic() < until:
                observer.say(m.ClusterInfo(1))
                clients = observer.hear(m.Reply).value["clients"]
            assert clients == ["mec"]
            observer.say(m.QueueStatus(2, None))
            ((engines, *rest),) = observer.hear(m.Reply).value
            assert (Ids.unpacked(engines), rest) == ([number], [None, [], [], None])
            observer.say(m.Goodbye("done"))
        engine.ping()
        assert not engine._arrived, "the command came once"
        engine.say(m.Goodbye("done"))
