"""What debuggers on ranks say to the clients whose commands they are in, and what these answer.

And the bytes of the Debug Adapter Protocol between an editor at a client and debugpy in a rank, which travel
through a *channel*. It has an initial credit of ``limits.DEBUG_WINDOW`` bytes in each direction once it is open.
Nobody between the two ends looks into the bytes.
"""

from __future__ import annotations

from typing import Final

from ..ids import IdList
from .basemessage import Message

TEXT: Final = 0
"""The debugger has written something, and goes on."""
PROMPT: Final = 1
"""It waits for a line."""
STEPS: Final = 2
"""User code runs on, and is to stop again soon."""
LEFT: Final = 3
"""User code runs on, up to a breakpoint or its end."""


class DebuggerSaid(Message, frozen=True, tag=78):
    """A debugger in command ``id`` has written ``text``; after the output of that rank, before its Result.

    ``state`` is one of :data:`TEXT`, :data:`PROMPT`, :data:`STEPS`, :data:`LEFT`. ``place`` is where user code has
    stopped, for people. From an engine set ``engine`` is a rank, to a client an id.
    """

    id: int
    engine: int
    state: int
    text: str = ""
    prompt: str = ""
    place: str = ""


class DebuggerLine(Message, frozen=True, tag=18):
    """A line for the debuggers of these engines, which wait for one in this client's command ``command``.

    "" is the end of input. None: nobody is there to ask, so user code shall go on. Ignored where no debugger waits
    in this command. To a set, ``engines`` are ranks, and 0 stands for any command.
    """

    command: int
    engines: IdList
    text: str | None


class DebugOpen(Message, frozen=True, tag=81):
    """Attach debugpy to this engine. Answered by :class:`DebugOpened`, or :class:`DebugClosed` with the reason.

    ``channel`` is a number of the client's, to a set one of the controller's; there, ``engine`` is a rank. So it
    is in all messages of channels.
    """

    channel: int
    engine: int


class DebugOpened(Message, frozen=True, tag=82):
    """Debugpy is attached, and ``folder`` is the current one of its process."""

    channel: int
    engine: int
    folder: str


class DebugBytes(Message, frozen=True, tag=83):
    """The next bytes, in either direction; at most ``limits.DEBUG_PIECE``."""

    channel: int
    engine: int
    data: bytes


class DebugCredit(Message, frozen=True, tag=84):
    """So many bytes have been taken by whoever they are for, and as many more may be sent; in either direction."""

    channel: int
    engine: int
    size: int


class DebugClosed(Message, frozen=True, tag=85):
    """The channel is closed, and debugpy is detached: breakpoints are gone, and the engine goes on.

    In either direction; ``reason`` is for people, "" if the client wanted it.
    """

    channel: int
    engine: int
    reason: str = ""


ChannelMessage = DebugOpen | DebugOpened | DebugBytes | DebugCredit | DebugClosed
