"""Frames: what a byte stream is cut into (sans-IO).

Every frame begins with twelve bytes, big-endian: payload length (u32), kind (u8), three zero bytes and a
stream number (u32). Stream numbers are given by the side that sends the stream; 0 means none.

A MESSAGE payload is a u32 header length, the msgpack header and the inline body. A CHUNK payload is bulk data
of its stream. CREDIT (u64 bytes) and REFUSE (empty) are about a stream that their receiver sends; ABORT
(empty) is about one that their sender sends. ACK carries the number of frames received so far (u64).
PING and PONG are empty.

FILES (empty) allows the sender of a stream to hand over files in memory where the link carries them; FILE stands
for so many bytes (u64) of its stream, which are in the file that comes with it.

PASSED stands for so many bytes of its stream that go by a bulk lane: its number, the number of the body there,
and how many (u64 each).

MESSAGE, CHUNK, CREDIT, REFUSE, ABORT, FILES, FILE and PASSED are *numbered*: both ends count them, which is all
that a resumed session needs. ACK, PING and PONG belong to one link and are not.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence

from .. import limits
from ..errors import RemoteProtocolError

Buffer = bytes | bytearray | memoryview

PREFIX = struct.Struct("!IBxxxI")
HEADER_LENGTH = struct.Struct("!I")
COUNT = struct.Struct("!Q")
PASSED = struct.Struct("!QQQ")


class FrameKind(enum.IntEnum):
    """The kinds of frame."""

    MESSAGE = 1
    CHUNK = 2
    CREDIT = 3
    REFUSE = 4
    ABORT = 5
    ACK = 6
    PING = 7
    PONG = 8
    FILES = 9
    FILE = 10
    PASSED = 11


NUMBERED = frozenset(FrameKind) - {FrameKind.ACK, FrameKind.PING, FrameKind.PONG}

# Exact length, or the largest one allowed, of each kind's payload.
EXACT = {
    FrameKind.CREDIT: 8,
    FrameKind.REFUSE: 0,
    FrameKind.ABORT: 0,
    FrameKind.ACK: 8,
    FrameKind.PING: 0,
    FrameKind.PONG: 0,
    FrameKind.FILES: 0,
    FrameKind.FILE: 8,
    FrameKind.PASSED: 24,
}
LARGEST = {FrameKind.MESSAGE: limits.MESSAGE, FrameKind.CHUNK: limits.CHUNK}

_KINDS = {int(kind): kind for kind in FrameKind}


def size_of(buffers: Sequence[Buffer]) -> int:
    """Bytes in a list of buffers (``len`` of a memoryview counts items, not bytes)."""
    size = 0
    for buffer in buffers:  # a plain loop: this is called several times for every message
        size += buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)
    return size


def split(view: memoryview, lengths: Sequence[int]) -> list[Buffer]:
    """Views of consecutive parts."""
    parts: list[Buffer] = []
    at = 0
    for length in lengths:
        parts.append(view[at : at + length])
        at += length
    return parts


def prefix(kind: FrameKind, length: int, stream: int = 0) -> bytes:
    """The twelve bytes before a payload."""
    return PREFIX.pack(length, kind, stream)


def parse_prefix(data: Buffer) -> tuple[FrameKind, int, int]:
    """Kind, payload length and stream; raises RemoteProtocolError for what no peer of ours sends."""
    length, number, stream = PREFIX.unpack(data)
    kind = _KINDS.get(number)
    if kind is None or data[5] or data[6] or data[7]:
        raise RemoteProtocolError(
            f"a frame of unknown kind {number}: the peer does not speak ipmpi's protocol, or something else "
            "writes into this stream"
        )
    exact = EXACT.get(kind)
    if exact is not None:
        if length != exact:
            raise RemoteProtocolError(f"a {kind.name} frame of {length} bytes, where {exact} were expected")
    elif length > LARGEST[kind]:
        raise RemoteProtocolError(f"a {kind.name} frame of {length} bytes; the limit is {LARGEST[kind]}")
    elif kind is FrameKind.CHUNK and (length == 0 or stream == 0):
        raise RemoteProtocolError("an empty CHUNK frame, or one of no stream")
    elif kind is FrameKind.MESSAGE and length < HEADER_LENGTH.size:
        raise RemoteProtocolError(f"a MESSAGE frame of {length} bytes is too short to hold a message")
    return kind, length, stream
