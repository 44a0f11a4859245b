"""What is sent in place of a message that is too large (no I/O)."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import LocalProtocolError
from ..protocol import messages as m, packed
from ..protocol.connection import Connection
from ..protocol.handshake import printable


def send_instead(
    connection: Connection, peer: str, message: m.AnyMessage, error: LocalProtocolError, log: Callable[[str], None]
) -> None:
    """Send an error in place of a reply that does not fit into the client's message, where ids are longer."""
    log(f"not passed on to {peer}: {error}")
    for instead in substitute(message, error):
        connection.send(instead)


def substitute(message: m.AnyMessage, error: LocalProtocolError) -> list[m.AnyMessage]:
    """Return the error that is sent in place of a reply, [] if its receiver does not wait for one."""
    text = f"the reply is too large to be passed on: {error}"
    if isinstance(message, m.Reply):
        return [m.Refused(message.id, "MessageSizeError", text)]
    if isinstance(message, m.Result):
        return [m.Undone(message.id, message.engines, "MessageSizeError", text)]
    if isinstance(message, m.TaskDone):
        return [m.TasksUndone(message.group, packed.pack([message.index]), "MessageSizeError", text)]
    if isinstance(message, m.Undone):
        return [m.Undone(message.id, message.engines, message.error, printable(message.text))]
    return []
