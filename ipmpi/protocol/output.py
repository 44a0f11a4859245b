"""What ranks print and display while they run a command, on its way to the client."""

from __future__ import annotations

from typing import Final

import msgspec

from ..ids import IdList
from .basemessage import Message


class OutputBlock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What some engines have printed alike: whole lines, the last of which may be unfinished, or one display.

    ``kind`` is one of :data:`STDOUT`, :data:`STDERR`, :data:`DISPLAY`. What an engine prints and displays during
    a command is counted from 0, lines of standard error by themselves; ``first`` is the number of the first one
    here. ``data`` is UTF-8 text, or an encoded :class:`~ipmpi.protocol.operations.Display`. From an engine set
    ``engines`` are ranks, to a client ids.
    """

    kind: int
    first: int
    engines: IdList
    data: bytes


STDOUT: Final = 0
STDERR: Final = 1
DISPLAY: Final = 2

METADATA: Final = "application/vnd.ipmpi.metadata+json"
"""Among the formats of a display: metadata about the others, a JSON object by MIME type."""


class Output(Message, frozen=True, tag=57):
    """What was printed and displayed during command ``id``; before the :class:`Result` of the same engines."""

    id: int
    blocks: list[OutputBlock]
