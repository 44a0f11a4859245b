"""Snapshots of namespaces: saving them with the engines, and restoring them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ... import limits
from ...errors import ClientError
from ...protocol import messages, operations
from ...ranges import engines_named, ranges
from ..session import given, replies
from ..session.calls import Calls, label_of
from ..session.session import Submission

if TYPE_CHECKING:
    from ..session.enginereply import EngineReply

_CLUSTER: Final = 16
"""Characters of the name of the folder for one cluster."""

_SHOWN: Final = 5
"""Most names that are shown with the reasons why they were not saved."""

Reasons = dict[str, dict[int, str]]
"""The reasons why names were not saved, by name and engine."""


class Snapshot(NamedTuple):
    """What a snapshot has saved, or what was restored from it.

    Attributes:
        engines: the ids of the engines.
        names: the names that are in it, of all engines.
        left_out: why other names are not, by name and engine.
        bytes: the size of all engines' data together.
        folder: where it is, on the engines' file system.
        key: its name in that folder.
    """

    engines: list[int]
    names: list[str]
    left_out: Reasons
    bytes: int = 0
    folder: str = ""
    key: str = ""

    def __str__(self) -> str:
        size = f", {_size(self.bytes)} in {self.folder}" if self.folder else ""
        return f"snapshot of {engines_named(self.engines)}: {_counted(self.names)}{size}{_left_out(self.left_out)}"

    def __repr__(self) -> str:
        return f"<{self}>"


class Restored(NamedTuple):
    """What was restored from a snapshot.

    Attributes:
        engines: the ids of the engines.
        names: the names that they have again.
        left_out: why other names were not in the snapshot, by name and engine.
        when: when it was taken, in seconds since the epoch.
    """

    engines: list[int]
    names: list[str]
    left_out: Reasons
    when: float

    def __str__(self) -> str:
        taken = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.when))
        return f"{_counted(self.names)} restored from the snapshot of {taken}{_left_out(self.left_out)}"

    def __repr__(self) -> str:
        return f"<{engines_named(self.engines)}: {self}>"


class Snapshots:
    """Takes and restores the snapshots of a client's engines.

    Args:
        calls: sends the commands.
        folder: where they are, on the engines' file system; "" for a folder in the user's files.
    """

    def __init__(self, calls: Calls, folder: str | os.PathLike[str] | None) -> None:
        self._calls = calls
        self._folder = "" if folder is None else os.fspath(given.path(folder, "folder"))
        self._cluster = calls.session.controller_id[:_CLUSTER]

    def take(self, wanted: list[int] | None, names: Sequence[str] | None) -> Snapshot:
        """Take one, and remove older ones when it is complete on all engines."""
        operation = self._taking(names)
        arrived = self._ask(operation, wanted)
        told = {engine: about for engine, about in arrived.items() if about is not None}
        folder = next(iter(told.values()))["folder"] if told else ""
        size = sum(about["bytes"] for about in told.values())
        self._ask(operations.DropSnapshots(self._folder, self._cluster, operation.key), list(told))
        self._restore_after_loss(operation.key, list(told))
        return Snapshot(sorted(told), _names(told), _reasons(told), size, folder, operation.key)

    def _restore_after_loss(self, key: str, engines: list[int]) -> None:
        """Have the controller restore it after restarts that no client has asked for."""
        encoded = operations.encode(operations.RestoreSnapshot(self._folder, self._cluster, key))
        self._calls.request(
            self, lambda i: messages.RestoreAfterLoss(i, engines, encoded), lambda _: None, True, "snapshot"
        )

    def take_before_end(self, wanted: list[int] | None, names: Sequence[str] | None, seconds: float) -> None:
        """Have one taken so many seconds before the end of the job."""
        snapshot = self._taking(names)
        self._ask(operations.BeforeWalltime(os.urandom(16), seconds, "snapshot", snapshot), wanted)

    def _taking(self, names: Sequence[str] | None) -> operations.TakeSnapshot:
        chosen = None if names is None else list(names)
        return operations.TakeSnapshot(self._folder, self._cluster, _new_key(), chosen)

    def restore(self, wanted: list[int] | None) -> Restored | None:
        """Restore the last one that all engines have; return None if there is none."""
        found = self._ask(operations.FindSnapshots(self._folder, self._cluster), wanted)
        times: dict[str, list[float]] = {}
        for keys in found.values():
            for key, when in keys or ():
                times.setdefault(key, []).append(when)
        if not found:  # of no engines at all
            return Restored([], [], {}, time.time())
        whole = {key: max(each) for key, each in times.items() if len(each) == len(found)}
        if not whole:
            return None
        key = max(whole, key=whole.__getitem__)
        restored = self._ask(operations.RestoreSnapshot(self._folder, self._cluster, key), list(found))
        return Restored(sorted(restored), _names(restored), _reasons(restored), whole[key])

    def _ask(self, operation: operations.Operation, wanted: list[int] | None) -> dict[int, Any]:
        """Run it, and return what the engines have answered, by their ids."""
        method = "restore" if isinstance(operation, operations.RestoreSnapshot) else "snapshot"
        if isinstance(operation, operations.BeforeWalltime):
            method = "before_walltime"

        def by_engine(arrived: list[EngineReply]) -> dict[int, Any]:
            values = replies.values(arrived, method)
            return {reply.engine: value for reply, value in zip(arrived, values, strict=True)}

        submission = Submission(operation, wanted, method, label_of(method))
        answered: dict[int, Any] = self._calls.command(self, submission, by_engine, True)
        return answered


def checked_names(names: object) -> list[str] | None:
    """Check and return the names of a snapshot.

    Raises:
        TypeError, ValueError: it is no sequence of strs that can be sent.
    """
    if names is None:
        return None
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, Iterable):
        raise TypeError(f"names must be a str or a sequence of strs, or None for all, not {given.shown(names)}")
    return given.names(names, "a name to save")


def checked_seconds(seconds: object) -> float:
    """Check and return the seconds before the walltime.

    Raises:
        TypeError, ValueError: it is not a positive number.
    """
    needed = given.number(seconds, "before_walltime")
    if not 0 < needed <= limits.LONGEST:
        raise ValueError(
            f"before_walltime must be more than 0 and at most {limits.LONGEST:.0f}, in seconds; not "
            f"{given.shown(seconds)}"
        )
    return needed


def nothing_saved(wanted: list[int] | None) -> ClientError:
    """Return the error that says that there is nothing to restore."""
    which = "these engines have" if wanted is None else f"{engines_named(wanted)} have"
    return ClientError(
        f"{which} no snapshot in common: mec.snapshot() takes one. One in a folder of your own is restored by "
        "mec.restore(folder=...)"
    )


def _new_key() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(4).hex()}"


def _names(told: dict[int, Any]) -> list[str]:
    return list(dict.fromkeys(name for about in told.values() for name in about["names"]))


def _reasons(told: dict[int, Any]) -> Reasons:
    found: Reasons = {}
    for engine, about in told.items():
        for name, reason in about["left_out"].items():
            found.setdefault(name, {})[engine] = reason
    return found


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} name{'s' * (len(names) != 1)}"


def _size(size: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size = round(size / 1000)
    return f"{size:.4g} GB"


def _left_out(reasons: Reasons) -> str:
    if not reasons:
        return ""
    told = [
        f"{name} on [{ranges(sorted(by_engine))}] ({next(iter(by_engine.values()))})"
        for name, by_engine in list(reasons.items())[:_SHOWN]
    ]
    more = f" and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    return f"; not saved: {', '.join(told)}{more}"
