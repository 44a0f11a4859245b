"""What debuggers on ranks say to the clients whose commands they are in, and what these answer."""

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
