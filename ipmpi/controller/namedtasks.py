"""Tasks that outlive their client: who may ask for them, and who is told of their ends (no I/O).

* A client that says goodbye ends its tasks, except those with a name. One that vanishes ends none. In both cases,
  tasks that were submitted with ``detach=False`` end with it.
* Results of tasks with a name, and of those of clients that are gone, are kept until they expire or are forgotten.
* Whoever holds the same furl may follow the groups of a bundle: it is told the ends that are known, and others as
  they come. So an end has been told either before a client followed, or after it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from .. import limits
from ..errors import ClientError, JournalDamaged
from ..journal.rows import BundleRow, DropBundle, EndRow, OriginRow, engines_text
from ..protocol import messages as m, packed
from ..protocol.frames import Buffer
from .bundle import UNKNOWN, Bundle, BundleGroup, Origin
from .bundles import Bundles, groups_told, told_of
from .clientresults import has_results, why_lost, without_results
from .effects import Effect, Forward, Send
from .farm.farm import Farm
from .farm.groups import SUCCEEDED, TaskGroup
from .farm.recovery import Ends, ends_in, only
from .record import Record

EXPIRY_LOOK: Final = 1.0
"""Seconds between two looks for what is not kept any longer."""

_ANSWER: Final = limits.MESSAGE // 8
"""Bytes of one answer to TaskHistory, about: others do not wait for long while it is made."""
_ROW: Final = 100  # bytes of a bundle in it without its texts, at most

RESUMED: Final = 4096
"""Groups in one answer to ResumeTasks, and in one FollowTasks, at most."""

_FORGOTTEN: Final = "these tasks were forgotten, or expired"


class Keep(NamedTuple):
    """What is kept of named tasks and of those of clients that are gone.

    Attributes:
        seconds: after their end.
        size: bytes.
        wall: returns the time in seconds since 1970.
    """

    seconds: float = limits.KEEP
    size: int = limits.KEEP_IN_MEMORY
    wall: Callable[[], float] = time.time


USUAL: Final = Keep()


def holder_of(role: str, furl: str) -> str:
    """Return the name of all who hold the same furl: that of the role, or one that was given out."""
    return f"{role} {furl}" if furl else role


class _Client(NamedTuple):
    holder: str
    origin: Origin
    engines: Collection[int] | None = None


_STRANGER: Final = _Client("", UNKNOWN)


class _Wish(NamedTuple):
    """A client wants to hear of groups: serials, and which tasks of each (None: all)."""

    client: int
    groups: list[tuple[int, set[int] | None]]
    request: int | None


class NamedTasks:
    """All bundles, the clients that follow them, and the time until which they are kept."""

    def __init__(self, farm: Farm, record: Record, keep: Keep) -> None:
        self._farm = farm
        farm.on_closed = self._closed
        self._record = record
        self._keep = keep
        self._bundles = Bundles()
        self._clients: dict[int, _Client] = {}
        """Those that are there."""
        self._wishes: list[_Wish] = []
        self._following: dict[int, dict[int, None]] = {}
        self._dropping: list[BundleGroup | Bundle] = []
        self._out: list[Effect] = []
        self._look_at = 0.0
        self._is_changed = False
        self._due: float | None = None
        """When the next bundle is not kept any longer, by the wall's clock, as of the last look."""

    # --- clients ---------------------------------------------------------------------------------------------

    def began(
        self, client: int, holder: str, origin: Origin = UNKNOWN, only: Collection[int] | None = None
    ) -> None:
        """A client is there, which holds this furl; its tasks run on the engines in ``only`` (None: on all)."""
        self._clients[client] = _Client(holder, origin, only)

    def origin(self, client: int, message: m.TaskOrigin) -> None:
        """A client says who it is, once."""
        origin = Origin(message.host[: limits.LABEL], message.user[: limits.LABEL], message.detach)
        if self._who(client).origin == UNKNOWN != origin:
            self._clients[client] = self._who(client)._replace(origin=origin)
            self._record.write(self.row(client))

    def row(self, client: int) -> OriginRow:
        """Return what a journal has of a client that is there."""
        holder, (host, user, detach), engines = self._who(client)
        return OriginRow(client, host, user, int(detach), holder, engines_text(engines))

    def holders(self) -> set[str]:
        """Return who has tasks here, as :func:`holder_of` names them."""
        return {bundle.holder for bundle in self._bundles}

    def furl_ended(self, holder: str) -> None:
        """Cancel the tasks of all who hold this furl, and keep nothing of them."""
        for bundle in self._bundles:
            if bundle.holder == holder:
                self._drop_bundle(bundle)

    def dismissed(self, client: int) -> None:
        """Cancel the tasks of a client, and keep nothing of them."""
        for bundle in self._bundles.of_client(client):
            self._drop_bundle(bundle)

    def _who(self, client: int) -> _Client:
        return self._clients.get(client, _STRANGER)

    def check(self, client: int, message: m.SubmitTasks) -> None:
        """Raise ClientError if a group may not have the name, or the number, that it has."""
        name = message.options.name
        if name and (len(name) > limits.LABEL or not name.isprintable()):
            raise ClientError(f"a name of tasks has at most {limits.LABEL} characters, all of them printable")
        self._bundles.check(client, self._who(client).holder, name, message.id)

    def submitted(self, client: int, group: TaskGroup, message: m.SubmitTasks) -> None:
        """A group was accepted by the farm."""
        holder, origin, _ = self._who(client)
        added = self._bundles.add(client, holder, origin, group.serial, message, self._keep.wall())
        self._is_changed = True
        if added.bundle.is_named and not added.bundle.is_written:
            self._write(added.bundle)
        if not group.unfinished:
            self._closed(group)

    def withdrawn(self, client: int, number: int) -> None:
        """A group was refused after all."""
        group = self._bundles.group(client, number)
        if group is not None:
            self._bundles.remove(group)
            group.bundle.failed -= group.failed
            if not group.bundle.groups:
                self._drop_bundle(group.bundle)

    def fetched(self, client: int, number: int) -> bool:
        """A client has all results of a group: return whether they are kept nevertheless."""
        group = self._bundles.group(client, number)
        if group is None or group.bundle.is_kept:
            if group is not None:
                group.is_fetched = True
            return group is not None
        self._bundles.remove(group)
        return False

    def leave(self, client: int, orderly: bool) -> list[BundleGroup]:
        """A client is gone: return its groups that go on, or whose results are kept."""
        self._clients.pop(client, None)
        for serial in self._following.pop(client, ()):
            followed = self._bundles.by_serial(serial)
            if followed is not None and followed.followers is not None:
                followed.followers.pop(client, None)
        staying: list[BundleGroup] = []
        for bundle in self._bundles.of_client(client):
            ends = orderly and not bundle.is_named
            theirs = [group for group in bundle.groups.values() if group.detach and not ends]
            for group in [group for group in bundle.groups.values() if group not in theirs]:
                self._abort(group)
                self._dropping.append(group)
            staying += theirs
            if theirs:
                self._bundles.left(bundle)
                self._write(bundle)
            else:
                self._dropping.append(bundle)
        self._is_changed = True
        return staying

    def is_kept(self, client: int, number: int) -> bool:
        """Return whether the results of a group are kept."""
        group = self._bundles.group(client, number)
        return group is not None and group.bundle.is_kept

    # --- requests --------------------------------------------------------------------------------------------

    def history(self, client: int, message: m.TaskHistory) -> dict[str, Any]:
        """Return the answer to :class:`TaskHistory`: as many bundles as fit into a message."""
        told: list[list[Any]] = []
        size = 0
        for bundle in self._bundles.after(self._who(client).holder, message.after):
            if size > _ANSWER:
                return {"names": told, "more": True}
            told.append(told_of(bundle, self._farm.recovery.states))
            size += _ROW + sum(len(t.encode("utf-8", "replace")) for t in (bundle.name, *bundle.origin[:2]))
        return {"names": told, "more": False}

    def resume(self, client: int, message: m.ResumeTasks) -> dict[str, Any]:
        """Return the answer to :class:`ResumeTasks`; raises ClientError."""
        bundle = self._bundles.find(self._who(client).holder, message.name)
        if not bundle.is_kept:
            raise ClientError(
                f"{message.name!r} are tasks without a name of a client that is there: they can be resumed when "
                "it is gone. Submit with name= to find tasks again at any time"
            )
        return groups_told(bundle, message.after, RESUMED, limits.MESSAGE // 2)

    def forget(self, client: int, message: m.ForgetTasks) -> int:
        """Cancel what has not started of a bundle, and keep nothing of it; return the number of its tasks."""
        bundle = self._bundles.find(self._who(client).holder, message.name)
        tasks = bundle.tasks()[0]
        self._drop_bundle(bundle)
        return tasks

    def abort(self, client: int, message: m.AbortTasks) -> None:
        """Abort tasks: of this client, or (with a negated number) of a bundle that it may follow."""
        if message.group >= 0:
            self._farm.aborts.abort(client, message)
            return
        group = self._find(client, -message.group)
        named = m.AbortTasks(message.id, group.number, message.indices, message.how)
        self._farm.aborts.abort(group.bundle.client, named, client)

    def follow(self, client: int, message: m.FollowTasks) -> None:
        """Tell a client of these groups; raises ClientError."""
        serials = list(dict.fromkeys(message.groups))
        if len(serials) > RESUMED:
            raise ClientError(
                f"a client may follow at most {RESUMED:,} groups at a time, and not {len(serials):,}"
            )
        for serial in serials:
            self._find(client, serial)
        self._wishes.append(_Wish(client, [(serial, None) for serial in serials], message.id))

    def follow_again(self, client: int, serial: int, lacks: set[int]) -> None:
        """After a restart, a client says which ends it lacks of a group that it follows."""
        self._wishes.append(_Wish(client, [(serial, lacks)], None))

    def _find(self, client: int, serial: int) -> BundleGroup:
        group = self._bundles.by_serial(serial)
        if group is None or group.bundle.holder != self._who(client).holder:
            raise ClientError(_FORGOTTEN)
        return group

    # --- what the farm says ------------------------------------------------------------------------------------

    def _closed(self, group: TaskGroup) -> None:
        """A group has ended everywhere."""
        known = self._bundles.group(group.client, group.id)
        if known is None or not known.is_open:
            return
        self._is_changed = True
        self._bundles.closed(known, group.states.count(SUCCEEDED), self._keep.wall())
        if not known.bundle.open and known.bundle.is_written:
            self._write(known.bundle)
        if not (self._record.is_on or known.bundle.is_kept):
            self._bundles.forget_ended(known.bundle)  # no client says that it has them

    def note(self, effect: Send, message: Ends) -> BundleGroup | None:
        """Ends of tasks are told: return their group if they have to be kept."""
        group = self._bundles.group(effect.to, message.group)
        if group is None or not group.bundle.is_kept:
            return None
        self._bundles.grown(group, sum(map(len, effect.body)))
        self._is_changed = True
        return group

    def pass_on(self, effects: Iterable[Effect]) -> list[Effect]:
        """Return these effects, with those for clients that follow tasks."""
        told: list[Effect] = []
        for effect in effects:
            told.append(effect)
            if isinstance(effect, Send) and isinstance(effect.message, Ends):
                group = self._bundles.group(effect.to, effect.message.group)
                for client in group.followers or () if group is not None else ():
                    told.append(Send(client, _renamed(effect.message, group), effect.body))
            elif isinstance(effect, Forward) and isinstance(effect.sinks[0][1], m.TaskDone):
                told[-1] = self._large(effect, effect.sinks[0][1])
        return told

    def _large(self, effect: Forward, message: m.TaskDone) -> Forward:
        group = self._bundles.group(effect.sinks[0][0], message.group)
        if group is None:
            return effect
        others = tuple((client, _renamed(message, group)) for client in group.followers or ())
        keep = group.serial if group.bundle.is_kept else 0
        group.has_unkept = group.has_unkept or not keep
        return Forward(effect.source, effect.stream, effect.size, effect.sinks + others, keep)

    def large_kept(self, effect: Forward, body: bytes | None) -> None:
        """A large result is here; None: it is too large to be kept. Clients in the effect have been told."""
        group = self._bundles.by_serial(effect.keep)
        message = effect.sinks[0][1]
        if group is None or not isinstance(message, m.TaskDone):
            return
        kept: Ends = message
        if body is None:
            text = (
                f"the result of {group.label} has {effect.size} bytes, more than the "
                f"{limits.KEPT_RESULT >> 20} MiB that a controller keeps: let the task write it to a file"
            )
            kept = m.TasksUndone(group.number, packed.pack([message.index]), "MessageSizeError", text)
        self._keep_end(group, kept, body or b"", {client for client, _ in effect.sinks})

    def late(self, serial: int, message: Ends, body: Sequence[Buffer]) -> None:
        """Results are here, after a restart, that their client has had before: they are for others."""
        group = self._bundles.by_serial(serial)
        if group is not None:
            renumbered = msgspec.structs.replace(message, group=group.number)
            self._keep_end(group, renumbered, b"".join(body), ())

    def _keep_end(self, group: BundleGroup, message: Ends, body: bytes, told: Collection[int]) -> None:
        """Keep the end of a task, of which its client and these others know."""
        if group.bundle.is_kept:
            self._bundles.grown(group, len(body))
            self._is_changed = True
        self._record.keep(group, EndRow(group.serial, m.encode(message), body))
        for client in group.followers or ():
            if client not in told:
                self._out += [
                    Send(client, _renamed(each, group), part) for each, part in only(message, body, None)
                ]

    def end_unkept(self, groups: Iterable[BundleGroup]) -> None:
        """A client is gone, and with it large results that only it had: their tasks have ended nevertheless."""
        for group in groups:
            if not group.has_unkept:
                continue
            ended = self._farm.recovery.ended(group.bundle.client, group.number, group.tasks)
            with contextlib.suppress(JournalDamaged):
                for row, _ in self._record.ends(group):
                    ended.difference_update(ends_in(m.decode(row.message)))  # type: ignore[arg-type]
                if ended:
                    unkept = without_results(group.number, sorted(ended))
                    self._record.keep(group, EndRow(group.serial, m.encode(unkept), b""))

    def never(self, serial: int, indices: Sequence[int]) -> None:
        """Results that their client has had are not there after a restart."""
        group = self._bundles.by_serial(serial)
        for client in group.followers or () if group is not None else ():
            self._undone(client, serial, indices, "ClientError", why_lost(group))

    # --- at the end of a turn ----------------------------------------------------------------------------------

    def flush(self, now: float) -> list[Effect]:
        """Return effects for followers; call it when all ends so far were noted and passed on."""
        wishes, self._wishes = self._wishes, []
        for wish in wishes:
            later = []
            for serial, wanted in wish.groups:
                group = self._bundles.by_serial(serial)
                if group is not None and self._record.awaits(group):
                    later.append((serial, wanted))
                else:
                    self._tell(wish.client, serial, wanted)
            if later:
                self._wishes.append(_Wish(wish.client, later, wish.request))
            elif wish.request is not None:
                self._out.append(Send(wish.client, m.Reply(wish.request, None)))
        is_due = self._due is not None and self._due <= self._keep.wall()
        if (self._is_changed or is_due) and now >= self._look_at:
            self._is_changed = False
            self._look_at = now + EXPIRY_LOOK
            self._expire()
            self._due = self._bundles.kept.next_expiry(self._keep.seconds)
        for each in self._dropping:
            self._drop(each)
        self._dropping.clear()
        out, self._out = self._out, []
        return out

    def next_deadline(self, now: float) -> float | None:
        """Return when to call :meth:`flush` if no event occurs."""
        if self._is_changed:
            return self._look_at
        return None if self._due is None else max(self._look_at, now + self._due - self._keep.wall())

    def _tell(self, client: int, serial: int, wanted: set[int] | None) -> None:
        """Tell a client the ends of those tasks of a group that it wants (None: all), and go on telling it."""
        group = self._bundles.by_serial(serial)
        if client not in self._clients:
            return
        if group is None or group.bundle.holder != self._who(client).holder:
            self._undone(client, serial, wanted or (), "ClientError", _FORGOTTEN)
            return
        ended = self._farm.recovery.ended(group.bundle.client, group.number, group.tasks)
        error, text = "ClientError", why_lost(group)
        try:
            kept = self._record.ends(group)
        except JournalDamaged as damage:
            kept, error, text = [], "JournalDamaged", str(damage)
        for row, is_told in kept:
            message = m.decode(row.message)
            assert isinstance(message, Ends)
            if not has_results(message):
                continue
            ended.difference_update(ends_in(message))
            for piece, body in only(message, row.body, wanted) if is_told else ():
                self._out.append(Send(client, _renamed(piece, group), body))
        self._undone(client, serial, ended if wanted is None else ended & wanted, error, text)
        if group.is_open:
            group.followers = {**(group.followers or {}), client: None}
            self._following.setdefault(client, {})[serial] = None

    def _undone(self, client: int, serial: int, indices: Iterable[int], error: str, text: str) -> None:
        gone = sorted(indices)
        if gone:
            self._out.append(Send(client, m.TasksUndone(-serial, packed.pack(gone), error, text)))

    # --- what is kept no longer ----------------------------------------------------------------------------------

    def _expire(self) -> None:
        for bundle in self._bundles.kept.expired(self._keep.wall(), self._keep.seconds, self._keep.size):
            self._drop_bundle(bundle)
        for group in self._bundles.kept.surplus(self._keep.size):
            if self._record.shed(group):
                group.is_shed = True
                self._bundles.grown(group, -group.size)

    def _abort(self, group: BundleGroup) -> None:
        if group.is_open:
            self._farm.aborts.abort(group.bundle.client, m.AbortTasks(0, group.number, b"", "drop"), 0)

    def _drop_bundle(self, bundle: Bundle) -> None:
        """Cancel what has not started, and take it out at the end of the turn, when followers were told."""
        if not self._bundles.close(bundle):
            return
        for group in bundle.groups.values():
            self._abort(group)
        self._dropping.append(bundle)

    def _drop(self, dropped: BundleGroup | Bundle) -> None:
        bundle = dropped if isinstance(dropped, Bundle) else dropped.bundle
        for group in list(bundle.groups.values()) if isinstance(dropped, Bundle) else [dropped]:
            self._record.forget(group)
            self._bundles.remove(group)
        if isinstance(dropped, BundleGroup):
            return
        self._bundles.close(bundle)
        if bundle.is_written:
            self._record.write(DropBundle(bundle.number))
        if bundle.client not in self._clients and not self._bundles.of_client(bundle.client):
            self._record.forget_client(bundle.client)

    # --- the journal -------------------------------------------------------------------------------------------

    def _write(self, bundle: Bundle) -> None:
        if bundle.is_written:
            self._record.write(DropBundle(bundle.number))
        bundle.is_written = True
        self._record.write(bundle.row())

    def restore_bundle(self, row: BundleRow, is_orphan: bool) -> None:
        """A bundle was in the journal; its groups follow."""
        origin = Origin(row.host, row.user)
        bundle = Bundle(row.number, row.client, row.name, row.holder, origin, row.submitted, row.ended)
        bundle.is_written, bundle.is_orphan = True, is_orphan
        self._bundles.begin(bundle)

    def restore_group(self, row_client: int, holder: str, serial: int, message: m.SubmitTasks, size: int) -> None:
        """A group was in the journal, and the farm has restored it; ``size`` is that of its results."""
        known = self._clients.get(row_client)
        origin = known.origin if known is not None else UNKNOWN
        ended = {bundle.name: bundle.ended for bundle in self._bundles.of_client(row_client)}
        group = self._bundles.add(row_client, holder, origin, serial, message, self._keep.wall())
        self._bundles.grown(group, size)
        self._is_changed = True
        record = self._farm.recovery.record(row_client, message.id)
        if self._farm.recovery.is_over(row_client, message.id):
            succeeded = record.states.count(SUCCEEDED) if record is not None else 0
            self._bundles.closed(group, succeeded, ended.get(group.bundle.name) or self._keep.wall())


def _renamed(message: Ends, group: BundleGroup | None) -> Ends:
    """Return a message about ends of tasks as a follower gets it."""
    assert group is not None
    return msgspec.structs.replace(message, group=-group.serial)
