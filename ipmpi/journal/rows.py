"""What a journal keeps, as rows, and what takes them out again (no I/O).

Rows refer to each other by numbers: ``key`` of a session, ``serial`` of a group of tasks. Messages and bodies are
bytes that the journal does not look into.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..errors import JournalDamaged

_ALL: Final = "all"


class SessionRow(NamedTuple):
    """A client's session: its number, the token that resumes it, and its role."""

    key: int
    token: bytes
    role: str


class SetRow(NamedTuple):
    """The session of an engine set."""

    key: int
    token: bytes


class FunctionRow(NamedTuple):
    """A function that groups use, under the hash of its pickle."""

    key: bytes
    data: bytes


class GroupRow(NamedTuple):
    """A group of tasks: the message that submitted it, and the payloads of its tasks.

    ``body`` is None if there are some, which were not read.
    """

    serial: int
    client: int
    number: int
    message: bytes
    body: bytes | None


class EndRow(NamedTuple):
    """Ends of tasks of one group: the message that tells its client, and the results."""

    serial: int
    message: bytes
    body: bytes


class RecordRow(NamedTuple):
    """A group of which the client has all results, kept since later tasks may refer to it: state by task."""

    serial: int
    client: int
    number: int
    label: str
    states: bytes


class OriginRow(NamedTuple):
    """Who submits the tasks of a client's session, with which furl, and whether they go on without it (1).

    ``engines``: ids of those that the tasks may run on, such as "0,1,2"; "all" if they may run on any.
    :func:`engines_text` makes it, and :attr:`only` reads it.
    """

    client: int
    host: str
    user: str
    detach: int
    holder: str
    engines: str

    @property
    def only(self) -> frozenset[int] | None:
        """The engines that the tasks may run on, None for all; raises JournalDamaged."""
        try:
            ids = self.engines.split(",") if self.engines else ()
            return None if self.engines == _ALL else frozenset(map(int, ids))
        except ValueError:
            raise JournalDamaged(
                f"the journal has {self.engines[:40]!r} where numbers of engines must be"
            ) from None


def engines_text(only: Collection[int] | None) -> str:
    """Return the ``engines`` of an :class:`OriginRow`; None for all."""
    return _ALL if only is None else ",".join(map(str, sorted(only)))


class GoneRow(NamedTuple):
    """The client of a session is gone, and its tasks go on."""

    client: int


class BundleRow(NamedTuple):
    """Groups of one client that were submitted under one name.

    ``number`` is the serial of its first group; ``submitted`` and ``ended`` (0: not yet) are seconds since 1970.
    """

    number: int
    client: int
    name: str
    holder: str
    host: str
    user: str
    submitted: float
    ended: float


class DropSession(NamedTuple):
    """Take out a client's session, its origin and its records (groups and bundles are dropped one by one)."""

    key: int


class DropSet(NamedTuple):
    """Take out an engine set."""

    key: int


class DropFunction(NamedTuple):
    """Take out a function."""

    key: bytes


class DropGroup(NamedTuple):
    """Take out a group, with its ends."""

    serial: int


class DropRecord(NamedTuple):
    """Take out the record of a group."""

    serial: int


class DropBundle(NamedTuple):
    """Take out a bundle (its groups are dropped one by one)."""

    number: int


Row = SessionRow | SetRow | FunctionRow | GroupRow | EndRow | RecordRow | OriginRow | GoneRow | BundleRow
Drop = DropSession | DropSet | DropFunction | DropGroup | DropRecord | DropBundle
Change = Row | Drop


@dataclass
class Contents:
    """All that a journal keeps; groups, ends and records in the order in which they were written."""

    sessions: list[SessionRow] = field(default_factory=list)
    sets: list[SetRow] = field(default_factory=list)
    functions: list[FunctionRow] = field(default_factory=list)
    groups: list[GroupRow] = field(default_factory=list)
    ends: list[EndRow] = field(default_factory=list)
    records: list[RecordRow] = field(default_factory=list)
    origins: list[OriginRow] = field(default_factory=list)
    gone: list[GoneRow] = field(default_factory=list)
    bundles: list[BundleRow] = field(default_factory=list)
