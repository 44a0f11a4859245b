"""The controller's interfaces: each is a role with a furl and a list of permitted messages.

``mec``, ``tc`` and ``monitor`` are built in. A site can add its own: a module-level :class:`Interface`, named to
``ipcontroller --interface package.module:NAME``, gets a furl file of its own and permits a subset of the clients'
messages, restricted further by ``permits``.

    >>> from ipmpi.protocol import messages
    >>> reader = Interface("reader", frozenset({messages.GetIds, messages.Command}),
    ...                    permits=lambda message: getattr(message, "method", "pull") == "pull")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import ControllerStartError
from ..protocol import messages
from ..protocol.permissions import CONTROLLER_RECEIVES, FURLS, LANE_ENDS, RECEIVES, Table

_SAID: Table = frozenset({messages.TasksFetched, messages.TasksOpen, messages.TaskOrigin})
_CLIENTS: Table = CONTROLLER_RECEIVES["mec"] | CONTROLLER_RECEIVES["tc"]


def _everything(message: messages.AnyMessage) -> bool:
    return message is not None


@dataclass(frozen=True)
class Interface:
    """A kind of client.

    Attributes:
        role: its name, which is also in its furl and in the name of its furl file.
        receives: message types that its clients may send.
        permits: called for every message; False refuses it with a SecurityError and keeps the link.
    """

    role: str
    receives: Table
    permits: Callable[[messages.AnyMessage], bool] = field(default=_everything)

    def __post_init__(self) -> None:
        # Every client may say goodbye, and who submits tasks or commands says which results it has, or lacks.
        received: set[type[messages.Message]] = {messages.Goodbye}
        if messages.SubmitTasks in self.receives:
            received |= _SAID
        if messages.Command in self.receives:
            received |= {messages.CommandAgain, messages.CommandsTold, messages.CommandOrigin}
        if received - {messages.Goodbye}:
            received |= LANE_ENDS
        object.__setattr__(self, "receives", self.receives | received)
        excess = self.receives - _CLIENTS - CONTROLLER_RECEIVES["monitor"]
        if self.role != "mec":
            excess |= self.receives & FURLS
        if excess:
            names = ", ".join(sorted(kind.__name__ for kind in excess))
            raise ControllerStartError(
                f"interface {self.role!r} may not receive {names}: these are not client messages"
            )


CLIENT_INTERFACES = tuple(Interface(role, CONTROLLER_RECEIVES[role]) for role in ("mec", "tc", "monitor"))

CLIENT_RECEIVES: Table = RECEIVES["mec"] | RECEIVES["tc"]
"""Messages that any client may receive."""
