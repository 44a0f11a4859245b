"""What is said about commands after a controller with a journal was killed and started again.

Commands are not in the journal. Each client sends again those that it has no answers to, and each engine set says
which commands its ranks were given, and sends the answers again that their clients may not have. The controller
puts both together: what a rank was given is never given to it twice.
"""

from __future__ import annotations

from msgspec import field

from ..ids import IdList
from .basemessage import Message

# --- client to controller ---------------------------------------------------------------------------------


class CommandAgain(Message, frozen=True, tag=130):
    """A command that has not ended for this client, as in Command, in the order in which they were sent.

    ``engines``: its engines, or None if they are not known here; ``lacks``: those that have not answered.
    ``cleared``: engines that have failed since, in a command sent before, so that this one must not begin there.
    """

    id: int
    targets: IdList | None
    method: str
    label: str
    operation: bytes
    sizes: list[int] = field(default_factory=list)
    one_idle: bool = False
    below: int = 0
    engines: IdList | None = None
    lacks: IdList = field(default_factory=list)
    cleared: IdList = field(default_factory=list)


class CommandsTold(Message, frozen=True, tag=131):
    """All commands that have not ended for this client were sent again."""


# --- engine set to controller -----------------------------------------------------------------------------


class CommandsHeld(Message, frozen=True, tag=132):
    """A command that ranks of this set were given; its answers follow, unless ``is_last``.

    ``id``, ``client``, ``number``, ``method`` and ``engines`` are those of Dispatch. ``running``: ranks that have
    not answered. ``ended``: ranks whose answers follow. ``lost``: those whose answers were large, or too many to
    keep. ``is_last``: there are no others, and all other fields mean nothing but ``forgotten``: for each client
    the number up to which it is not known any more which commands ranks were given.
    """

    id: int = 0
    client: int = 0
    number: int = 0
    method: str = ""
    engines: int = 0
    running: IdList = field(default_factory=list)
    ended: IdList = field(default_factory=list)
    lost: IdList = field(default_factory=list)
    is_last: bool = False
    forgotten: list[tuple[int, int]] = field(default_factory=list)


CommandRecoveryMessage = CommandAgain | CommandsTold | CommandsHeld
