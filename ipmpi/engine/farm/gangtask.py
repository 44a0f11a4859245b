"""A task that several ranks run together, waiting or running (no I/O)."""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol import messages as m, packed
from ...protocol.frames import Buffer
from .chunks import GroupShare
from .communicators import Ranks
from .effects import Up


class GangTask:
    """One task, waiting or running.

    Attributes:
        ranks: in the order of its communicator; the first is the root.
        awaited: ranks whose part has not ended.
        asked: ranks that wait for its body.
        report: the message about its failure; ``echo``: the less informative one about a rank that failed because
            of another one.
        leaving: its ranks have been told to leave it.
    """

    __slots__ = (
        "arrival",
        "asked",
        "awaited",
        "began",
        "body",
        "busy",
        "echo",
        "group",
        "index",
        "large",
        "leaving",
        "ranks",
        "report",
        "sizes",
    )

    def __init__(
        self, group: GroupShare, index: int, arrival: int, large: bool, sizes: list[int], body: Sequence[Buffer]
    ) -> None:
        self.group = group
        self.index = index
        self.arrival = arrival
        self.large = large
        self.sizes = sizes
        self.body = body
        self.ranks: Ranks = ()
        self.awaited: set[int] = set()
        self.asked: set[int] = set()
        self.began = 0.0
        self.busy = 0.0
        self.report: Up | None = None
        self.echo: Up | None = None
        self.leaving = False

    @property
    def has_failed(self) -> bool:
        """Whether a part has failed."""
        return self.report is not None or self.echo is not None

    def expected_end(self, now: float) -> float:
        """Return the estimated time of its end."""
        passed, seconds = now - self.began, self.group.runtime.seconds
        return now + (passed if seconds is None or seconds < passed else seconds - passed)

    def returned(self, rank: int, why: str, text: str = "") -> Up:
        """Return the message that it was not completed."""
        return Up(m.TasksReturned(self.group.serial, packed.pack([self.index]), rank, why, text))
