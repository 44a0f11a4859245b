"""What a journal has of clients: groups of tasks, and what clients say when they come back (no I/O)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Kept(NamedTuple):
    """A group that is in the journal."""

    serial: int
    client: int
    number: int
    functions: Sequence[bytes]


@dataclass
class KeptClient:
    """The groups of one client that are in the journal."""

    groups: dict[int, Kept] = field(default_factory=dict)
    """By the client's number."""
    records: deque[int] = field(default_factory=deque)
    """Serials of groups whose results it has."""


@dataclass
class Return:
    """What a client that comes back has said: groups that it lacks results of, and that it has sent (again)."""

    listed: set[int] = field(default_factory=set)
    resent: set[int] = field(default_factory=set)
