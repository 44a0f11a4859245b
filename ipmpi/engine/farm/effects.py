"""Messages that the scheduler of a set wants to send (no I/O)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...protocol.frames import Buffer
from ...protocol.messages import AnyMessage


class Down(NamedTuple):
    """A message to these ranks."""

    ranks: list[int]
    message: AnyMessage
    body: Sequence[Buffer] = ()


class Up(NamedTuple):
    """A message to the controller."""

    message: AnyMessage
    body: Sequence[Buffer] = ()
