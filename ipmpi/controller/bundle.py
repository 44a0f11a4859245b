"""One bundle of tasks and its groups, see :mod:`ipmpi.controller.bundles` (no I/O)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..journal.rows import BundleRow
from ..protocol import messages as m, packed
from ..protocol.namedtasks import UNNAMED


class Origin(NamedTuple):
    """Who submits the tasks of a session, and whether they go on without it if they do not say."""

    host: str = "?"
    user: str = "?"
    detach: bool = True


UNKNOWN: Final = Origin()
"""A client that has not said who it is."""


@dataclass(eq=False)
class BundleGroup:
    """A group of tasks in a bundle.

    Attributes:
        serial, number: the controller's and the client's number of it.
        size: bytes of arguments and results that are kept.
        followers: other clients that are told of its tasks.
        is_open: whether some tasks have not ended everywhere.
        is_fetched: whether its client has said that it has all results.
        is_shed: whether results are not kept any more that its client has had.
        has_unkept: whether its client was sent large results that are not kept.
    """

    __slots__ = (
        *("bundle", "detach", "failed", "followers", "has_unkept", "is_fetched", "is_map", "is_open", "is_shed"),
        *("label", "number", "serial", "size", "succeeded", "tasks"),
    )

    def __init__(self, bundle: Bundle, serial: int, message: m.SubmitTasks, detach: bool) -> None:
        self.bundle = bundle
        self.serial = serial
        self.number = message.id
        self.tasks = packed.count(message.lengths) or 1
        self.label = message.options.label
        self.is_map = message.options.is_map
        self.detach = detach
        self.size = sum(message.sizes) if message.lengths else 0
        self.followers: dict[int, None] | None = None
        self.is_open = True
        self.is_fetched = self.is_shed = self.has_unkept = False
        self.succeeded = self.failed = 0


@dataclass(eq=False)
class Bundle:
    """Groups of one client under one name.

    Attributes:
        number: the serial of its first group.
        holder: the furl that its client has.
        open: number of its groups that have not ended.
        ended: when the last one ended; 0 if some have not.
        succeeded, failed: tasks of groups that were taken out.
        is_written: whether it has a row in the journal.
        is_orphan: whether its client is gone.
    """

    number: int
    client: int
    name: str
    holder: str
    origin: Origin
    submitted: float
    ended: float = 0.0
    groups: dict[int, BundleGroup] = field(default_factory=dict)
    open: int = 0
    size: int = 0
    succeeded: int = 0
    failed: int = 0
    is_written: bool = False
    is_orphan: bool = False

    @property
    def is_named(self) -> bool:
        """Whether its client has given it a name, so that its results are kept while the client is there."""
        return not self.name.startswith(UNNAMED)

    @property
    def is_kept(self) -> bool:
        """Whether its results are kept."""
        return self.is_orphan or self.is_named

    def row(self) -> BundleRow:
        """Return what a journal has of it."""
        host, user, _ = self.origin
        return BundleRow(
            self.number, self.client, self.name, self.holder, host, user, float(self.submitted), float(self.ended)
        )

    def tasks(self) -> tuple[int, int, int]:
        """Return how many tasks there were in groups that are known, and how many succeeded and failed so far.

        Tasks of open groups count as neither.
        """
        groups = list(self.groups.values())
        gone = self.succeeded + self.failed
        return (
            gone + sum(group.tasks for group in groups),
            self.succeeded + sum(group.succeeded for group in groups),
            self.failed + sum(group.failed for group in groups),
        )
