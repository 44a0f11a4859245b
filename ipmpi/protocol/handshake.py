"""Who may talk: the first frame in each direction after TLS, sans-IO.

The framing of this file is frozen for ever, so that any two releases can tell each other that they do not fit:
four bytes ``ipmp``, a length (two bytes, big endian), a msgpack map with named fields. Fields that a reader
does not know are skipped.

The dialler proves that it has the secret of its role by an HMAC over the TLS exporter, which no other
connection has: a recorded or relayed Hello is worth nothing elsewhere, and the secret is never sent. The
controller answers with its own proof over both nonces. Before it has seen a right proof the listener says
nothing at all, not even its version, and takes the same time whether the role exists or not.

Both ends are tables: ``(state, event) -> state``; anything that is not in the table is an error.
"""

from __future__ import annotations

import enum
import hmac
import secrets as random_source
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, NoReturn, TypeVar

import msgspec

from .. import limits, processid
from ..errors import FurlEnded, LocalProtocolError, RemoteProtocolError, SecurityError, VersionError
from .furlkeys import KEY_BYTES, key_of

MAGIC: Final = b"ipmp"
VERSIONS: Final = (1,)
"""Versions of the wire protocol that this release speaks."""

_PREFIX: Final = len(MAGIC) + 2
_NONCE_BYTES: Final = 32
_DIALLER_LABEL: Final = b"ipmpi dialler"
_CONTROLLER_LABEL: Final = b"ipmpi controller"
_LARGEST: Final = limits.AUTHENTICATION_BYTES - _PREFIX
_SENTENCE_CHARACTERS: Final = 500
_SOFTWARE_CHARACTERS: Final = 100

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Versions = Annotated[list[Count], msgspec.Meta(max_length=64)]
Process = Annotated[str, msgspec.Meta(max_length=processid.LONGEST)]


class Hello(msgspec.Struct, frozen=True, tag_field="kind", tag="hello"):
    """The dialler's first frame.

    ``session`` is b'' for a new session or the 16 bytes of the one to resume; ``received`` counts the frames
    of that session which arrived here. ``process`` is the dialler's identity (:mod:`ipmpi.processid`), if known.
    ``key`` names the secret (:mod:`ipmpi.protocol.furlkeys`), as there may be several furls for a role.
    """

    versions: Versions
    software: str
    role: Annotated[str, msgspec.Meta(max_length=32)]
    nonce: Key
    proof: Key
    session: Annotated[bytes, msgspec.Meta(max_length=16)] = b""
    received: Count = 0
    process: Process = ""
    key: Annotated[bytes, msgspec.Meta(max_length=KEY_BYTES)] = b""


class Welcome(msgspec.Struct, frozen=True, tag_field="kind", tag="welcome"):
    """The controller's answer to a Hello whose proof is right; ``session`` has 16 bytes. ``process``: as there.

    ``journalled``: the session is in the controller's journal. If it is the one that was asked for, and is not
    ``resumed``, a controller that was started again has found it there: it goes on, and its frames count from 0.
    """

    version: Count
    software: str
    nonce: Key
    proof: Key
    session: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    received: Count = 0
    resumed: bool = False
    process: Process = ""
    journalled: bool = False


class Refusal(msgspec.Struct, frozen=True, tag_field="kind", tag="refusal"):
    """The answer to a right Hello that cannot be served: code 'version', 'busy', 'stopping' or 'ended', and why.

    'ended' means that this furl is not good any more, or not for this peer.

    A reader treats a code that it does not know like 'busy': show the sentence, perhaps try again later.
    """

    code: str
    sentence: str
    software: str = ""
    versions: Versions = []


_encoder = msgspec.msgpack.Encoder()
_hello_decoder: msgspec.msgpack.Decoder[Hello] = msgspec.msgpack.Decoder(Hello)
_answer_decoder: msgspec.msgpack.Decoder[Welcome | Refusal] = msgspec.msgpack.Decoder(Welcome | Refusal)


class HandshakeState(enum.Enum):
    """How far one end has come."""

    START = "start"
    WAITING = "waiting for the other end"
    PROVEN = "the proof was right, an answer is due"
    UNSUITED = "the proof was right, no version in common: a refusal is due"
    WELCOMED = "done"
    REFUSED = "refused"
    FAILED = "failed"


class _Event(enum.Enum):
    HELLO_SENT = "hello()"
    HELLO = "Hello received"
    NO_COMMON_VERSION = "Hello received, no version in common"
    WELCOME = "Welcome"
    REFUSAL = "Refusal"
    INPUT = "receive()"


_DIALLER: Final[Mapping[tuple[HandshakeState, _Event], HandshakeState]] = {
    (HandshakeState.START, _Event.HELLO_SENT): HandshakeState.WAITING,
    (HandshakeState.WAITING, _Event.INPUT): HandshakeState.WAITING,
    (HandshakeState.WAITING, _Event.WELCOME): HandshakeState.WELCOMED,
    (HandshakeState.WAITING, _Event.REFUSAL): HandshakeState.REFUSED,
}

_LISTENER: Final[Mapping[tuple[HandshakeState, _Event], HandshakeState]] = {
    (HandshakeState.WAITING, _Event.INPUT): HandshakeState.WAITING,
    (HandshakeState.WAITING, _Event.HELLO): HandshakeState.PROVEN,
    (HandshakeState.WAITING, _Event.NO_COMMON_VERSION): HandshakeState.UNSUITED,
    (HandshakeState.PROVEN, _Event.WELCOME): HandshakeState.WELCOMED,
    (HandshakeState.PROVEN, _Event.REFUSAL): HandshakeState.REFUSED,
    (HandshakeState.UNSUITED, _Event.REFUSAL): HandshakeState.REFUSED,
}


def _next(
    table: Mapping[tuple[HandshakeState, _Event], HandshakeState], state: HandshakeState, event: _Event
) -> HandshakeState:
    following = table.get((state, event))
    if following is None:
        raise LocalProtocolError(f"{event.value} is not possible in the handshake's state '{state.value}'")
    return following


# --- framing -------------------------------------------------------------------------------------------

_Answer = TypeVar("_Answer")


def _frame(message: Hello | Welcome | Refusal) -> bytes:
    payload = _encoder.encode(message)
    if len(payload) > _LARGEST:
        raise LocalProtocolError(f"a handshake frame of {len(payload)} bytes: {_LARGEST} is the limit")
    return MAGIC + len(payload).to_bytes(2, "big") + payload


class _FrameReader:
    """Collects one frame; what came after it is in ``leftover``."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.leftover = b""

    def receive(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """The frame's payload once it is complete; RemoteProtocolError for anything that is no frame."""
        self._data += data
        if not MAGIC.startswith(self._data[: len(MAGIC)]):
            raise RemoteProtocolError(
                f"the other end does not speak ipmpi: its first bytes are {bytes(self._data[:8])!r}"
            )
        if len(self._data) < _PREFIX:
            return None
        length = int.from_bytes(self._data[len(MAGIC) : _PREFIX], "big")
        if length > _LARGEST:
            raise RemoteProtocolError(f"a handshake frame of {length} bytes, more than {_LARGEST}")
        if len(self._data) < _PREFIX + length:
            return None
        payload = bytes(self._data[_PREFIX : _PREFIX + length])
        self.leftover = bytes(self._data[_PREFIX + length :])
        self._data.clear()
        return payload


def _decode(decoder: msgspec.msgpack.Decoder[_Answer], payload: bytes) -> _Answer:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"a handshake frame that cannot be understood: {error}") from None


def printable(text: str, limit: int = _SENTENCE_CHARACTERS) -> str:
    """Text of a peer as it may go to a terminal or a log: control characters replaced, length bounded."""
    return "".join(character if character.isprintable() else "?" for character in text[:limit])


def printable_lines(text: str) -> str:
    """The same for a text of several lines, of any length."""
    kept = text.replace("\r\n", "\n")
    return "".join(character if character.isprintable() or character in "\n\t" else "?" for character in kept)


def _dialler_proof(secret: bytes, exporter: bytes, role: str, nonce: bytes) -> bytes:
    # Unambiguous without lengths: all but the role have fixed sizes.
    return hmac.digest(secret, _DIALLER_LABEL + exporter + role.encode() + nonce, "sha256")


def _controller_proof(secret: bytes, exporter: bytes, role: str, dialler_nonce: bytes, nonce: bytes) -> bytes:
    return hmac.digest(secret, _CONTROLLER_LABEL + exporter + role.encode() + dialler_nonce + nonce, "sha256")


def _check_exporter(exporter: bytes) -> None:
    if len(exporter) != 32:
        raise LocalProtocolError(f"the TLS exporter gives 32 bytes, not {len(exporter)}")


def _names(versions: Sequence[int]) -> str:
    return " or ".join(str(version) for version in sorted(versions)[-8:]) or "none"


# --- the two ends --------------------------------------------------------------------------------------


class DiallerHandshake:
    """The end that dialled: says Hello, checks the answer.

    Send :meth:`hello`, feed what arrives to :meth:`receive` until it answers; call :meth:`closed` if the
    connection ends before that.
    """

    def __init__(
        self,
        role: str,
        secret: bytes,
        exporter: bytes,
        software: str,
        versions: Sequence[int] = VERSIONS,
        session: bytes = b"",
        received: int = 0,
        process: str = "",
    ) -> None:
        _check_exporter(exporter)
        self._role, self._secret, self._exporter = role, secret, exporter
        self._software, self._versions = printable(software, _SOFTWARE_CHARACTERS), list(versions)
        self._session, self._received, self._process = session, received, process
        self._nonce = random_source.token_bytes(_NONCE_BYTES)
        self._reader = _FrameReader()
        self._state = HandshakeState.START

    @property
    def leftover(self) -> bytes:
        """What arrived behind the answer: the first bytes of the link itself."""
        return self._reader.leftover

    def hello(self) -> bytes:
        """The first frame, to be sent once."""
        self._state = _next(_DIALLER, self._state, _Event.HELLO_SENT)
        proof = _dialler_proof(self._secret, self._exporter, self._role, self._nonce)
        return _frame(
            Hello(
                self._versions, self._software, self._role, self._nonce, proof, self._session, self._received,
                self._process, key_of(self._secret),
            )
        )  # fmt: skip

    def receive(self, data: bytes | bytearray | memoryview) -> Welcome | Refusal | None:
        """The controller's answer, or None while it is incomplete.

        A Refusal that is returned has another code than 'version': its sentence tells the user what to do.

        Raises:
            VersionError: the two releases do not fit; says which to upgrade.
            FurlEnded: the furl has ended; the controller says why.
            SecurityError: the controller could not prove that it knows the secret.
            RemoteProtocolError: what arrived is no answer.
        """
        self._state = _next(_DIALLER, self._state, _Event.INPUT)
        try:
            payload = self._reader.receive(data)
            if payload is None:
                return None
            answer = _decode(_answer_decoder, payload)
            if isinstance(answer, Refusal):
                self._state = _next(_DIALLER, self._state, _Event.REFUSAL)
                return self._refused(answer)
            self._check_welcome(answer)
        except (RemoteProtocolError, SecurityError):
            self._state = HandshakeState.FAILED
            raise
        self._state = _next(_DIALLER, self._state, _Event.WELCOME)
        return answer

    def closed(self) -> NoReturn:
        """Raise SecurityError: the controller closed the connection instead of answering."""
        self._state = HandshakeState.FAILED
        raise SecurityError(
            f"the controller closed the connection without an answer: it does not accept the '{self._role}' furl. "
            "Was the controller started again with new furls? Copy the furl file again from its machine"
        )

    def _check_welcome(self, welcome: Welcome) -> None:
        proof = _controller_proof(self._secret, self._exporter, self._role, self._nonce, welcome.nonce)
        if not hmac.compare_digest(proof, welcome.proof):
            raise SecurityError(
                "the controller could not prove that it knows the secret of this furl: copy the furl file again "
                "from the machine where the controller runs"
            )
        if welcome.version not in self._versions:
            raise RemoteProtocolError(
                f"the controller chose protocol version {welcome.version}, which was not offered "
                f"({_names(self._versions)})"
            )
        if welcome.resumed and welcome.session != self._session:
            raise RemoteProtocolError("the controller resumed another session than the one asked for")

    def _refused(self, refusal: Refusal) -> Refusal:
        if refusal.code == "ended":
            raise FurlEnded(printable(refusal.sentence))
        if refusal.code != "version":
            return Refusal(
                printable(refusal.code, 40),
                printable(refusal.sentence),
                printable(refusal.software, _SOFTWARE_CHARACTERS),
                refusal.versions,
            )
        theirs = printable(refusal.software, _SOFTWARE_CHARACTERS) or "another release of ipmpi"
        here_is_older = max(refusal.versions, default=0) > max(self._versions, default=0)
        raise VersionError(
            f"the controller runs {theirs} (protocol {_names(refusal.versions)}), here is {self._software} "
            f"(protocol {_names(self._versions)}): they cannot talk to each other. Upgrade ipmpi "
            + ("here" if here_is_older else "on the controller's machine and start the controller again")
        )


class ListenerHandshake:
    """The controller's end: checks the Hello, then answers it with :meth:`welcome` or :meth:`refuse`.

    ``secrets`` maps each role to its 32 bytes; ``given`` returns the secret of a furl that was given out, by its
    role and key, or None. On any error of :meth:`receive` but VersionError, close the connection and send nothing.
    """

    def __init__(
        self,
        exporter: bytes,
        secrets: Mapping[str, bytes],
        software: str,
        versions: Sequence[int] = VERSIONS,
        given: Callable[[str, bytes], bytes | None] = lambda _role, _key: None,
    ) -> None:
        _check_exporter(exporter)
        self._exporter, self._secrets, self._given = exporter, secrets, given
        self._software, self._versions = printable(software, _SOFTWARE_CHARACTERS), list(versions)
        self._reader = _FrameReader()
        self._state = HandshakeState.WAITING
        self._hello: Hello | None = None
        self._secret = b""
        self._version: int | None = None

    @property
    def leftover(self) -> bytes:
        """What arrived behind the Hello."""
        return self._reader.leftover

    @property
    def version(self) -> int:
        """The highest version both ends speak; only after :meth:`receive` gave a Hello."""
        if self._version is None:
            raise LocalProtocolError("no version is agreed on before a Hello was received")
        return self._version

    def receive(self, data: bytes | bytearray | memoryview) -> Hello | None:
        """The Hello, its proof verified, or None while it is incomplete.

        Raises:
            SecurityError: the proof is wrong or the role unknown; close, without an answer.
            RemoteProtocolError: no Hello; close, without an answer.
            VersionError: the proof is right, but there is no version in common:
                ``refuse('version', str(error))``, then close.
        """
        self._state = _next(_LISTENER, self._state, _Event.INPUT)
        try:
            payload = self._reader.receive(data)
            if payload is None:
                return None
            hello = _decode(_hello_decoder, payload)
            self._check_proof(hello)
            if len(hello.session) not in (0, 16):
                raise RemoteProtocolError(f"a session id of {len(hello.session)} bytes: it has 16, or none")
        except (RemoteProtocolError, SecurityError):
            self._state = HandshakeState.FAILED
            raise
        self._hello = hello
        common = set(hello.versions) & set(self._versions)
        if not common:
            self._state = _next(_LISTENER, self._state, _Event.NO_COMMON_VERSION)
            raise VersionError(
                f"a peer with the '{hello.role}' furl runs {printable(hello.software, _SOFTWARE_CHARACTERS)} "
                f"(protocol {_names(hello.versions)}), this controller {self._software} "
                f"(protocol {_names(self._versions)}): upgrade ipmpi on the older side"
            )
        self._state = _next(_LISTENER, self._state, _Event.HELLO)
        self._version = max(common)
        return hello

    def _check_proof(self, hello: Hello) -> None:
        secret = self._given(hello.role, hello.key) or self._secrets.get(hello.role)
        # A role that does not exist costs the same time; its dummy secret is new each time and never matches.
        known = secret is not None
        secret = random_source.token_bytes(32) if secret is None else secret
        proof = _dialler_proof(secret, self._exporter, hello.role, hello.nonce)
        if not (hmac.compare_digest(proof, hello.proof) & known):
            raise SecurityError(
                f"a peer that asked for the role {printable(hello.role, 32)!r} does not have its secret: "
                "an old furl file, one of another role, or somebody guessing"
            )
        self._secret = secret

    def welcome(
        self, session: bytes, received: int, resumed: bool, process: str = "", journalled: bool = False
    ) -> bytes:
        """The frame that accepts the peer.

        Args:
            session: the 16 bytes of the session's id.
            received: frames of that session which arrived at the controller.
            resumed: False for a new session, also where the peer asked for one that is gone.
            process: the controller's identity.
            journalled: whether the session is in a journal.
        """
        state = _next(_LISTENER, self._state, _Event.WELCOME)
        hello = self._hello
        assert hello is not None
        if len(session) != 16:
            raise LocalProtocolError(f"a session id has 16 bytes, not {len(session)}")
        nonce = random_source.token_bytes(_NONCE_BYTES)
        proof = _controller_proof(self._secret, self._exporter, hello.role, hello.nonce, nonce)
        frame = _frame(
            Welcome(
                self.version, self._software, nonce, proof, session, received, resumed, process, journalled
            )
        )  # fmt: skip
        self._state = state
        return frame

    def refuse(self, code: str, sentence: str) -> bytes:
        """The frame that turns a peer with the right secret away: a code of :class:`Refusal`, and why."""
        self._state = _next(_LISTENER, self._state, _Event.REFUSAL)
        return _frame(Refusal(code, printable(sentence), self._software, self._versions))
