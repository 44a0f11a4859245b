"""What stands between peers and the farm in a controller without a journal (no I/O).

It passes everything on. Results that are kept for clients that may come back are in its memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..ids import Ids
from ..journal.rows import Change, EndRow
from ..protocol import messages as m, packed
from ..protocol.frames import Buffer
from .bundle import BundleGroup
from .effects import Effect, Send
from .farm.answers import numbers
from .farm.farm import Farm
from .farm.recovery import Ends
from .namedtasks import USUAL, Keep, NamedTasks, holder_of


class Session(Protocol):
    """The part of a session that is written."""

    key: int
    token: bytes
    role: str
    former: bytes
    holder: str
    only: frozenset[int] | None


class NoJournal:
    """Passes everything on to the farm.

    Args:
        farm: all tasks.
        keep: what is kept of named tasks, and of those of clients that are gone.
    """

    is_on = False

    def __init__(self, farm: Farm, keep: Keep = USUAL) -> None:
        self.farm = farm
        self.named = NamedTasks(farm, self, keep)
        self._out: list[Effect] = []
        self._results: dict[int, list[EndRow]] = {}
        """Ends that are kept, by serial."""

    # --- sessions --------------------------------------------------------------------------------------------

    def began(self, session: Session) -> None:
        """A session has begun."""
        if session.role != "engine":
            self.named.began(session.key, holder_of(session.role, session.holder), only=session.only)

    def registered(self, key: int) -> None:
        """A set was registered."""
        self.farm.registered(key)

    def set_lost(self, key: int) -> None:
        """The session of an engine set has ended; call it after the farm was told."""

    def client_lost(self, key: int, orderly: bool) -> None:
        """The session of a client has ended; ``orderly``: because it said so."""
        staying = self.named.leave(key, orderly)
        if staying:
            self.farm.departures.gone(key, {g.number for g in staying if g.bundle.is_named})
        else:
            self.farm.client_lost(key)

    def finish(self) -> None:
        """The controller ends, and has ended all sessions."""

    # --- clients ---------------------------------------------------------------------------------------------

    def submit(self, client: int, message: m.SubmitTasks, body: Sequence[Buffer], stream: int) -> None:
        """A client submits a group; raises an error to refuse it."""
        self.named.check(client, message)
        self.named.submitted(client, self.farm.submit(client, message, body, stream), message)

    def told(self, client: int, message: m.TasksFetched | m.TasksOpen | m.TaskOrigin | m.FollowTasks) -> None:
        """A client says which results it has, or lacks, who it is, or what it wants to hear of."""
        if isinstance(message, m.TaskOrigin):
            self.named.origin(client, message)
        elif isinstance(message, m.FollowTasks):
            self.named.follow(client, message)

    # --- engine sets -----------------------------------------------------------------------------------------

    def results(self, key: int, message: m.TaskResults, body: Sequence[Buffer]) -> None:
        """Tasks have ended on a rank of a set."""
        self.farm.results(key, message, body)

    def held(self, key: int, message: m.TasksHeld) -> None:
        """A set that has come back says which tasks it has."""
        for serial, indices in message.groups:
            unknown = self.farm.recovery.adopt(key, serial, numbers(indices))
            if unknown:
                self._out.append(Send(key, m.CancelTasks(serial, packed.pack(unknown), False)))

    # --- reservations ------------------------------------------------------------------------------------------

    def reserve(self, client: int, message: m.Reserve) -> Ids:
        """Start no more tasks on these engines; return their ids."""
        return self.farm.reserve(client, message.targets)

    def release(self, client: int, message: m.Release) -> Ids:
        """End a reservation; return the ids of those engines that are still registered."""
        return self.farm.release(client, message.targets)

    # --- at the end of a turn ----------------------------------------------------------------------------------

    def flush(self, now: float) -> list[Effect]:
        """Return the effects of all events since the last call, in order."""
        out, self._out = self._out, []
        found = self.farm.flush(now)
        self._note_ends(found)
        return out + self.named.pass_on(found) + self.named.flush(now)

    def _note_ends(self, effects: Iterable[Effect]) -> list[Effect]:
        """Note the ends of tasks; return those that must not be told yet."""
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, Ends):
                group = self.named.note(effect, effect.message)
                if group is not None:
                    self.keep(group, EndRow(group.serial, m.encode(effect.message), b"".join(effect.body)))
        return []

    def next_deadline(self, now: float) -> float | None:
        """Return when to call :meth:`flush` if no event occurs."""
        times = (self.farm.next_deadline(), self.named.next_deadline(now))
        return min((when for when in times if when is not None), default=None)

    # --- what is kept; see :class:`ipmpi.controller.record.Record` -----------------------------------------

    def ends(self, group: BundleGroup) -> list[tuple[EndRow, bool]]:
        """Return the ends that are kept of a group."""
        return [(row, True) for row in self._results.get(group.serial, ())]

    def awaits(self, group: BundleGroup) -> bool:  # noqa: ARG002 - as that of a journal
        """Return False: without a journal, nobody comes back after a restart."""
        return False

    def keep(self, group: BundleGroup, row: EndRow) -> None:
        """Keep ends of tasks."""
        self._results.setdefault(group.serial, []).append(row)

    def write(self, change: Change) -> None:
        """Do nothing: there is no journal."""

    def forget(self, group: BundleGroup) -> None:
        """Keep nothing of a group."""
        self._results.pop(group.serial, None)

    def shed(self, group: BundleGroup) -> bool:
        """Keep no results of a group that its client was sent."""
        return self._results.pop(group.serial, None) is not None

    def forget_client(self, client: int) -> None:
        """Keep nothing of a client that is gone."""
        self.farm.client_lost(client)
