"""Who comes in, with which furl, for how long, and what it may use: the grants of a running controller.

:class:`~ipmpi.controller.grants.Grants` decides; this carries out: it ends the sessions of furls that have ended,
answers what clients ask about furls, and has the grants saved when they have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..bootclock import since_boot
from ..errors import ClientError, FurlEnded
from ..furl import Furl
from ..ids import Ids
from ..protocol import messages as m, packed
from ..protocol.handshake import Hello
from ..transport.dial.addresses import is_here, plain
from ..transport.dial.negotiate import Authenticated
from ..transport.loop import Loop, Timer
from .admission import Admission
from .grants import Bounds, Grant, Grants, secret_of
from .namedtasks import holder_of
from .registry import Registry
from .sessions import PeerSession, Sessions
from .whereabouts import Whereabouts, elsewhere

LOOK: Final = 30.0
"""Seconds between two looks at the clock while a furl will end: a suspended machine's timers stand still."""

SAVE_WITHIN: Final = 0.5
"""Seconds until it is saved what was used: all engines of a launch without MPI take their places one by one.

What was given out, ended or replaced is saved before the answer, see :meth:`Entry._decided`.
"""


AFTER_JOB: Final = 120.0
"""Seconds after the end of a job until its furl ends: batch systems are not punctual."""


@dataclass
class Door:
    """One of the two sides where peers come in.

    Attributes:
        fingerprint: of its certificate.
        hints: its addresses.
        master: a secret from which those of grants follow.
        secrets: those of the roles, changed in place.
        write: writes the furl file of a role, and returns its name.
    """

    fingerprint: bytes
    hints: tuple[tuple[str, int], ...]
    master: bytes
    secrets: dict[str, bytes]
    write: Callable[[Furl], str]

    def furl(self, role: str, secret: bytes) -> Furl:
        """Return a furl that leads here."""
        return Furl(self.fingerprint, self.hints, role, secret)


class Submitted(Protocol):
    """The part of :class:`ipmpi.controller.namedtasks.NamedTasks` that is used here."""

    def holders(self) -> set[str]:
        """Return who has tasks here, as :func:`holder_of` names them."""

    def furl_ended(self, holder: str) -> None:
        """Cancel the tasks of all who hold this furl, and keep nothing of them."""

    def dismissed(self, client: int) -> None:
        """Cancel the tasks of a client, and keep nothing of them."""


class Entry:
    """The grants, and which session came by which.

    Args:
        sessions: all sessions.
        registry: the engines.
        register: registers an engine set, and returns its ids.
        announce: tells all clients something.
        requests: what handles the requests of clients; ours are added.
        log: called with lines for the log.
        tasks: what clients have submitted.
        now: the clock of the grants.

    Attributes:
        save: called with the grants when they have changed; None if they need not be saved.
    """

    save: Callable[[bytes], None] | None = None

    def __init__(
        self,
        loop: Loop,
        sessions: Sessions,
        registry: Registry,
        register: Callable[[PeerSession, m.Register], Ids],
        announce: Callable[[str], None],
        requests: dict[type[m.Message], Callable[[PeerSession, Any], Any]],
        log: Callable[[str], None],
        tasks: Submitted,
        now: Callable[[], float] = since_boot,
    ) -> None:
        self._loop, self._sessions, self._registry = loop, sessions, registry
        self._register, self._log, self._now = register, log, now
        self._tasks = tasks
        self.grants = Grants(lambda role, grant: secret_of(self._doors[role].master, grant))
        self.admission = Admission(announce, self._let_in, self._refuse, requests)
        self.whereabouts = Whereabouts(loop, self._decide, announce)
        self._doors: dict[str, Door] = {}
        self._by_session: dict[int, Grant] = {}
        self._look_timer: Timer | None = None
        self._save_timer: Timer | None = None
        sessions.entry = self
        requests.update(
            {
                m.GiveFurl: self._give,
                m.ListFurls: lambda session, message: self.grants.described(self._now()),
                m.EndFurls: self._end_furls,
                m.ReplaceSecrets: self._replace,
            }
        )

    def serves(self, door: Door) -> None:
        """Peers of these roles come in there."""
        self._doors.update(dict.fromkeys(door.secrets, door))

    def restore(self, data: bytes, elapsed: float, roles: Iterable[str]) -> None:
        """Restore what was saved; raises ValueError if it is nothing that was."""
        self.grants.restored(data, elapsed, self._now(), frozenset(roles))
        self._look()

    def end_tasks_of_ended(self) -> None:
        """Cancel tasks of furls that have ended while no controller was there, once all was restored."""
        there = {holder_of(grant.role, grant.id if grant.is_shared else "") for grant in self.grants.open}
        for holder in self._tasks.holders() - there:
            if holder not in self._doors:
                self._tasks.furl_ended(holder)

    # --- connections -----------------------------------------------------------------------------------------

    def check(self, peer: Authenticated, hello: Hello, session: PeerSession | None) -> None:
        """A peer has proved a secret, and comes back to ``session``, if that is there; raises FurlEnded."""
        grant = self.grants.of(hello.role, hello.key)
        if grant is not None:
            known = session is not None and (session.is_restored or self._by_session.get(session.key) is grant)
            try:
                self.grants.check(grant, self._now(), is_local=_is_local(peer), is_known=known)
            finally:
                self._changed()
        theirs = None if session is None else self._by_session.get(session.key)
        if session is not None and theirs is not grant and not session.is_restored:
            raise FurlEnded("this session was begun with another furl, and goes on with that only")

    def entered(self, session: PeerSession, hello: Hello) -> None:
        """A session begins, or goes on in a controller that was started again."""
        grant = self.grants.of(hello.role, hello.key)
        if grant is not None:
            self._by_session[session.key] = grant
            session.holder = grant.id if grant.is_shared else ""
            session.only = self.only(session.key)

    def left(self, key: int) -> None:
        """A session has ended."""
        grant = self._by_session.pop(key, None)
        self.admission.left(key)
        self.whereabouts.left(key)
        if grant is not None and grant.role == "engine" and grant not in self._by_session.values():
            self.grants.all_left(grant, self._now())
            self._look()
        if grant is not None and grant.retired is not None and grant not in self._by_session.values():
            self.grants.end(grant, "it was replaced by a new one")
            self._changed()

    def _close(self, grants: Iterable[Grant]) -> None:
        """End the sessions of clients whose grants have ended. Engines go on: they end with their launch."""
        ended = [grant for grant in grants if grant.role != "engine"]
        for key, grant in list(self._by_session.items()):
            session = self._sessions.by_key.get(key)
            if grant in ended and session is not None:
                self._dismiss(session, f"the furl {grant.id} has ended: {grant.over}")
        for grant in ended:
            if grant.is_shared:
                self._tasks.furl_ended(holder_of(grant.role, grant.id))

    def _dismiss(self, session: PeerSession, reason: str) -> None:
        session.connection.send(m.Goodbye(reason, furl=True))
        self._tasks.dismissed(session.key)
        self._sessions.end(session, reason)

    # --- engines ---------------------------------------------------------------------------------------------

    def register(self, session: PeerSession, message: m.Register, *, is_first: bool = True) -> None:
        """An engine set wants to register: let it in, have it wait, or turn it away.

        Args:
            session: its session.
            message: what it says of itself.
            is_first: whether it has not waited yet to hear where its launch runs.
        """
        grant = self._by_session.get(session.key)
        if grant is not None:
            try:
                self.grants.check_time(grant, self._now())  # it may have ended since the peer has connected
                self._end_those_before(grant, message)
                self.grants.check_places(grant, _wanted(message), len(message.engines), self._registry.ids())
            except FurlEnded as error:
                self._dismiss(session, str(error))
                return
            if is_first and self.whereabouts.must_wait(session, message, grant):
                return
        has_launches = any(each.role == "engine" for each in self.grants.open)
        name, where = (None, "") if grant is None else (grant.note, elsewhere(grant, message))
        if self.admission.may_enter(session, message, name, has_launches, where):
            self._let_in(session, message)

    def _decide(self, session: PeerSession, message: m.Register) -> None:
        """It is known where the launch of a set runs, or nobody has said so in time."""
        self.register(session, message, is_first=False)

    def _end_those_before(self, grant: Grant, message: m.Register) -> None:
        """End the sets of a launch that have no link any more, as engines with their ids have been started."""
        for key in self._registry.by_set(self._registry.registered(_wanted(message))):
            before = self._sessions.by_key.get(key)
            if before is not None and before.link is None and self._by_session.get(key) is grant:
                self._sessions.end(before, "its engines have been started again")

    def _let_in(self, session: PeerSession, message: m.Register) -> Ids:
        there = self._registry.ids()
        ids = self._register(session, message)
        grant = self._by_session.get(session.key)
        if grant is not None:
            self.grants.took(grant, _wanted(message), ids, there, self._now())
            self.whereabouts.entered(session, message, grant)
            self._changed()
        return ids

    def _refuse(self, key: int, reason: str) -> None:
        session = self._sessions.by_key.get(key)
        if session is not None:
            self._dismiss(session, reason)

    def job_ends(self, key: int, seconds: float | None) -> None:
        """The job of an engine set ends in so many seconds."""
        grant = self._by_session.get(key)
        if grant is not None and seconds is not None:
            self.grants.job_ends(grant, self._now() + seconds + AFTER_JOB)
            self._changed()

    def begin_launch(self, name: str, places: int, seconds: float | None, **more: Any) -> Furl:
        """Return the furl of a launch; see :meth:`Grants.launch`."""
        lasts = None if seconds is None else seconds + AFTER_JOB
        grant = self.grants.launch(name, places, lasts, **more)
        self._decided()
        if grant.nodes is not None:
            self._told_where(grant, 0)
        return self._doors["engine"].furl("engine", self.grants.secret_of(grant))

    def launch_runs_on(self, name: str, nodes: Iterable[str] | None, question: int) -> None:
        """A launch runs there, as ipcluster answers a question; None if it cannot find out."""
        grant = self.grants.named_launch(name) if nodes is None else self.grants.runs_on(name, nodes)
        self._changed()
        if grant is not None:
            self._told_where(grant, question)

    def _told_where(self, grant: Grant, question: int) -> None:
        self.whereabouts.told(grant, question)
        for waiting in self.admission.elsewhere():  # a job that was started again may have other nodes
            key = waiting.session.key
            if self._by_session.get(key) is grant and not elsewhere(grant, waiting.message):
                self.admission.left(key)
                self.register(waiting.session, waiting.message, is_first=False)

    def end_launch(self, name: str) -> list[str]:
        """A launch is over: its furl has ended. Its engines end by themselves."""
        grant = self.grants.named_launch(name)
        if grant is not None:
            self.grants.end(grant, f"the launch {name} is over")
        self._decided()
        return [] if grant is None else [grant.id]

    # --- clients ---------------------------------------------------------------------------------------------

    def check_use(self, key: int, message: m.AnyMessage) -> None:
        """Count what a client sends; raises FurlEnded if its furl does not allow that.

        Functions are refused with the tasks that use them: nobody waits for an answer to what defines them.
        """
        grant = self._by_session.get(key)
        if grant is None:
            return
        if isinstance(message, m.SubmitTasks):
            self.grants.spend(grant, packed.count(message.lengths) or 1, sum(message.sizes))
            self._changed()
        elif isinstance(message, m.DefineFunction):
            grant.size += sum(message.sizes)
        elif isinstance(message, m.WatchPublished) and not self.seen(key, Ids.of([message.engine])):
            raise FurlEnded(f"this furl ({grant.id}) is not for engine {message.engine}")

    def only(self, key: int) -> frozenset[int] | None:
        """Return the engines that a client may see and use; None for all."""
        grant = self._by_session.get(key)
        return None if grant is None else grant.bounds.engines

    def seen(self, key: int, ids: Ids) -> Ids:
        """Return those of these engines that a client may see."""
        only = self.only(key)
        return ids if only is None else Ids.of([number for number in ids if number in only])

    def targets(self, key: int, targets: Iterable[int] | None) -> Iterable[int] | None:
        """Return those of a client's targets that it may see; None for all."""
        if self.only(key) is None:
            return targets
        return self.seen(key, self._registry.ids() if targets is None else Ids.of(targets))

    def changes(self, key: int, news: m.EnginesChanged) -> m.EnginesChanged:
        """Return the changes that a client may see."""
        if self.only(key) is None:
            return news
        return m.EnginesChanged(self.seen(key, Ids.of(news.came)), self.seen(key, Ids.of(news.gone)))

    # --- requests --------------------------------------------------------------------------------------------

    def _give(self, session: PeerSession, message: m.GiveFurl) -> list[str]:
        del session
        role, seconds = message.role, message.seconds
        if role == "mec" or role not in self._doors:
            there = ", ".join(sorted(set(self._doors) - {"mec"}))
            raise ClientError(f"no furl can be given out for {role!r}: there are the roles {there}")
        if (seconds is not None and not 0 < seconds < float("inf")) or any(
            bound is not None and bound < 0 for bound in (message.tasks, message.size)
        ):
            raise ClientError("a furl has to end in the future, and its bounds are not negative")
        if role == "engine":
            if message.places < 1 or not message.note:
                raise ClientError("the furl of a launch needs its name, and the number of its engines")
            made = self.begin_launch(
                message.note, message.places, seconds, local=message.local, nodes=message.nodes
            )
            return ["", str(made)]
        engines = None if message.engines is None else frozenset(message.engines)
        bounds = Bounds(message.tasks, message.size, engines)
        grant = self.grants.give(role, message.note, self._now(), seconds, bounds)
        self._decided()
        self._look()
        self._log(f"a furl was given out: {grant.id}, role {role}")
        return [grant.id, str(self._doors[role].furl(role, self.grants.secret_of(grant)))]

    def _end_furls(self, session: PeerSession, message: m.EndFurls) -> list[str]:
        del session
        if message.launch:
            return self.end_launch(message.launch)
        shared = [grant for grant in self.grants.open if grant.is_shared]
        found = shared if message.furls is None else [self.grants.named(name) for name in message.furls]
        for grant in found:
            self.grants.end(grant, "it was revoked")
            self._log(f"the furl {grant.id} was revoked")
        self._close(found)
        self._decided()
        return [grant.id for grant in found]

    def _replace(self, session: PeerSession, message: m.ReplaceSecrets) -> list[tuple[str, str]]:
        """Make new secrets for all furl files."""
        self.grants.check_room(len(self._doors))  # before any file is replaced
        replaced, written = [], []
        fresh = {role: Furl.create(door.fingerprint, door.hints, role) for role, door in self._doors.items()}
        for role, made in fresh.items():
            door = self._doors[role]
            written.append((role, door.write(made)))  # an error leaves the former secret valid
            grant = self.grants.retire(role, door.secrets[role])
            replaced.append(grant)
            door.secrets[role] = made.secret
            for key, other in self._sessions.by_key.items():
                if other.role == role:
                    self._by_session.setdefault(key, grant)
        self._log("all furl files have new secrets")
        unused = [grant for grant in replaced if grant not in self._by_session.values()]
        retired = [grant for grant in self.grants.open if grant.retired is not None]
        for grant in retired if message.now else unused:
            self.grants.end(grant, "it was replaced by a new one")
        if message.now:
            for key, grant in list(self._by_session.items()):
                theirs = self._sessions.by_key.get(key)
                if grant in retired and theirs is not None and key != session.key:
                    self._dismiss(theirs, f"the furl for the role {grant.role!r} was replaced by a new one")
        self._decided()
        return written

    # --- the clock -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """End what is due, and look again in time."""
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        ended = self.grants.due(self._now())
        if ended:
            self._close(ended)
            self._changed()
        end = self.grants.next_end()
        if end is not None:
            delay = min(LOOK, max(0.01, end - self._now()))
            self._look_timer = self._loop.call_later(delay, self._look, self._loop.report)

    def _changed(self) -> None:
        if self.grants.changed and self._save_timer is None and self.save is not None:
            self._save_timer = self._loop.call_later(SAVE_WITHIN, self.save_now, self._loop.report)
        if self._look_timer is None and self.grants.next_end() is not None:
            self._look()

    def _decided(self) -> None:
        """Save at once: who is answered acts on it, and the controller may be killed right after the answer."""
        self._changed()
        self.save_now()

    def close(self) -> None:
        """The controller stops, and has told its engines to end: no launch will come back."""
        for grant in [each for each in self.grants.open if each.role == "engine"]:
            self.grants.end(grant, "its controller was stopped")
        self.save_now()

    def save_now(self) -> None:
        """Save what has changed."""
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save_timer = None
        if self.save is not None and self.grants.changed:
            try:
                self.save(self.grants.saved(self._now()))
            except Exception as error:
                self._log(f"the furls that were given out cannot be saved: {error}")


def _wanted(message: m.Register) -> list[int]:
    """Return the ids that a set asks for."""
    if len(message.ids) == len(message.engines):
        return list(message.ids)
    return [engine.wanted for engine in message.engines]


def _is_local(peer: Authenticated) -> bool:
    """Return whether a peer is on this machine."""
    if peer.pipe.files is not None:
        return True
    host = peer.pipe.peer.rpartition(":")[0]
    return is_here(plain(host))
