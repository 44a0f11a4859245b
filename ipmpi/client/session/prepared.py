"""Messages that are encoded in the thread of whoever calls."""

from __future__ import annotations

from ...errors import ClientError, LocalProtocolError
from ...protocol.connection import Prepared, prepare
from ...protocol.messages import AnyMessage


def prepared_here(message: AnyMessage, inline: int = 0) -> Prepared:
    """A message as it will be sent; whatever is wrong with it is raised in the thread of whoever called.

    Raises:
        ClientError: it cannot be sent.
    """
    try:
        return prepare(message, inline)
    except LocalProtocolError as error:
        raise ClientError(f"this call cannot be sent, and was not: {error}") from None
