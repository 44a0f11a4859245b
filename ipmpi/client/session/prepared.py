"""Messages that are encoded in the caller's thread."""

from __future__ import annotations

from ... import limits
from ...errors import ClientError, LocalProtocolError
from ...protocol.connection import Prepared, prepare
from ...protocol.messages import AnyMessage


def prepared_here(message: AnyMessage, inline: int = 0) -> Prepared:
    """Encode a message, so that errors are raised in the caller's thread.

    Raises:
        ClientError: it cannot be encoded, or is too large.
    """
    try:
        return prepare(message, inline)
    except LocalProtocolError as error:
        raise ClientError(f"this call was not sent: {error}") from None


def check_text(operation: bytes, method: str) -> None:
    """Refuse an encoded operation that is too long; raises ClientError."""
    if len(operation) > limits.MESSAGE - limits.INLINE_BODY - 64 * limits.KIB:
        raise ClientError(
            f"the text of this {method} has {len(operation)} bytes: push() large data, and use it by name"
        )
