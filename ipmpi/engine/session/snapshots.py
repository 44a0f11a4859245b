"""Snapshots of a namespace: what of it can be saved, and how it is restored (no I/O).

All names are pickled together, so that objects which belong together still do after they are restored. What cannot
be pickled is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, Protocol

from ipmpi import serialize
from ipmpi.engine.session.texts import shorten
from ipmpi.errors import ClientError, SerializationError
from ipmpi.serialize import Buffer

_REASON = 300
"""Characters of a reason."""


class SnapshotContent(NamedTuple):
    """What a snapshot has.

    Attributes:
        names: the names that were saved.
        left_out: the reasons of the names that could not be, by name.
        segments: the pickled dictionary; see :func:`ipmpi.serialize.dumps`.
    """

    names: list[str]
    left_out: dict[str, str]
    segments: Sequence[Buffer]


class SnapshotPlace(NamedTuple):
    """Where the snapshots of one cluster are.

    Attributes:
        folder: the folder, as the user has named it; "" for one in the user's files.
        cluster: a text that no other cluster has.
    """

    folder: str
    cluster: str


class SnapshotStore(Protocol):
    """Keeps the snapshots of one engine."""

    def save(self, place: SnapshotPlace, key: str, engine: int, content: SnapshotContent) -> dict[str, Any]:
        """Save one under a key; return its ``folder`` and its size in ``bytes``."""

    def saved(self, place: SnapshotPlace, engine: int) -> list[tuple[str, float]]:
        """Return the keys of all that are there, and the times when they were saved."""

    def load(self, place: SnapshotPlace, key: str, engine: int) -> SnapshotContent:
        """Return one."""

    def drop_others(self, place: SnapshotPlace, key: str, engine: int) -> None:
        """Remove all but one."""


class NoStore:
    """Where nothing can be kept: a namespace that is no engine's."""

    def _refuse(self, *_: object) -> NoReturn:
        raise ClientError("there is no place for snapshots here")

    save = saved = load = drop_others = _refuse


def content_of(names: Mapping[str, Any], chosen: Collection[str] | None) -> SnapshotContent:
    """Pickle names.

    Args:
        names: the names of the user.
        chosen: those to save; None for all. One that does not exist is left out, with that reason.
    """
    left_out: dict[str, str] = {}
    values = dict(names)
    if chosen is not None:
        values = {name: names[name] for name in chosen if name in names}
        left_out = {name: "there is no such name" for name in chosen if name not in names}
    try:
        segments = serialize.dumps(values, what="the namespace")
    except SerializationError:
        for name, value in list(values.items()):
            try:
                serialize.dumps(value, what=repr(name))
            except SerializationError as error:
                left_out[name] = shorten(_reason(str(error), name), _REASON)
                del values[name]
        segments = serialize.dumps(values, what="the namespace")
    return SnapshotContent(list(values), left_out, segments)


def _reason(text: str, name: str) -> str:
    """Return the reason alone."""
    reason = text.removeprefix(f"cannot send {name!r}: ").removeprefix("cannot send ")
    return reason.partition("; leave it out")[0]
