"""Results of which only the clients that have them are known to have them (no I/O).

A result is passed on before it is written. If the controller is killed in between, the client tells the next one
that it has it. Then the journal gets an end without a result, so that the task does not run again, whoever goes
away next; and the result itself when the engine set tells it again, for others who may ask for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from ..protocol import messages as m, packed
from ..protocol.frames import Buffer
from .bundle import BundleGroup
from .farm.recovery import Ends, ends_in, only

_NOBODY: Final = -1

_LOST: Final = (
    "the result of this task was given to the client that had submitted it, and is not kept: submit with name= to "
    "find results again that a client has had"
)
_SHED: Final = (
    "the result of this task was given to the client that had submitted it. It is not kept, as the bundle has "
    "more results than the controller keeps: see --keep-bytes of ipcontroller"
)
_KILLED: Final = (
    "the result of this task was given to the client that had submitted it, and is not kept: the controller was "
    "killed before it had written it, and the engine set that had it is gone, or it was large"
)


def without_results(number: int, indices: Iterable[int]) -> m.TasksDone:
    """Return what the journal has of tasks that have succeeded, and whose results it does not have."""
    return m.TasksDone(number, _NOBODY, packed.pack(indices), b"", b"")


def has_results(message: Ends) -> bool:
    """Return whether this is not one of :func:`without_results`."""
    return not isinstance(message, m.TasksDone) or bool(message.lengths)


def why_lost(group: BundleGroup | None) -> str:
    """Return why a result of a group is not kept that its client has had."""
    if group is not None and group.is_shed:
        return _SHED
    return _KILLED if group is not None and group.bundle.is_named else _LOST


class ClientResults:
    """The results of this kind that engine sets may still tell, by the serials of their groups."""

    def __init__(self) -> None:
        self._awaited: dict[int, dict[int, int]] = {}
        """By serial and index: the key of the set that has said that it has it; 0: of any that may come back."""

    def __bool__(self) -> bool:
        return bool(self._awaited)

    def __contains__(self, serial: object) -> bool:
        return serial in self._awaited

    def add(self, serial: int, tasks: Iterable[tuple[int, int]]) -> None:
        """A client has the results of these tasks: indices, and the key of the set that has each, or 0."""
        self._awaited.setdefault(serial, {}).update(tasks)

    def restored(self, serial: int, ends: Collection[Ends]) -> None:
        """These ends of a group were in the journal."""
        had = {index for end in ends if not has_results(end) for index in ends_in(end)}
        for end in ends if had else ():
            if has_results(end):
                had.difference_update(ends_in(end))
        if had:
            self.add(serial, [(index, 0) for index in had])

    def held(self, key: int, serial: int, indices: Iterable[int]) -> None:
        """A set that has come back tells results of these tasks soon."""
        awaited = self._awaited.get(serial, {})
        awaited.update((index, key) for index in indices if index in awaited)

    def take(self, message: m.TaskResults, body: bytes, engine: int) -> list[tuple[Ends, list[Buffer]]]:
        """A set tells results: return what is told of those that are awaited, with the group's number left out."""
        failed = set(packed.unpack(message.failed))  # not what a client has had: failures are written first
        indices = [index for at, index in enumerate(packed.unpack(message.indices)) if at not in failed]
        wanted = self._arrived(message.group, indices)
        done = m.TasksDone(0, engine, message.indices, message.failed, message.lengths, message.sizes)
        return only(done, body, wanted)

    def _arrived(self, serial: int, indices: Iterable[int]) -> set[int]:
        """Wait no longer for these; return which of them were awaited."""
        awaited = self._awaited.get(serial, {})
        found = {index for index in indices if awaited.pop(index, None) is not None}
        if not awaited:
            self.drop(serial)
        return found

    def lost(self, key: int) -> list[tuple[int, list[int]]]:
        """A set is lost, or (0) no others come back; return serials and indices of what nobody tells any more."""
        found = []
        for serial, awaited in list(self._awaited.items()):
            indices = sorted(index for index, known in awaited.items() if known == key)
            if indices:
                found.append((serial, indices))
                self._arrived(serial, indices)
        return found

    def drop(self, serial: int) -> None:
        """Nothing is kept of a group any more."""
        self._awaited.pop(serial, None)
