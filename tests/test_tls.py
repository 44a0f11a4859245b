"""TLS in memory: trust.md S2, S4, S5, S6, S7, S8 as far as they live below the authentication."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gc
import random
import weakref
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings, strategies as st
from OpenSSL import SSL

from ipmpi.errors import LocalProtocolError, SecurityError
from ipmpi.tls import Identity, TlsClosed, TlsError, TlsSession, load_or_create_identity
from ipmpi.tls.context import base_context

NOW = 1_800_000_000.0
DAY = 86_400.0
IDENTITY = Identity.create(NOW)
OTHER = Identity.create(NOW)


def shuttle(dialler: TlsSession, listener: TlsSession, rounds: int = 4) -> list[bytes]:
    """Run both handshakes; what the dialler sent, flight by flight."""
    sent = []
    for _ in range(rounds):
        dialler.handshake()
        sent.append(dialler.ciphertext_to_send())
        listener.receive_ciphertext(sent[-1])
        listener.handshake()
        dialler.receive_ciphertext(listener.ciphertext_to_send())
    assert dialler.handshake()
    assert listener.handshake()
    return sent


def connect(identity: Identity = IDENTITY) -> tuple[TlsSession, TlsSession]:
    dialler, listener = TlsSession.dialler(), TlsSession.listener(identity)
    shuttle(dialler, listener)
    dialler.check_peer(identity.fingerprint, NOW)
    return dialler, listener


def carry(source: TlsSession, target: TlsSession) -> None:
    while source.has_ciphertext:
        target.receive_ciphertext(source.ciphertext_to_send())


# --- the plain path ------------------------------------------------------------------------------------


def test_both_directions_carry_bytes_and_share_the_exporter() -> None:
    dialler, listener = connect()
    assert dialler.exporter() == listener.exporter()
    assert len(dialler.exporter()) == 32
    for source, target in ((dialler, listener), (listener, dialler)):
        source.write(b"one")
        source.write(memoryview(b"two"))
        carry(source, target)
        assert target.read() == b"onetwo"
        assert target.read() == b""


def test_every_connection_has_its_own_exporter() -> None:
    assert connect()[0].exporter() != connect()[0].exporter()


def test_post_quantum_suite_and_version_are_reported() -> None:
    dialler, listener = connect()
    assert dialler.description().startswith("TLSv1.3, TLS_AES_256_GCM_SHA384")
    assert dialler.description() == listener.description()


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 262_144, 3_000_001])
def test_sizes_arrive_whole(size: int) -> None:
    dialler, listener = connect()
    data = random.Random(size).randbytes(size)
    dialler.write(memoryview(bytearray(data)))
    carry(dialler, listener)
    received = b""
    while piece := listener.read():
        received += piece
    assert received == data


def test_buffers_of_other_items_are_written_as_bytes() -> None:
    dialler, listener = connect()
    view: Any = memoryview(bytes(range(48))).cast("d")
    dialler.write(view)
    dialler.write(memoryview(bytes(range(48))).cast("B", (6, 8)))
    carry(dialler, listener)
    assert listener.read() == bytes(range(48)) * 2


@given(st.integers(1, 40_000), st.integers(1, 5_000), st.integers(1, 70_000))
@settings(max_examples=20, deadline=None)
def test_any_cutting_of_the_stream_gives_the_same_bytes(read_size: int, cut: int, size: int) -> None:
    dialler, listener = connect()
    data = bytes(size)
    dialler.write(data)
    received = b""
    while dialler.has_ciphertext:
        ciphertext = dialler.ciphertext_to_send()
        for start in range(0, len(ciphertext), cut):
            listener.receive_ciphertext(ciphertext[start : start + cut])
            while plain := listener.read(read_size):
                assert len(plain) <= read_size
                received += plain
    assert received == data


def test_goodbye_comes_after_what_was_written_before_it() -> None:
    dialler, listener = connect()
    dialler.write(b"last words")
    dialler.close()
    carry(dialler, listener)
    assert listener.read() == b"last words"
    for _ in range(2):
        with pytest.raises(TlsClosed):
            listener.read()
    with pytest.raises(TlsClosed):
        listener.write(b"x")
    with pytest.raises(LocalProtocolError, match="'closed'"):
        dialler.write(b"x")
    listener.close()
    assert listener.has_ciphertext


def test_nothing_can_be_written_before_the_handshake() -> None:
    for session in (TlsSession.dialler(), TlsSession.listener(IDENTITY)):
        with pytest.raises(LocalProtocolError, match="'handshake'"):
            session.write(b"x")
        with pytest.raises(LocalProtocolError):
            session.read()
        with pytest.raises(LocalProtocolError):
            session.exporter()
        session.close()


def test_listener_can_talk_as_soon_as_it_is_done() -> None:
    dialler, listener = TlsSession.dialler(), TlsSession.listener(IDENTITY)
    shuttle(dialler, listener)
    listener.write(b"hello")
    carry(listener, dialler)
    with pytest.raises(LocalProtocolError, match="'unchecked'"):
        dialler.read()
    dialler.check_peer(IDENTITY.fingerprint, NOW)
    assert dialler.read() == b"hello"


# --- S4: nothing but TLS 1.3 and our suites ----------------------------------------------------------------


def _foreign_client(minimum: int, maximum: int, suites: bytes | None = None) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(minimum)
    context.set_max_proto_version(maximum)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    if suites is not None:
        context.set_tls13_ciphersuites(suites)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    return connection


def _first_flight(connection: SSL.Connection) -> bytes:
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(1 << 16)


@pytest.mark.parametrize("version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION, SSL.TLS1_2_VERSION])
def test_older_tls_is_refused_and_told_why(version: int) -> None:
    client = _foreign_client(version, version)
    try:
        flight = _first_flight(client)
    except BaseException:
        pytest.skip("this OpenSSL cannot even say it")
    listener = TlsSession.listener(IDENTITY)
    listener.receive_ciphertext(flight)
    with pytest.raises(TlsError, match=r"does not offer TLS 1\.3"):
        listener.handshake()
    client.bio_write(listener.ciphertext_to_send())
    with pytest.raises(SSL.Error, match="protocol version"):
        client.do_handshake()


def test_dialler_refuses_a_tls12_server() -> None:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate(x509.load_der_x509_certificate(IDENTITY.certificate_der))
    context.use_privatekey(IDENTITY.private_key)
    server = SSL.Connection(context, None)
    server.set_accept_state()
    dialler = TlsSession.dialler()
    dialler.handshake()
    server.bio_write(dialler.ciphertext_to_send())
    with pytest.raises(SSL.Error):
        server.do_handshake()
    dialler.receive_ciphertext(server.bio_read(1 << 16))
    with pytest.raises(TlsError, match=r"does not offer TLS 1\.3"):
        dialler.handshake()


@pytest.mark.parametrize("suite", [b"TLS_AES_128_CCM_SHA256", b"TLS_AES_128_CCM_8_SHA256"])
def test_other_suites_are_refused(suite: bytes) -> None:
    listener = TlsSession.listener(IDENTITY)
    client = _foreign_client(SSL.TLS1_3_VERSION, SSL.TLS1_3_VERSION, suite)
    listener.receive_ciphertext(_first_flight(client))
    with pytest.raises(TlsError, match="no cipher suite"):
        listener.handshake()


@pytest.mark.parametrize(
    "suite", [b"TLS_AES_256_GCM_SHA384", b"TLS_AES_128_GCM_SHA256", b"TLS_CHACHA20_POLY1305_SHA256"]
)
def test_our_suites_are_accepted_from_a_foreign_client(suite: bytes) -> None:
    listener = TlsSession.listener(IDENTITY)
    client = _foreign_client(SSL.TLS1_3_VERSION, SSL.TLS1_3_VERSION, suite)
    listener.receive_ciphertext(_first_flight(client))
    assert not listener.handshake()
    client.bio_write(listener.ciphertext_to_send())
    client.do_handshake()
    listener.receive_ciphertext(client.bio_read(1 << 16))
    assert listener.handshake()
    assert suite.decode() in listener.description()


# --- S5: no resumption -----------------------------------------------------------------------------------


def _resumptions(context: SSL.Context, attempts: int) -> tuple[int, int]:
    """How many of ``attempts`` clients offered a session of before, and how many servers resumed it."""
    client_context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client_context.set_session_cache_mode(SSL.SESS_CACHE_CLIENT)
    kept: SSL.Session | None = None
    alive = []  # OpenSSL marks a session as not resumable when its connection goes without a goodbye
    plain_hello = offered = resumed = 0
    for _ in range(attempts + 1):
        client, server = SSL.Connection(client_context, None), SSL.Connection(context, None)
        alive.append((client, server))
        client.set_connect_state()
        server.set_accept_state()
        if kept is not None:
            client.set_session(kept)
        hello = _first_flight(client)
        offered += kept is not None and len(hello) > plain_hello + 50
        plain_hello = plain_hello or len(hello)
        server.bio_write(hello)
        for one, two in ((server, client), (client, server), (server, client), (client, server)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
                one.recv(1)
            with contextlib.suppress(SSL.WantReadError):
                two.bio_write(one.bio_read(1 << 16))
        resumed += SSL._lib.SSL_session_reused(server._ssl)  # type: ignore[attr-defined]
        kept = client.get_session()
    return offered, resumed


def test_sessions_are_never_resumed() -> None:
    offered, resumed = _resumptions(IDENTITY.context, 100)
    assert offered == 100, "the clients did not try, so the test shows nothing"
    assert resumed == 0


def test_the_resumption_test_can_see_one() -> None:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(x509.load_der_x509_certificate(IDENTITY.certificate_der))
    context.use_privatekey(IDENTITY.private_key)
    context.set_session_id(b"twin")
    assert _resumptions(context, 5) == (5, 5)


@pytest.mark.parametrize(
    ("number", "name", "good"),
    [
        (0x30000070, "3.0.7, RHEL 9", True),
        (0x300000D0, "3.0.13, Ubuntu 24.04", True),
        (0x30200010, "3.2.1", True),
        (0x40000000, "4.0", True),
        (0x101010BF, "1.1.1k, RHEL 8", False),
    ],
)
def test_an_openssl_that_a_distribution_maintains_will_do(
    number: int, name: str, good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SSL, "OPENSSL_VERSION_NUMBER", number)
    if good:
        assert Identity.create(NOW).context
        TlsSession.dialler()
    else:
        with pytest.raises(SecurityError, match=r"known holes \(3.0 or newer"):
            base_context(SSL.TLS_SERVER_METHOD)


@pytest.mark.parametrize("method", [SSL.TLS_SERVER_METHOD, SSL.TLS_CLIENT_METHOD])
def test_no_session_is_kept_so_that_a_cache_that_grows_for_ever_is_never_used(method: int) -> None:
    context = base_context(method)
    # The setter gives what was there before.
    assert context.set_session_cache_mode(SSL.SESS_CACHE_OFF) == SSL.SESS_CACHE_OFF
    assert context.get_session_cache_mode() == SSL.SESS_CACHE_OFF


# --- S6: the wrong controller hears nothing --------------------------------------------------------------


def _certificate(key: ec.EllipticCurvePrivateKey, begin: float, end: float, name: str = "ipmpi") -> Identity:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(begin, datetime.timezone.utc))
        .not_valid_after(datetime.datetime.fromtimestamp(end, datetime.timezone.utc))
        .sign(key, hashes.SHA256())
    )
    return Identity(certificate.public_bytes(Encoding.DER), key)


_KEY = IDENTITY.private_key
_EXPIRED = _certificate(_KEY, NOW - 20 * DAY, NOW - 1)
_FUTURE = _certificate(_KEY, NOW + 60, NOW + DAY)
IMPOSTORS = {
    "other key, same common name": (
        OTHER,
        IDENTITY.fingerprint,
        "of another controller: the one at h:1",
    ),
    "same key, other certificate": (
        _certificate(_KEY, NOW - DAY, NOW + DAY),
        IDENTITY.fingerprint,
        "this furl is of another controller",
    ),
    "expired": (_EXPIRED, _EXPIRED.fingerprint, "at h:1 has expired"),
    "not yet valid": (_FUTURE, _FUTURE.fingerprint, "not valid yet: is the clock"),
    "empty pin": (IDENTITY, b"", "this furl is of another controller"),
}


@pytest.mark.parametrize("case", IMPOSTORS)
def test_wrong_controller_gets_no_application_byte(case: str) -> None:
    identity, pin, sentence = IMPOSTORS[case]
    dialler, listener = TlsSession.dialler(), TlsSession.listener(identity)
    shuttle(dialler, listener)
    with pytest.raises(SecurityError, match=sentence):
        dialler.check_peer(pin, NOW, "h:1")
    for attempt in (lambda: dialler.write(b"secret"), dialler.exporter, dialler.read):
        with pytest.raises(LocalProtocolError):
            attempt()
    dialler.close()
    assert dialler.ciphertext_to_send() == b""
    assert listener.read() == b""


def test_right_controller_gets_application_bytes() -> None:
    dialler, listener = connect()
    dialler.write(b"secret")
    wire = dialler.ciphertext_to_send()
    assert wire
    assert b"secret" not in wire
    listener.receive_ciphertext(wire)
    assert listener.read() == b"secret"


def test_a_failed_check_cannot_be_repeated_into_success() -> None:
    dialler, listener = TlsSession.dialler(), TlsSession.listener(OTHER)
    shuttle(dialler, listener)
    with pytest.raises(SecurityError):
        dialler.check_peer(IDENTITY.fingerprint, NOW)
    dialler.check_peer(OTHER.fingerprint, NOW)
    with pytest.raises(LocalProtocolError):
        dialler.write(b"x")


def test_certificate_without_its_key_fails_the_handshake() -> None:
    # Somebody who copied the certificate (any port scan shows it) but not the key.
    with pytest.raises(SSL.Error):
        TlsSession.listener(dataclasses.replace(IDENTITY, private_key=OTHER.private_key))


def test_listener_has_no_peer_certificate_and_dialler_none_before_the_handshake() -> None:
    with pytest.raises(LocalProtocolError):
        _ = TlsSession.dialler().peer_fingerprint
    dialler, listener = connect()
    assert dialler.peer_fingerprint == IDENTITY.fingerprint
    with pytest.raises(LocalProtocolError):
        _ = listener.peer_fingerprint


def test_clock_of_the_laptop_may_be_hours_behind() -> None:
    dialler, listener = TlsSession.dialler(), TlsSession.listener(IDENTITY)
    shuttle(dialler, listener)
    dialler.check_peer(IDENTITY.fingerprint, NOW - 12 * 3600)


# --- S8 (transport half): a recorded session is worth nothing --------------------------------------------


def test_recorded_ciphertext_replayed_to_a_new_listener_is_refused() -> None:
    dialler, listener = TlsSession.dialler(), TlsSession.listener(IDENTITY)
    flights = shuttle(dialler, listener)
    dialler.check_peer(IDENTITY.fingerprint, NOW)
    dialler.write(b"command")
    flights.append(dialler.ciphertext_to_send())
    again = TlsSession.listener(IDENTITY)
    again.receive_ciphertext(flights[0])
    assert not again.handshake()  # a ClientHello can always be said again; the rest fits no other connection
    again.receive_ciphertext(b"".join(flights[1:]))
    with pytest.raises(TlsError):
        again.handshake()
    listener.receive_ciphertext(flights[-1])
    assert listener.read() == b"command"  # the twin: the same bytes in their own session


def test_a_changed_byte_is_noticed_after_what_came_before() -> None:
    dialler, listener = connect()
    dialler.write(b"good")
    good = dialler.ciphertext_to_send()
    dialler.write(b"evil")
    evil = bytearray(dialler.ciphertext_to_send())
    evil[-1] ^= 1
    listener.receive_ciphertext(good + bytes(evil))
    assert listener.read() == b"good"
    for _ in range(2):
        with pytest.raises(TlsError, match="the TLS link broke"):
            listener.read()
    with pytest.raises(TlsError):
        listener.write(b"x")
    listener.close()


# --- S2: any bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "sentence"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "speaks plain HTTP"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks plain HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks SSH"),
        (b"\x00" * 64, "does not speak TLS"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "does not offer TLS 1.3"),
    ],
)
@pytest.mark.parametrize("dials", [True, False])
def test_other_protocols_are_named(first: bytes, sentence: str, dials: bool) -> None:
    session = TlsSession.dialler() if dials else TlsSession.listener(IDENTITY)
    if not dials and first[0] == 0x15:
        sentence = "TLS"
    session.handshake()
    session.receive_ciphertext(first)
    for _ in range(2):
        with pytest.raises(TlsError, match=sentence):
            session.handshake()
    session.ciphertext_to_send()
    session.close()


@pytest.mark.parametrize("dials", [True, False])
def test_a_session_that_failed_leaves_the_memory_at_once(dials: bool) -> None:
    """A port that strangers knock at would keep what they leave until all objects are looked at."""
    session = TlsSession.dialler() if dials else TlsSession.listener(IDENTITY)
    there = weakref.ref(session)
    session.handshake()
    session.receive_ciphertext(b"SSH-2.0-OpenSSH_9.2\r\n")
    gc.disable()
    try:
        for _ in range(2):
            with contextlib.suppress(TlsError):
                session.handshake()
        session.close()
        del session
        assert there() is None
    finally:
        gc.enable()


def _feed(session: TlsSession, data: bytes) -> None:
    """Everything a link does with bytes; only the errors of the contract may come out."""
    try:
        session.receive_ciphertext(data)
        if session.handshake():
            if session._dials:
                session.check_peer(session.peer_fingerprint, NOW)
            session.read()
    except (TlsError, TlsClosed, SecurityError):
        pass
    session.ciphertext_to_send()


@given(st.binary(max_size=4096))
@settings(max_examples=150, deadline=None)
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    for session in (TlsSession.dialler(), TlsSession.listener(IDENTITY)):
        session.handshake()
        _feed(session, data)
        _feed(session, data)
        session.close()


def _client_hello() -> bytes:
    dialler = TlsSession.dialler()
    dialler.handshake()
    return dialler.ciphertext_to_send()


def _mutate(flight: bytes, source: random.Random) -> bytes:
    data = bytearray(flight)
    for _ in range(source.choice((1, 1, 2, 8))):
        position = source.randrange(len(data))
        action = source.randrange(4)
        if action == 0:
            data[position] ^= 1 << source.randrange(8)
        elif action == 1:
            data[position] = source.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif action == 2:
            del data[position : position + source.randrange(1, 9)]
        else:
            data[position:position] = source.randbytes(source.randrange(1, 9))
        if not data:
            return b""
    return bytes(data)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_flights_never_raise_anything_else(seed: int) -> None:
    source = random.Random(seed)
    hello = _client_hello()
    for _ in range(150):
        _feed(TlsSession.listener(IDENTITY), _mutate(hello, source))
        dialler, listener = TlsSession.dialler(), TlsSession.listener(IDENTITY)
        dialler.handshake()
        listener.receive_ciphertext(dialler.ciphertext_to_send())
        listener.handshake()
        _feed(dialler, _mutate(listener.ciphertext_to_send(), source))


def test_a_failure_in_one_session_does_not_reach_another() -> None:
    dialler, listener = connect()
    broken = TlsSession.listener(IDENTITY)
    _feed(broken, b"GET / HTTP/1.1\r\n\r\n")
    dialler.write(b"x")
    carry(dialler, listener)
    assert listener.read() == b"x"


def test_key_log_variable_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    connect(Identity.create(NOW))
    assert not log.exists()


# --- identities ------------------------------------------------------------------------------------------


def test_identity_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "security/ipcontroller.pem"
    first = load_or_create_identity(path, NOW)
    again = load_or_create_identity(path, NOW + DAY)
    assert again.fingerprint == first.fingerprint
    assert path.stat().st_mode & 0o777 == 0o600
    connect(again)
    path.unlink()
    assert load_or_create_identity(path, NOW).fingerprint != first.fingerprint


def test_identity_certificate_is_what_the_page_says() -> None:
    certificate = x509.load_der_x509_certificate(IDENTITY.certificate_der)
    assert certificate.subject.rfc4514_string() == "CN=ipmpi"
    assert certificate.not_valid_after_utc.timestamp() == NOW + 3650 * DAY
    assert certificate.serial_number != x509.load_der_x509_certificate(OTHER.certificate_der).serial_number
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_private_key_is_not_shown() -> None:
    body = IDENTITY.to_pem().decode().splitlines()[1]
    assert body not in repr(IDENTITY)
    assert IDENTITY.fingerprint.hex()[:16] in repr(IDENTITY)


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_unreadable_identity_file_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.pem"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(SecurityError, match=r"c\.pem: .*Delete the file"):
        load_or_create_identity(path, NOW)


def test_certificate_with_the_key_of_another_is_refused() -> None:
    pem = IDENTITY.to_pem()
    key, certificate = pem.split(b"-----BEGIN CERTIFICATE")
    other = OTHER.to_pem().split(b"-----BEGIN CERTIFICATE")[0]
    assert Identity.from_pem(key + b"-----BEGIN CERTIFICATE" + certificate).fingerprint == IDENTITY.fingerprint
    with pytest.raises(SecurityError, match="do not belong together"):
        Identity.from_pem(other + b"-----BEGIN CERTIFICATE" + certificate)
