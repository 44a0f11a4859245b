"""What the agents of a program say to each other, so that all its ranks stop at the same step; and watches.

A *tick* is the place in the loop of a program where its ranks hear their agents; ranks count their ticks from 0.
"""

from __future__ import annotations

from typing import Final

from .basemessage import Message

REDUCTIONS: Final = ("max", "min", "sum", "mean")
"""What may become of a watched value on all ranks."""

PUBLISHED_NAME: Final = 255
"""Characters of the name of a published value."""

MOST_STEPS: Final = 1 << 40
"""More than any program makes."""


class HoldRanks(Message, frozen=True, tag=100):
    """Have ranks hold at their next tick. Down the tree; answered by :class:`CanStopAt`.

    ``round`` numbers the agreements of a set.
    """

    round: int


class CanStopAt(Message, frozen=True, tag=101):
    """No rank of this branch has passed tick ``step``, and all of them can hold there. Up the tree."""

    round: int
    step: int


class StopAt(Message, frozen=True, tag=102):
    """Let all ranks of the set go on to tick ``step``, and hold there. Answered by :class:`AllHold`."""

    round: int
    step: int


class AllHold(Message, frozen=True, tag=103):
    """All ranks of this branch hold at the agreed tick, or have ended. Up the tree."""

    round: int


class GoOn(Message, frozen=True, tag=104):
    """Let ranks go on with their program: the round is over. ``resume``: also those that were paused.

    ``words`` say why, if nobody has asked for that.
    """

    round: int
    resume: bool = False
    words: str = ""


class CannotHold(Message, frozen=True, tag=105):
    """A rank of this branch does not come to the agreed tick; ``words`` say which one, and where it is."""

    round: int
    words: str


# --- watches of clients --------------------------------------------------------------------------------------


class Subscribe(Message, frozen=True, tag=110):
    """A client wants what a program tells in a watch; the number was chosen by chance. Answer: None."""

    id: int
    watch: int


class Unsubscribe(Message, frozen=True, tag=111):
    """It does not want that any more. Answer: None."""

    id: int
    watch: int


class Watched(Message, frozen=True, tag=112):
    """Values that were watched, and their steps. To the controller, and from it to those who have subscribed.

    The answer to :class:`BeginWatch` has none: the watch has begun, or ``problem`` says why it cannot.
    """

    watch: int
    steps: list[int]
    values: list[float]
    problem: str = ""


class Unwatch(Message, frozen=True, tag=113):
    """Nobody wants what is told in this watch. From the controller to a program."""

    watch: int


class WatchPublished(Message, frozen=True, tag=114):
    """A monitor wants to hear of a value that the program of this engine has published. Answer: None.

    Then comes :class:`Watched`, until :class:`Unsubscribe`. ``watch`` is a number chosen by chance; for ``name``,
    ``every`` and ``reduce`` see :class:`~ipmpi.protocol.operations.Watch`.
    """

    id: int
    engine: int
    watch: int
    name: str
    every: int = 1
    reduce: str = ""


class BeginWatch(Message, frozen=True, tag=115):
    """Begin a watch for a monitor. From the controller to a program."""

    watch: int
    name: str
    every: int
    reduce: str
