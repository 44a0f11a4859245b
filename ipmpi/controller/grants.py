"""Furls that were given out, with their ends and bounds (no I/O; the time is an argument).

The furl files of the controller's roles have no end. All others are *grants*: the furl of a launch, which lets so
many engines in until the launch is over; a furl for a colleague, which ends after some hours; and the former
secret of a role, which lives on in its sessions. A grant goes one way only, from open to ended. An ended one is
remembered for a while, so that its holder is told why.

The clock counts the seconds since the machine was started, suspended ones included, and never jumps. Only when the
machine is started again is the time between taken from the clock on the wall, see :meth:`Grants.restored`.

No secret is kept: that of a grant follows from its id and the private key of the controller, see
:func:`secret_of`. Former secrets of roles are the exception, as they were made by chance.
"""

from __future__ import annotations

import base64
import hmac
import math
import secrets
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from .. import limits
from ..errors import ClientError, FurlEnded
from ..protocol.furlkeys import key_of
from ..protocol.handshake import printable
from ..ranges import ranges

OPEN: Final = 1000
"""Grants that can be open at a time."""

REMEMBERED: Final = 1000
"""Ended ones whose holders are told why; others are refused like strangers."""

COMES_BACK: Final = 86400.0
"""Seconds in which a job whose engines have all ended may run again: one that was requeued waits in the queue."""

_LABEL: Final = b"ipmpi grant"


def secret_of(master: bytes, grant: str) -> bytes:
    """Return the secret of a grant: only who has the controller's private key can know it.

    Args:
        master: a secret of the controller.
        grant: the id.
    """
    return hmac.digest(master, _LABEL + grant.encode(), "sha256")


@dataclass(frozen=True)
class Bounds:
    """What a client with a grant may use in all, None without a bound.

    Attributes:
        tasks: number of tasks that it submits.
        size: bytes of arguments and functions that it sends.
        engines: ids of the engines that it sees, and on which its tasks run.
    """

    tasks: int | None = None
    size: int | None = None
    engines: frozenset[int] | None = None


@dataclass(eq=False)
class Grant:
    """A furl that was given out.

    Attributes:
        id: its name, for people.
        role: what it is for.
        note: for whom, or of which launch.
        key: names its secret, see :func:`ipmpi.protocol.furlkeys.key_of`.
        ends: when, by the clock of the table; infinite if it has no end.
        bounds: for clients.
        places: how many engines may be there, for engines; None without a bound.
        seconds: how long it lasts from the first engine on, for engines; None if that does not matter.
        local: whether it is for peers on this machine only.
        nodes: the machines that a launch runs on; empty while its job waits, None if they are not known.
        asks: whether ipcluster can say where it runs.
        tasks, size: what was used of the bounds.
        taken: ids of the engines that have a place.
        over: why it has ended; "" while it has not.
        retired: the former secret of a role, good for the sessions that there are; else None.
    """

    id: str
    role: str
    note: str = ""
    key: bytes = b""
    ends: float = math.inf
    bounds: Bounds = field(default_factory=Bounds)
    places: int | None = None
    seconds: float | None = None
    local: bool = False
    nodes: tuple[str, ...] | None = None
    asks: bool = False
    tasks: int = 0
    size: int = 0
    taken: set[int] = field(default_factory=set)
    over: str = ""
    retired: bytes | None = None

    @property
    def is_shared(self) -> bool:
        """Whether it was made for another person, so that it can be listed and revoked."""
        return self.role != "engine" and self.retired is None


class _Saved(msgspec.Struct, frozen=True, omit_defaults=True):
    """A grant in a file. ``left`` are seconds until its end, None if it has none."""

    id: str
    role: str
    note: str = ""
    left: float | None = None
    tasks_bound: int | None = None
    size_bound: int | None = None
    engines: frozenset[int] | None = None
    places: int | None = None
    seconds: float | None = None
    local: bool = False
    tasks: int = 0
    size: int = 0
    taken: list[int] = []
    over: str = ""
    retired: bytes | None = None
    nodes: tuple[str, ...] | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[_Saved])


class Grants:
    """All grants of a controller.

    Args:
        secret: returns the secret of a grant by its role and id.

    Attributes:
        changed: whether there is something that was not saved.
    """

    def __init__(self, secret: Callable[[str, str], bytes]) -> None:
        self._secret = secret
        self._open: dict[str, Grant] = {}
        self._ended: dict[str, Grant] = {}
        self._by_key: dict[tuple[str, bytes], Grant] = {}
        self.changed = False

    # --- giving and ending -----------------------------------------------------------------------------------

    def give(
        self,
        role: str,
        note: str,
        now: float,
        seconds: float | None = None,
        bounds: Bounds | None = None,
    ) -> Grant:
        """Give out a furl for a client.

        Args:
            role: what it is for.
            note: for whom.
            now: the time.
            seconds: until it ends; None for no end.
            bounds: what may be used of the cluster.

        Raises:
            ClientError: there are too many, or the role cannot be given.
        """
        ends = math.inf if seconds is None else now + min(seconds, limits.FURL_LASTS)
        return self._add(Grant(self._new_id(), role, printable(note, 100), ends=ends, bounds=bounds or Bounds()))

    def launch(
        self,
        name: str,
        places: int,
        seconds: float | None = None,
        *,
        local: bool = False,
        again: bool = False,
        nodes: Iterable[str] | None = None,
        asks: bool = False,
    ) -> Grant:
        """Give out the furl of a launch; one that is known by its name keeps its furl.

        Args:
            name: of the launch.
            places: how many engines it has.
            seconds: how long it lasts from the first engine on; None if that is not known.
            local: whether its engines are on this machine.
            again: it is started again, so its time begins anew.
            nodes: the machines that it runs on; None if they are not known yet, or do not matter.
            asks: whether ipcluster can say where it runs.
        """
        machines = None if nodes is None else tuple(nodes)
        there = self.named_launch(name)
        if there is None:
            grant = Grant(self._new_id(), "engine", name, places=places, seconds=seconds, local=local)
            grant.nodes, grant.asks = machines, asks
            return self._add(grant)
        there.places, there.seconds, there.local, there.asks = places, seconds, local, asks
        if machines is not None or again or not asks:  # else it runs where it did
            there.nodes = machines
        if again or not there.taken:
            there.ends = math.inf
        self.changed = True
        return there

    def runs_on(self, name: str, nodes: Iterable[str]) -> Grant | None:
        """A launch runs on these machines now, on none if its job waits; return it, None if there is none."""
        there = self.named_launch(name)
        if there is not None:
            there.nodes = tuple(nodes)
            self.changed = True
        return there

    def named_launch(self, name: str) -> Grant | None:
        """Return the furl of this launch, None if there is none that is open."""
        return next((each for each in self._open.values() if each.role == "engine" and each.note == name), None)

    def retire(self, role: str, secret: bytes) -> Grant:
        """Keep the former secret of a role, for the sessions that there are."""
        grant = Grant(self._new_id(), role, retired=secret)
        return self._add(grant)

    def check_room(self, count: int = 1) -> None:
        """Check that so many more can be open; raises ClientError if not."""
        if len(self._open) + count > OPEN:
            raise ClientError(
                f"there are {OPEN} furls that were given out and have not ended, as many as there can be: revoke "
                "some (ipcluster share NAME --list, ipcluster revoke NAME ID)"
            )

    def _new_id(self) -> str:
        self.check_room()
        while True:
            found = base64.b32encode(secrets.token_bytes(5)).decode().lower()
            if found not in self._open and found not in self._ended:
                return found

    def _add(self, grant: Grant) -> Grant:
        grant.key = key_of(self.secret_of(grant))
        self._open[grant.id] = grant
        self._by_key[grant.role, grant.key] = grant
        self.changed = True
        return grant

    def secret_of(self, grant: Grant) -> bytes:
        """Return the secret of a grant."""
        return self._secret(grant.role, grant.id) if grant.retired is None else grant.retired

    def end(self, grant: Grant, reason: str) -> None:
        """End a grant; ``reason`` is a clause about the furl."""
        if self._open.pop(grant.id, None) is None:
            return
        grant.over = reason
        self.changed = True
        self._ended[grant.id] = grant
        while len(self._ended) > REMEMBERED:
            oldest = self._ended.pop(next(iter(self._ended)))
            del self._by_key[oldest.role, oldest.key]

    def due(self, now: float) -> list[Grant]:
        """End those whose time is over, and return them."""
        found = [grant for grant in self._open.values() if grant.ends <= now]
        for grant in found:
            self.end(grant, "its time is over")
        return found

    def next_end(self) -> float | None:
        """Return when to call :meth:`due`, None if nothing ends."""
        soonest = min((grant.ends for grant in self._open.values()), default=math.inf)
        return None if soonest == math.inf else soonest

    # --- who comes -------------------------------------------------------------------------------------------

    def of(self, role: str, key: bytes) -> Grant | None:
        """Return the grant whose secret a peer says to have, open or ended; None for the role's own secret."""
        return self._by_key.get((role, key))

    def secret_for(self, role: str, key: bytes) -> bytes | None:
        """Return the secret that a peer has to prove; None for the role's own."""
        grant = self.of(role, key)
        return None if grant is None else self.secret_of(grant)

    def check(self, grant: Grant, now: float, *, is_local: bool, is_known: bool) -> None:
        """Check that a peer may connect.

        Args:
            grant: whose secret it has proved.
            now: the time.
            is_local: whether it is on this machine.
            is_known: whether it comes back to its session.

        Raises:
            FurlEnded: it may not.
        """
        if not (is_known and grant.role == "engine"):  # what computes is not stopped by a clock
            self.check_time(grant, now)
        if grant.retired is not None and not is_known:
            raise FurlEnded(
                f"this furl for the role {grant.role!r} was replaced by a new one: copy the furl file again from "
                "the controller's machine"
            )
        if grant.local and not is_local:
            raise FurlEnded(
                f"this furl is for the engines of the launch {grant.note}, which are on the controller's machine"
            )

    def check_time(self, grant: Grant, now: float) -> None:
        """Check that a grant has not ended; raises FurlEnded if it has."""
        if not grant.over and grant.ends <= now:
            self.end(grant, "its time is over")
        if grant.over:
            raise FurlEnded(f"this furl ({grant.id}) has ended: {grant.over}. {_ask(grant)}")

    def check_places(self, grant: Grant, wanted: Iterable[int], count: int, there: Iterable[int]) -> None:
        """Check that an engine set may register: new places are left, or it takes those of its lost engines.

        Args:
            grant: whose furl it has.
            wanted: the ids that it asks for.
            count: the number of its engines.
            there: the ids of all registered engines.

        Raises:
            FurlEnded: there are not enough places.
        """
        if grant.places is None:
            return
        lost = grant.taken.difference(there)
        again = len(lost.intersection(wanted))
        left = grant.places - len(grant.taken)
        if count - again > left:
            raise FurlEnded(
                f"this furl is for the {grant.places} engines of the launch {grant.note}, and "
                f"{len(grant.taken)} have used it (ids {ranges(grant.taken) or 'none'}): no place is left for "
                f"{count} more. Lost ones come back with their ids only. Engines that you start by hand need "
                "ipcontroller-engine.furl"
            )

    def took(
        self, grant: Grant, wanted: Iterable[int], ids: Iterable[int], there: Iterable[int], now: float
    ) -> None:
        """An engine set was registered under these ids; it had asked for ``wanted``, and ``there`` were others."""
        back = grant.taken.difference(there).intersection(wanted)
        grant.taken = (grant.taken - back) | set(ids)
        if grant.taken.isdisjoint(there):  # the first of them, or the first again
            grant.ends = math.inf if grant.seconds is None else now + min(grant.seconds, limits.FURL_LASTS)
        self.changed = True

    def all_left(self, grant: Grant, now: float) -> None:
        """No engine of a launch is left: its job may come back to run again, within a day.

        If none has ever been there, its job waits, however long it takes: somebody else was there, or an engine
        that ended before it was registered.
        """
        if grant.taken and not grant.over:
            grant.ends = now + COMES_BACK
            self.changed = True

    def job_ends(self, grant: Grant, ends: float) -> None:
        """The job of a launch ends then: its furl does not last longer."""
        if grant.seconds is not None and ends < grant.ends:
            grant.ends = ends
            self.changed = True

    def spend(self, grant: Grant, tasks: int, size: int) -> None:
        """A client submits so many tasks, with so many bytes.

        Raises:
            FurlEnded: that is more than its furl allows.
        """
        bounds = grant.bounds
        if bounds.tasks is not None and grant.tasks + tasks > bounds.tasks:
            raise FurlEnded(_spent(grant, "tasks", tasks, grant.tasks, bounds.tasks))
        if bounds.size is not None and grant.size + size > bounds.size:
            raise FurlEnded(_spent(grant, "bytes", size, grant.size, bounds.size))
        grant.tasks += tasks
        grant.size += size
        self.changed = self.changed or bounds.tasks is not None or bounds.size is not None

    # --- lists and files -------------------------------------------------------------------------------------

    @property
    def open(self) -> list[Grant]:
        """Return those that have not ended, oldest first."""
        return list(self._open.values())

    def named(self, name: str) -> Grant:
        """Return an open grant that was shared; raises ClientError if there is none of this id."""
        grant = self._open.get(name) or self._ended.get(name)
        if grant is None or not grant.is_shared:
            raise ClientError(f"there is no furl {printable(name, 40)!r}: ipcluster share NAME --list shows all")
        if grant.over:
            raise ClientError(f"the furl {grant.id} has ended already: {grant.over}")
        return grant

    def described(self, now: float) -> list[dict[str, Any]]:
        """Return what there is to know of those that have not ended, for people."""
        return [
            {
                "id": grant.id, "role": grant.role, "note": grant.note,
                "left": None if grant.ends == math.inf else max(0.0, grant.ends - now),
                "tasks": [grant.tasks, grant.bounds.tasks], "bytes": [grant.size, grant.bounds.size],
                "engines": None if grant.bounds.engines is None else sorted(grant.bounds.engines),
                "places": [len(grant.taken), grant.places],
            }
            for grant in self._open.values()
            if grant.retired is None
        ]  # fmt: skip

    def saved(self, now: float) -> bytes:
        """Return all as text, for :meth:`restored`."""
        self.changed = False
        rows = [
            _Saved(
                each.id, each.role, each.note, None if each.ends == math.inf else each.ends - now,
                each.bounds.tasks, each.bounds.size, each.bounds.engines,
                each.places, each.seconds, each.local, each.tasks, each.size, sorted(each.taken), each.over,
                each.retired, each.nodes,
            )
            for each in (*self._ended.values(), *self._open.values())
        ]  # fmt: skip
        return _encoder.encode(rows)

    def restored(self, data: bytes, elapsed: float, now: float, roles: Container[str]) -> None:
        """Add what another controller has saved.

        Args:
            data: what :meth:`saved` has returned.
            roles: those whose furls are still valid; grants of others are dropped.
            elapsed: seconds since then. If the clock says that it was later then than it is now, the time between
                is not known; it counts as 0, so that a furl lasts longer by it, and never for ever.
            now: the time.

        Raises:
            ValueError: it is nothing that was saved.
        """
        try:
            rows = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        for row in rows:
            if row.role not in roles:
                continue
            left = math.inf if row.left is None else row.left - max(0.0, elapsed)
            if row.role == "engine" and row.retired is None:
                left = min(left, COMES_BACK)  # whoever starts its engines will say so again
            grant = Grant(
                row.id, row.role, row.note, ends=now + left,
                bounds=Bounds(row.tasks_bound, row.size_bound, row.engines),
                places=row.places, seconds=row.seconds, local=row.local, tasks=row.tasks, size=row.size,
                taken=set(row.taken), retired=row.retired, nodes=row.nodes,
            )  # fmt: skip
            self._add(grant)
            if row.over:
                self.end(grant, row.over)


def _ask(grant: Grant) -> str:
    if grant.role == "engine":
        return "Engines that you start by hand need ipcontroller-engine.furl"
    return "Ask who has given it to you for a new one (ipcluster share)"


def _spent(grant: Grant, what: str, more: int, used: int, bound: int) -> str:
    return (
        f"this furl ({grant.id}) allows {bound:,} {what} in all: {used:,} were used, and these are {more:,}. "
        f"{_ask(grant)}"
    )
