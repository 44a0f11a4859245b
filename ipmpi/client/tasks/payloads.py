"""Arguments and results of tasks as bytes: small ones in one piece, large ones as segments."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import msgspec

from ... import errors, limits, serialize
from ...protocol.frames import Buffer, size_of
from ...protocol.packed import unpack_failure
from ..session.failures import marked, rebuild_exception
from ..session.opening import EVERYTHING, Opener

Payload = bytes | list[Buffer]
"""One pickle of up to ``limits.TASK_PAYLOAD`` bytes, or the segments of a larger body."""


def packed(obj: object, what: str) -> Payload:
    """Return the payload of an object, a copy; raises SerializationError if it cannot be sent."""
    segments = serialize.dumps(obj, what=what)
    if size_of(segments) > limits.TASK_PAYLOAD:
        return [bytes(segment) for segment in segments]
    whole = serialize.in_one_piece(segments)
    return whole if len(whole) <= limits.TASK_PAYLOAD else [whole]


def packed_arguments(args: tuple[Any, ...], label: str) -> Payload:
    """As :func:`packed`, for the positional arguments of a function that messages call ``label``."""
    for value in args:
        if type(value) not in serialize.ATOMS:
            return packed(args, f"the arguments of {label}")
    whole = pickle.dumps(args, serialize.PROTOCOL)
    return whole if len(whole) <= limits.TASK_PAYLOAD else [whole]


def packed_rows(rows: Sequence[tuple[Any, ...]], label: str) -> list[Payload]:
    """As :func:`packed_arguments`, for many calls of one function."""
    # Checking column by column takes a tenth of the time of checking each value.
    if not all(serialize.ATOMS.issuperset(map(type, column)) for column in zip(*rows, strict=True)):
        return [packed_arguments(row, label) for row in rows]
    dumps, protocol, most = pickle.dumps, serialize.PROTOCOL, limits.TASK_PAYLOAD
    wholes: list[Payload] = [dumps(row, protocol) for row in rows]
    if max(map(len, wholes), default=0) <= most:
        return wholes
    return [whole if len(whole) <= most else [whole] for whole in wholes]  # type: ignore[list-item]


def value_of(payload: Payload, opener: Opener = EVERYTHING, engine: int | None = None) -> Any:
    """Return the object of a payload of an engine, None if it is empty; raises what its unpickling raises."""
    if isinstance(payload, bytes):
        return opener.loads([payload], engine) if payload else None
    if not payload:
        return None
    stream, *buffers = payload
    # Arrays use the memory of the buffers, and users expect writable arrays.
    return opener.loads([stream, *(bytearray(b) if memoryview(b).readonly else b for b in buffers)], engine)


def is_openable(payload: Payload, opener: Opener) -> bool:
    """Return whether a payload can be opened; one that opens everything is not asked to, as that may run code."""
    if opener.is_open:
        return True
    try:
        value_of(payload, opener)
    except Exception:
        return False
    return True


def failure_of(payload: Buffer, engine: int, opener: Opener = EVERYTHING) -> Exception:
    """Return the exception of a task that failed on ``engine``; see :func:`ipmpi.errors.raisable`."""
    try:
        failed, body = unpack_failure(payload)
    except (ValueError, msgspec.DecodeError) as error:
        return errors.RemoteProtocolError(f"engine {engine} sent a failure that cannot be decoded: {error}")
    raised = errors.raisable(rebuild_exception(failed, body, engine, "run", opener=opener), "the task")
    return marked(raised, engine, "run", (), failed.traceback)


def describe_failure(payload: Payload) -> str:
    """Return a failure as one line of text, without unpickling the exception."""
    try:
        failed, _ = unpack_failure(payload if isinstance(payload, bytes) else b"".join(payload))
    except (ValueError, msgspec.DecodeError):
        return "a failure that cannot be decoded"
    return f"{failed.type_name}: {failed.text}"
