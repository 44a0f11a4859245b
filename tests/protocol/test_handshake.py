"""Authentication after TLS: trust.md S7, S8, S10, S13 (structure), S15, S17 and version skew."""

from __future__ import annotations

import contextlib
import hmac
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from ipmpi import limits
from ipmpi.errors import LocalProtocolError, RemoteProtocolError, SecurityError, VersionError
from ipmpi.protocol.handshake import MAGIC, DiallerHandshake, Hello, ListenerHandshake, Refusal, Welcome
from ipmpi.tls import Identity, TlsSession

SECRETS = {"engine": b"e" * 32, "mec": b"m" * 32, "tc": b"t" * 32, "monitor": b"o" * 32}
EXPORTER = b"x" * 32
OLD_SESSION, NEW_SESSION = b"s" * 16, b"n" * 16


def dialler(
    role: str = "mec", secret: bytes | None = None, exporter: bytes = EXPORTER, **more: Any
) -> DiallerHandshake:
    return DiallerHandshake(role, SECRETS[role] if secret is None else secret, exporter, "ipmpi 0.1", **more)


def listener(exporter: bytes = EXPORTER, **more: Any) -> ListenerHandshake:
    return ListenerHandshake(exporter, SECRETS, "ipmpi 0.2", **more)


def frame(fields: object) -> bytes:
    payload = msgspec.msgpack.encode(fields)
    return MAGIC + len(payload).to_bytes(2, "big") + payload


def fields_of(data: bytes) -> dict[str, object]:
    fields = msgspec.msgpack.decode(data[6:])
    assert isinstance(fields, dict)
    return fields


# --- the plain path ------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", SECRETS)
def test_both_ends_agree(role: str) -> None:
    client, server = dialler(role, session=OLD_SESSION, received=7), listener()
    hello = server.receive(client.hello())
    assert hello is not None
    assert (hello.role, hello.session, hello.received, hello.software) == (role, OLD_SESSION, 7, "ipmpi 0.1")
    assert server.version == 1
    welcome = client.receive(server.welcome(OLD_SESSION, 9, True))
    assert isinstance(welcome, Welcome)
    assert (welcome.version, welcome.session, welcome.received, welcome.resumed) == (1, OLD_SESSION, 9, True)
    assert welcome.software == "ipmpi 0.2"


def test_frames_may_come_byte_by_byte_and_with_more_behind() -> None:
    client, server = dialler(), listener()
    data = client.hello()
    assert [server.receive(data[i : i + 1]) for i in range(len(data) - 1)] == [None] * (len(data) - 1)
    assert server.receive(data[-1:] + b"the link begins") is not None
    assert server.leftover == b"the link begins"
    answer = server.welcome(NEW_SESSION, 0, False)
    assert client.receive(memoryview(answer[:10])) is None
    assert client.receive(answer[10:] + b"and here") is not None
    assert client.leftover == b"and here"


def test_highest_common_version_is_chosen() -> None:
    client, server = dialler(versions=(1, 2, 5)), listener(versions=(1, 2, 3))
    server.receive(client.hello())
    assert server.version == 2
    welcome = client.receive(server.welcome(NEW_SESSION, 0, False))
    assert isinstance(welcome, Welcome)
    assert welcome.version == 2


def test_secret_is_never_sent() -> None:
    secret = bytes(range(32))
    client = dialler(secret=secret)
    server = ListenerHandshake(EXPORTER, {"mec": secret}, "x")
    wire = client.hello()
    server.receive(wire)
    wire += server.welcome(NEW_SESSION, 0, False)
    assert secret not in wire
    assert EXPORTER not in wire


# --- S10: wrong, truncated, other role; S8: replay; S7: relay ----------------------------------------------


@pytest.mark.parametrize(
    ("role", "secret"),
    [
        ("mec", b"w" * 32),
        ("mec", b"m" * 31),
        ("mec", b""),
        ("mec", b"m" * 31 + b"n"),
        ("mec", SECRETS["engine"]),
        ("mec", SECRETS["monitor"]),
        ("tc", SECRETS["mec"]),
        ("admin", SECRETS["mec"]),
        ("", b""),
        ("admin", b"\0" * 32),
    ],
)
def test_wrong_secret_or_role_is_refused_without_an_answer(role: str, secret: bytes) -> None:
    server = listener()
    with pytest.raises(SecurityError, match="does not have its secret") as caught:
        server.receive(dialler(role, secret).hello())
    assert repr(secret) == "b''" or secret.decode("latin-1") not in str(caught.value)
    answers: list[Callable[[], bytes]] = [
        lambda: server.welcome(NEW_SESSION, 0, False),
        lambda: server.refuse("busy", "x"),
    ]
    for answer in answers:
        with pytest.raises(LocalProtocolError):
            answer()
    with pytest.raises(LocalProtocolError):
        server.receive(dialler().hello())  # one guess per connection


def test_wrong_secret_with_an_unknown_version_learns_nothing_of_versions() -> None:
    with pytest.raises(SecurityError):
        listener().receive(dialler(secret=b"w" * 32, versions=(99,)).hello())
    with pytest.raises(VersionError):
        listener().receive(dialler(versions=(99,)).hello())  # the twin


@pytest.mark.parametrize("field", ["proof", "nonce", "role"])
def test_a_changed_hello_is_refused(field: str) -> None:
    data = dialler().hello()
    assert listener().receive(frame(fields_of(data))) is not None  # the twin: decoded and encoded again
    changed = fields_of(data)
    changed[field] = "tc" if field == "role" else bytes(32)
    with pytest.raises(SecurityError):
        listener().receive(frame(changed))


def test_recorded_hello_is_worth_nothing_on_another_connection() -> None:
    recorded = dialler().hello()
    with pytest.raises(SecurityError):
        listener(exporter=b"y" * 32).receive(recorded)
    assert listener().receive(recorded) is not None


def test_recorded_welcome_is_worth_nothing_for_another_hello() -> None:
    client, server = dialler(), listener()
    server.receive(client.hello())
    recorded = server.welcome(NEW_SESSION, 0, False)
    again = dialler()
    again.hello()
    with pytest.raises(SecurityError, match="could not prove"):
        again.receive(recorded)
    assert client.receive(recorded) is not None


def test_a_hello_sent_back_is_no_welcome() -> None:
    client = dialler()
    hello = fields_of(client.hello())
    mirrored = {"kind": "welcome", "version": 1, "software": "", "session": NEW_SESSION}
    with pytest.raises(SecurityError):
        client.receive(frame({**mirrored, "nonce": hello["nonce"], "proof": hello["proof"]}))


def test_controller_without_the_secret_is_refused() -> None:
    client = dialler()
    server = ListenerHandshake(EXPORTER, {"mec": b"w" * 32}, "x")
    server._check_proof = lambda _: None  # type: ignore[assignment,method-assign] # a thief of the private key
    server.receive(client.hello())
    with pytest.raises(SecurityError, match="could not prove"):
        client.receive(server.welcome(NEW_SESSION, 0, False))


def _tls(identity: Identity) -> tuple[TlsSession, TlsSession]:
    one, two = TlsSession.dialler(), TlsSession.listener(identity)
    for _ in range(3):
        one.handshake()
        two.receive_ciphertext(one.ciphertext_to_send())
        two.handshake()
        one.receive_ciphertext(two.ciphertext_to_send())
    return one, two


def test_man_in_the_middle_is_refused_even_by_a_dialler_that_skips_the_pin() -> None:
    now = time.time()
    real, middle = Identity.create(now), Identity.create(now)
    victim, fake_controller = _tls(middle)
    fake_client, controller = _tls(real)
    with pytest.raises(SecurityError, match="another controller"):
        victim.check_peer(real.fingerprint, now)

    careless, fake_controller = _tls(middle)
    careless.check_peer(middle.fingerprint, now)
    fake_client.check_peer(real.fingerprint, now)
    relayed = dialler(exporter=careless.exporter()).hello()
    with pytest.raises(SecurityError):
        listener(exporter=controller.exporter()).receive(relayed)
    assert listener(exporter=fake_controller.exporter()).receive(relayed) is not None  # the twin
    direct = dialler(exporter=fake_client.exporter()).hello()
    assert listener(exporter=controller.exporter()).receive(direct) is not None


def test_known_and_unknown_roles_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    digest, compare = hmac.digest, hmac.compare_digest

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            steps.append(name)
            return function(*args)

        return call

    monkeypatch.setattr(hmac, "digest", counted("digest", digest))
    monkeypatch.setattr(hmac, "compare_digest", counted("compare", compare))
    seen = []
    for role, secret in (("mec", b"w" * 32), ("admin", b"w" * 32)):
        hello = dialler(role, secret).hello()
        steps.clear()
        with pytest.raises(SecurityError):
            listener().receive(hello)
        seen.append(list(steps))
    assert seen == [["digest", "compare"]] * 2


# --- versions and refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "advice"),
    [((1,), (2, 3), "Upgrade ipmpi here"), ((4,), (2, 3), "Upgrade ipmpi on the controller's machine")],
)
def test_releases_that_do_not_fit_tell_both_sides(here: Sequence[int], there: Sequence[int], advice: str) -> None:
    client, server = dialler(versions=here), listener(versions=there)
    with pytest.raises(VersionError, match=r"'mec' furl runs ipmpi 0\.1 .*this controller ipmpi 0\.2") as told:
        server.receive(client.hello())
    with pytest.raises(LocalProtocolError):
        server.welcome(NEW_SESSION, 0, False)
    with pytest.raises(LocalProtocolError):
        _ = server.version
    with pytest.raises(VersionError, match=advice) as caught:
        client.receive(server.refuse("version", str(told.value)))
    assert "the controller runs ipmpi 0.2 (protocol 2 or 3)" in str(caught.value)
    assert "here is ipmpi 0.1" in str(caught.value)


@pytest.mark.parametrize("code", ["busy", "stopping", "a code of a later release"])
def test_other_refusals_are_returned(code: str) -> None:
    client, server = dialler(), listener()
    server.receive(client.hello())
    answer = client.receive(server.refuse(code, "64 clients\x1b[2J are here: close one"))
    assert isinstance(answer, Refusal)
    assert answer.code == code
    assert answer.sentence == "64 clients?[2J are here: close one"


def test_the_dialler_cleans_the_text_of_a_controller() -> None:
    client = dialler()
    client.hello()
    answer = client.receive(frame({"kind": "refusal", "code": "b\n", "sentence": "\x1b]0;x\x07" + "y" * 3000}))
    assert isinstance(answer, Refusal)
    assert answer.code == "b?"
    assert answer.sentence.startswith("?]0;x?y")
    assert len(answer.sentence) == 500


def test_closed_without_an_answer_says_what_that_means() -> None:
    client = dialler("engine")
    client.hello()
    with pytest.raises(SecurityError, match=r"does not accept the 'engine' furl.*Copy the furl file again"):
        client.closed()


def test_fields_of_later_releases_are_skipped() -> None:
    client, server = dialler(), listener()
    assert server.receive(frame({**fields_of(client.hello()), "colour": ["blue", {"deep": 1}]})) is not None
    answer = fields_of(server.welcome(NEW_SESSION, 0, False))
    assert client.receive(frame({**answer, "taste": None})) is not None


def test_the_frozen_frame_is_what_was_frozen() -> None:
    data = dialler(session=OLD_SESSION, received=3).hello()
    assert data[:4] == b"ipmp"
    assert int.from_bytes(data[4:6], "big") == len(data) - 6
    fields = fields_of(data)
    assert list(fields) == [
        "kind", "versions", "software", "role", "nonce", "proof", "session", "received", "process", "key",
    ]  # fmt: skip
    message = b"ipmpi dialler" + EXPORTER + b"mec" + fields["nonce"]  # type: ignore[operator]
    assert fields["proof"] == hmac.digest(SECRETS["mec"], message, "sha256")


def test_the_controllers_proof_covers_the_connection_and_both_nonces() -> None:
    client, server = dialler(), listener()
    hello = fields_of(client.hello())
    server.receive(frame(hello))
    welcome = fields_of(server.welcome(NEW_SESSION, 0, False))
    message = b"ipmpi controller" + EXPORTER + b"mec" + hello["nonce"] + welcome["nonce"]  # type: ignore[operator]
    assert welcome["proof"] == hmac.digest(SECRETS["mec"], message, "sha256")


def test_long_names_stay_within_the_limit() -> None:
    client = DiallerHandshake("mec", SECRETS["mec"], EXPORTER, "\N{GRINNING FACE}" * 5000, range(64))
    server = ListenerHandshake(EXPORTER, SECRETS, "\udcff" * 5000)
    hello = client.hello()
    server.receive(hello)
    answer = server.refuse("busy", "\N{GRINNING FACE}" * 5000)
    assert max(len(hello), len(answer)) <= limits.AUTHENTICATION_BYTES
    assert isinstance(client.receive(answer), Refusal)


# --- what a peer may not send ------------------------------------------------------------------------------

_GOOD = fields_of(dialler().hello())


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"i\0",
        b"ipmp\xff\xff",
        b"ipmp\x0f\xfb",
        b"ipmp\x00\x00",
        b"ipmp\x00\x01\xc1",
        b"ipmp\x0f\xfa" + b"\x91" * 4090,
        frame([1, 2]),
        frame({}),
        frame({**_GOOD, "kind": "welcome"}),
        frame({**_GOOD, "kind": "sesame"}),
        frame({**_GOOD, "nonce": b"short"}),
        frame({**_GOOD, "nonce": "n" * 32}),
        frame({**_GOOD, "proof": b"p" * 33}),
        frame({**_GOOD, "role": "r" * 33}),
        frame({**_GOOD, "role": None}),
        frame({**_GOOD, "versions": list(range(65))}),
        frame({**_GOOD, "versions": [-1]}),
        frame({**_GOOD, "versions": 1}),
        frame({**_GOOD, "received": -1}),
        frame({**_GOOD, "received": 1.5}),
        frame({**_GOOD, "session": b"1234567"}),
        frame({**_GOOD, "session": b"1" * 17}),
        frame({key: value for key, value in _GOOD.items() if key != "proof"}),
        b"ipmp\x00\x04\x81\xa1\xff\x01",
    ],
)
def test_bad_hello_is_a_remote_protocol_error_and_gets_no_answer(data: bytes) -> None:
    server = listener()
    with pytest.raises(RemoteProtocolError):
        server.receive(data)
    with pytest.raises(LocalProtocolError):
        server.refuse("busy", "x")


def test_deep_nesting_in_a_field_that_is_skipped_is_an_error_and_no_crash() -> None:
    payload = msgspec.msgpack.encode(_GOOD)
    deep = bytes([payload[0] + 1]) + payload[1:] + b"\xa1z" + b"\x91" * 3500 + b"\x01"
    with pytest.raises((RemoteProtocolError, SecurityError)):
        listener(exporter=b"y" * 32).receive(MAGIC + len(deep).to_bytes(2, "big") + deep)


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=200)
def test_any_bytes_give_a_message_or_an_error_of_the_contract(data: bytes, framed: bool) -> None:
    if framed:
        data = MAGIC + len(data).to_bytes(2, "big") + data
    client = dialler()
    client.hello()
    for end in (listener(), client):
        with contextlib.suppress(RemoteProtocolError, SecurityError, VersionError):
            end.receive(data)


def test_mutated_frames_give_a_message_or_an_error_of_the_contract() -> None:
    source = random.Random(4)
    server = listener()
    server.receive(dialler().hello())
    answer, hello = server.welcome(NEW_SESSION, 0, False), dialler().hello()
    outcomes: set[type] = set()
    for _ in range(3000):
        client = dialler()
        client.hello()
        for end, good in ((listener(), hello), (client, answer)):
            data = bytearray(good)
            for _ in range(source.choice((1, 2, 5))):
                data[source.randrange(len(data))] = source.randrange(256)
            try:
                outcomes.add(type(end.receive(data)))
            except (RemoteProtocolError, SecurityError, VersionError) as error:
                outcomes.add(type(error))
    assert {RemoteProtocolError, SecurityError} <= outcomes


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": 2}, RemoteProtocolError),
        ({"session": b"short"}, RemoteProtocolError),
        ({"resumed": True}, RemoteProtocolError),
        ({"nonce": b"n" * 32}, SecurityError),
        ({"proof": b"n" * 32}, SecurityError),
        ({"kind": "hello"}, RemoteProtocolError),
        ({}, None),
    ],
)
def test_bad_welcome_is_refused(change: dict[str, object], error: type[Exception] | None) -> None:
    client, server = dialler(session=OLD_SESSION), listener()
    server.receive(client.hello())
    data = frame({**fields_of(server.welcome(NEW_SESSION, 0, False)), **change})
    if error is None:
        assert client.receive(data) is not None
        return
    with pytest.raises(error):
        client.receive(data)
    with pytest.raises(LocalProtocolError):
        client.receive(data)


# --- misuse ----------------------------------------------------------------------------------------------


def test_steps_out_of_order_are_local_errors() -> None:
    client, server = dialler(), listener()
    with pytest.raises(LocalProtocolError, match="state 'start'"):
        client.receive(b"")
    with pytest.raises(LocalProtocolError, match="waiting"):
        server.welcome(NEW_SESSION, 0, False)
    with pytest.raises(LocalProtocolError):
        server.refuse("busy", "x")
    hello = client.hello()
    with pytest.raises(LocalProtocolError):
        client.hello()
    server.receive(hello)
    with pytest.raises(LocalProtocolError):
        server.receive(b"")
    with pytest.raises(LocalProtocolError, match="16 bytes"):
        server.welcome(b"", 0, False)
    server.welcome(NEW_SESSION, 0, False)
    answers: list[Callable[[], bytes]] = [
        lambda: server.welcome(NEW_SESSION, 0, False),
        lambda: server.refuse("busy", "x"),
    ]
    for again in answers:
        with pytest.raises(LocalProtocolError):
            again()


def test_exporter_of_the_wrong_size_is_a_local_error() -> None:
    with pytest.raises(LocalProtocolError):
        dialler(exporter=b"")
    with pytest.raises(LocalProtocolError):
        listener(exporter=b"x" * 31)


def test_hello_type_is_exported_for_the_controller() -> None:
    assert Hello.__struct_config__.tag == "hello"
    assert not Hello.__struct_config__.forbid_unknown_fields
