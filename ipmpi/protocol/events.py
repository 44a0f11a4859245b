"""What a connection tells of what has arrived."""

from __future__ import annotations

from typing import NamedTuple

from .messages import AnyMessage
from .streams import BodyFile, LanePart


class MessageReceived(NamedTuple):
    """A message. Its body is complete in ``body``, or will come as stream ``stream`` once credit is given."""

    message: AnyMessage
    body: list[memoryview]
    stream: int


class DataReceived(NamedTuple):
    """The next piece of a stream, a file with it, or how much comes by a lane; ``last`` with its end."""

    stream: int
    data: memoryview | BodyFile | LanePart
    last: bool


class StreamAborted(NamedTuple):
    """The rest of a stream will not come.

    Its sender has given it up; or, with a ``reason``, bytes of it were lost here, of which nobody else knows.
    ``was_refused``: this end had refused it, and only its lanes need to know.
    """

    stream: int
    reason: str = ""
    was_refused: bool = False


class CreditReceived(NamedTuple):
    """The peer can take more of a stream of ours."""

    stream: int


class StreamRefused(NamedTuple):
    """The peer does not want (the rest of) a stream of ours."""

    stream: int


Event = MessageReceived | DataReceived | StreamAborted | CreditReceived | StreamRefused
