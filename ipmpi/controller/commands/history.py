"""The last commands of all clients, for others that hold the same furl (no I/O).

Nothing here decides what engines do. What the router tells a client is noted as it passes, and told to those who
follow the command, too, under numbers of their own. Following begins at the end of a turn, after all that was told
in it: so each answer is told either from what is kept, or as it comes.

All that is noted can be written, as notes, and another controller begins with what it reads. What that one hears
of commands which had not ended may have been noted before; then it is left out.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ... import limits
from ...errors import ClientError
from ...ids import Ids
from ...protocol import messages as m
from ...protocol.frames import Buffer
from ...quantities import sized
from ..effects import Effect, Forward, Send
from . import historynotes as notes
from .historynotes import About
from .pastcommand import Owner, PastCommand
from .queuedcommand import QueuedCommand

_QUESTIONS: Final = frozenset({"get_result", "complete", "describe"})
"""Commands that nobody looks for later."""

_TOLD: Final = (m.Accepted, m.Output, m.Result, m.Undone)
"""What a client is told of a command."""

NOT_KEPT: Final = (
    "has run there, but its answer was too large to be kept here: only its own client was sent it. pull() what it "
    "has made"
)
STILL_RUNS: Final = "only output was asked for"


_STRANGER: Final = Owner()


class _Wish(NamedTuple):
    client: int
    message: m.FollowCommand
    past: PastCommand


class Bounds(NamedTuple):
    """How many commands that have ended are kept, and bytes of all, and of one."""

    commands: int = limits.HISTORY_COMMANDS
    size: int = limits.HISTORY_BYTES
    of_one: int = limits.HISTORY_OF_ONE


USUAL: Final = Bounds()


class CommandHistory:
    """What was told of commands.

    Args:
        there: the clients that are there and have given commands.
        wall: returns the time in seconds since 1970.
    """

    def __init__(
        self, there: Container[int], wall: Callable[[], float] = time.time, bounds: Bounds = USUAL
    ) -> None:
        self._there, self._wall, self._bounds = there, wall, bounds
        self._owners: dict[int, Owner] = {}
        """By client; of those that are gone, as long as there are commands of theirs."""
        self._sessions: set[int] = set()
        self._left: dict[str, float] = {}
        """When a client that is gone was heard of last, by holder."""
        self._pasts: OrderedDict[tuple[int, int], PastCommand] = OrderedDict()
        """By client and number, in the order in which they came."""
        self._ended: OrderedDict[tuple[int, int], PastCommand] = OrderedDict()
        """Those that have ended, the first one first; sort them if they are not ``_is_ordered``."""
        self._is_ordered = True
        self._counts: Counter[int] = Counter()
        """How many commands there are of each client."""
        self._dropped: dict[str, int] = {}
        self._followed: dict[int, dict[int, PastCommand]] = {}
        """By client that follows, and its own number."""
        self._wishes: list[_Wish] = []
        self._questions: list[tuple[int, m.CommandHistory, list[tuple[int, float]]]] = []
        self._size = 0
        self._place = 0
        self._notes: list[bytes] | None = None
        """What was noted and is not written; None if nothing is written."""
        self._unsettled: dict[tuple[int, int], PastCommand] = {}
        """Commands that had not ended when another controller was killed; what became of them is not known yet."""
        self.is_away: Callable[[int], bool] = lambda client: False
        """Whether a client that may come back does not hear what it is told."""
        self._seen: dict[int, float] = {}
        """When clients were there for certain, for the last time; in seconds since 1970."""
        self._learnt: list[tuple[int, About, Sequence[Buffer]]] = []
        """What is told of commands, but not to their clients."""

    # --- clients ---------------------------------------------------------------------------------------------

    def came(self, client: int, holder: str) -> None:
        """A client is there, which holds this furl."""
        self._sessions.add(client)
        self._owners[client] = self._owner(client)._replace(holder=holder)

    def origin(self, client: int, message: m.CommandOrigin) -> None:
        """A client says who it is."""
        host, user = message.host[: limits.LABEL], message.user[: limits.LABEL]
        self._owners[client] = self._owner(client)._replace(host=host, user=user)

    def client_lost(self, client: int, heard: float | None = None) -> None:
        """A client is gone; ``heard``: when it was heard of last, in seconds since 1970."""
        self._sessions.discard(client)
        for number, past in self._followed.pop(client, {}).items():
            past.followers.pop((client, number), None)
        owner = self._owner(client)
        if heard is not None:
            self._left[owner.holder] = max(heard, self._left.get(owner.holder, 0.0))
            self._write(self._totals(owner.holder))
        self._forget_owner(client)

    def _owner(self, client: int) -> Owner:
        return self._owners.get(client, _STRANGER)

    def _forget_owner(self, client: int) -> None:
        if client not in self._sessions and not self._counts[client]:
            self._owners.pop(client, None)
            self._seen.pop(client, None)
            del self._counts[client]

    # --- commands --------------------------------------------------------------------------------------------

    def begun(self, work: QueuedCommand, engines: Ids) -> None:
        """A client has given a command to these engines."""
        if work.is_before_end or work.method in _QUESTIONS:
            return
        known = self._pasts.get((work.client, work.id))
        if known is not None and known.is_open and known.work is None:  # of another controller, and has not begun
            self.goes_on(*known.name, engines)
            known.work = work
            return
        past = PastCommand.of(self._place + 1, work, engines, self._wall())
        self._keep(past)
        self._seen[past.client] = past.given
        if self._notes is not None:
            self._notes.append(notes.encode(past.as_given(*self._owner(past.client), past.given)))
        self._shrink()

    def _keep(self, past: PastCommand) -> None:
        self._place += 1
        if (before := self._pasts.get(past.name)) is not None:  # a number may be used again once it is free
            self._drop(before)
        self._pasts[past.name] = past
        self._counts[past.client] += 1
        self._size += past.size

    def pass_on(self, effects: list[Effect]) -> list[Effect]:
        """Note what clients are told of commands; return it, with what others are told that follow these."""
        told: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, _TOLD):
                self._pass_on(effect.to, effect.message, effect.body, told)
            elif isinstance(effect, Forward) and effect.sinks and isinstance(effect.sinks[0][1], m.Result):
                told.append(self._forwarded(effect, *effect.sinks[0]))
            else:
                told.append(effect)
        learnt, self._learnt = self._learnt, []
        for client, message, body in learnt:
            if (past := self._pasts.get((client, message.id))) is not None:
                news = self._note(past, message, body, told)
                past.may_come_again(message if news is None else news)
        wishes, self._wishes = self._wishes, []
        for wish in wishes:
            told += self._tell(wish)
        questions, self._questions = self._questions, []
        for client, question, away in questions:
            told.append(Send(client, m.Reply(question.id, self.listed(client, question, away))))
        return told

    def _pass_on(self, client: int, message: Any, body: Sequence[Buffer], told: list[Effect]) -> None:
        if client in self._there:
            told.append(Send(client, message, body))
        past = self._pasts.get((client, message.id))
        if past is not None and not isinstance(message, m.Accepted):
            self._note(past, message, body, told)

    def _note(self, past: PastCommand, message: About, body: Sequence[Buffer], told: list[Effect]) -> About | None:
        news = past.news(message)
        if news is None:
            return None
        for follower, number in past.followers:
            told.append(Send(follower, msgspec.structs.replace(news, id=number), body))
        now = self._wall()
        if self._notes is not None:
            is_missed = self.is_away(past.client)
            if not is_missed:
                self._seen[past.client] = now
            parts = [bytes(part) for part in body]
            self._notes.append(notes.encode(notes.Told(past.client, past.number, now, news, parts, is_missed)))
        self._has_been_told(past, news, body, now)
        return news

    def _has_been_told(self, past: PastCommand, message: About, body: Sequence[Buffer], now: float) -> None:
        before = past.size
        past.note(message, body, now)
        past.shed(self._bounds.of_one)
        self._size += past.size - before
        self._look(past, now)
        self._shrink()

    def _look(self, past: PastCommand, now: float) -> None:
        """See whether a command has ended."""
        if not past.is_open and past.name not in self._ended:
            past.ended = now
            self._unsettled.pop(past.name, None)
            self._ended[past.name] = past
        if not (past.is_open or past.lost):  # else it may still be told that a large answer did not arrive
            self._release(past)

    def _release(self, past: PastCommand) -> None:
        """Nobody follows a command any more."""
        for client, number in past.followers:
            self._followed[client].pop(number, None)
        past.followers.clear()

    def large(self, work: QueuedCommand, engines: Ids, ok: bool) -> bool:
        """Engines have answered too much to be kept, and the client is gone; return whether others want it."""
        past = self._pasts.get((work.client, work.id))
        if past is None:
            return False
        if not past.followers:
            self._is_large(past, engines, ok)
        return bool(past.followers)

    def _is_large(self, past: PastCommand, engines: Ids, ok: bool) -> None:
        now = self._wall()
        self._write(notes.Large(*past.name, now, engines, ok))
        past.large(engines, ok)
        self._look(past, now)

    def _forwarded(self, effect: Forward, client: int, message: m.AnyMessage) -> Forward:
        """A large answer goes to those who are there; it is not kept."""
        assert isinstance(message, m.Result)
        past = self._pasts.get((client, message.id))
        if past is None:
            return effect
        self._is_large(past, Ids.of(message.engines), message.ok)
        others = tuple(
            (follower, msgspec.structs.replace(message, id=number)) for follower, number in past.followers
        )
        sinks = (*effect.sinks, *others) if client in self._there or not others else others
        return Forward(effect.source, effect.stream, effect.size, sinks, effect.keep)

    def _shrink(self) -> None:
        """Drop what has ended first; if that is not enough, what the oldest of those have printed that run."""
        bounds = self._bounds
        if not self._is_ordered and (len(self._ended) > bounds.commands or self._size > bounds.size):
            self._ended = OrderedDict(sorted(self._ended.items(), key=lambda item: item[1].ended))
            self._is_ordered = True
        while self._ended and (len(self._ended) > bounds.commands or self._size > bounds.size):
            self._drop(next(iter(self._ended.values())))
        for past in list(self._pasts.values()) if self._size > bounds.size else ():
            before = past.size
            past.shed(max(0, before - (self._size - bounds.size)))
            self._size += past.size - before
            if self._size <= bounds.size:
                return

    def _drop(self, past: PastCommand) -> None:
        del self._pasts[past.name]
        self._ended.pop(past.name, None)
        self._unsettled.pop(past.name, None)
        self._size -= past.size
        holder = self._owner(past.client).holder
        self._dropped[holder] = self._dropped.get(holder, 0) + 1
        self._release(past)
        self._counts[past.client] -= 1
        self._forget_owner(past.client)

    # --- what is written -------------------------------------------------------------------------------------

    def _write(self, note: notes.Note) -> None:
        if self._notes is not None:
            self._notes.append(notes.encode(note))

    def _given(self, past: PastCommand) -> notes.Given:
        return past.as_note(*self._owner(past.client), self._seen.get(past.client, 0.0))

    def _totals(self, holder: str) -> notes.Totals:
        return notes.Totals(holder, self._dropped.get(holder, 0), self._left.get(holder, 0.0))

    def written(self) -> list[bytes]:
        """Return what was noted since the last call, encoded; from the first call on, all is."""
        found = self._notes
        if found is None or found:  # else the same list will do
            self._notes = []
        return found or []

    def whole(self) -> Iterator[bytes]:
        """Yield notes of all that is kept, encoded."""
        for holder in self._dropped.keys() | self._left.keys():
            yield notes.encode(self._totals(holder))
        for past in self._pasts.values():
            yield notes.encode(self._given(past))

    # --- after a restart -------------------------------------------------------------------------------------

    def restore(self, written: Iterable[bytes]) -> None:
        """Begin with what another controller has written, in its order; before anything else is called.

        Raises:
            msgspec.DecodeError: it is not that; what came before it is kept.
        """
        try:
            for data in written:
                self._read(notes.decode(data))
        finally:
            self._unsettled = {past.name: past for past in self._pasts.values() if past.is_open}
            self._dropped = +Counter(self._dropped)
            self._left = {holder: left for holder, left in self._left.items() if left}

    def _read(self, note: notes.Note) -> None:
        if isinstance(note, notes.Totals):
            self._dropped[note.holder], self._left[note.holder] = note.dropped, note.left
        elif isinstance(note, notes.Given):
            self._restore(note)
        elif (past := self._pasts.get((note.client, note.number))) is not None:
            if isinstance(note, notes.Told):
                if not note.is_missed:
                    self._seen[note.client] = note.when
                self._has_been_told(past, note.message, note.body, note.when)
            else:
                past.large(Ids.of(note.engines), note.ok)
                self._look(past, note.when)

    def _restore(self, note: notes.Given) -> None:
        self._owners[note.client] = Owner(note.holder, note.host, note.user)
        self._seen[note.client] = max(note.seen, note.given)
        past = PastCommand.restored(self._place + 1, note)
        before = self._pasts.get(past.name)
        if before is not None and before.given == past.given:  # see :meth:`goes_on`
            self._size += past.size - before.size
            self._ended.pop(past.name, None)
            self._pasts[past.name], past.place = past, before.place
        else:
            self._keep(past)
        if not past.is_open:
            self._ended[past.name] = past
            self._is_ordered = False
        self._shrink()

    @property
    def clients(self) -> Collection[int]:
        """The numbers of all clients that are known, also of those that are gone."""
        return self._owners.keys()

    def seen(self, client: int) -> float | None:
        """Return when a client was there for the last time, in seconds since 1970; None if that is not known."""
        return self._seen.get(client)

    @property
    def owners(self) -> set[int]:
        """The clients of commands of which it is not known what became, see :meth:`unsettled`."""
        return {past.client for past in self._unsettled.values()}

    def unsettled(self, client: int) -> list[PastCommand]:
        """Return a client's commands which had not ended when another controller was killed, to be settled now."""
        found = [past for past in self._unsettled.values() if past.client == client]
        for past in found:
            del self._unsettled[past.name]
        return found

    def runs(self, work: QueuedCommand) -> None:
        """A command of another controller runs, or waits, with this one."""
        past = self._pasts.get((work.client, work.id))
        if past is not None and past.is_open:
            past.work, work.label = work, past.label

    def find(self, client: int, number: int) -> PastCommand | None:
        """Return a client's command with this number, if it is here."""
        return self._pasts.get((client, number))

    def goes_on(self, client: int, number: int, engines: Ids, lacks: Iterable[int] = ()) -> None:
        """A client has sent a command of another controller again: these engines are to answer it.

        Of those that it ``lacks`` it has heard nothing.
        """
        self._unsettled.pop((client, number), None)
        past = self._pasts.get((client, number))
        if past is not None and (past.engines != engines or past.answered.common(lacks)):
            before = past.size
            past.reopen(lacks)
            past.is_for(engines)
            self._size += past.size - before
            if past.is_open:
                past.ended = 0.0
                self._ended.pop(past.name, None)
            self._write(self._given(past))

    def learn(self, client: int, message: About, body: Sequence[Buffer] = ()) -> None:
        """Note at the end of this turn what a client is not told of its command, as it is gone, or knows."""
        self._learnt.append((client, message, body))

    # --- requests --------------------------------------------------------------------------------------------

    def ask(self, client: int, message: m.CommandHistory, away: list[tuple[int, float]]) -> None:
        """Answer at the end of this turn, see :meth:`listed`."""
        self._questions.append((client, message, away))

    def listed(self, client: int, message: m.CommandHistory, away: Iterable[tuple[int, float]]) -> dict[str, Any]:
        """Return the answer to :class:`~ipmpi.protocol.messages.CommandHistory`.

        Args:
            client: that asks.
            message: what it asks for.
            away: clients that may come back, and when each was heard of last, in seconds since 1970.
        """
        holder = self._owner(client).holder
        rows: list[list[Any]] = []
        size, more = 0, False
        for past in self._pasts.values():
            if past.place <= message.after or self._owner(past.client).holder != holder:
                continue
            if message.client and past.name != (message.client, message.number):
                continue
            if more := size > limits.HISTORY_PAGE:
                break
            whose = 0 if past.client == client else 1 if past.client in self._sessions else 2
            _, host, user = self._owner(past.client)
            rows.append(past.row(whose, host, user))
            size += past.listed_size
        times = [heard for other, heard in away if other != client and self._owner(other).holder == holder]
        times += [self._left[holder]] if holder in self._left else []
        return {
            "commands": rows, "more": more, "dropped": self._dropped.get(holder, 0), "now": self._wall(),
            "left": max(times, default=None),
        }  # fmt: skip

    def follow(self, client: int, message: m.FollowCommand) -> None:
        """Tell a client of a command at the end of this turn, and from then on.

        Raises:
            ClientError: there is none of this name for the holder of its furl, or it may not use this number.
        """
        holder = self._owner(client).holder
        past = self._pasts.get((message.client, message.number))
        if past is None or self._owner(past.client).holder != holder:
            raise ClientError(self._unknown(message, holder))
        if message.id in self._followed.get(client, {}) or (client, message.id) in self._pasts:
            raise ClientError(f"command {message.id} is under way already")
        if len(self._followed.get(client, {})) >= limits.HISTORY_COMMANDS:
            raise ClientError(f"a client may follow {limits.HISTORY_COMMANDS:,} commands, and not more")
        self._wishes.append(_Wish(client, message, past))

    def _unknown(self, message: m.FollowCommand, holder: str) -> str:
        there = [past for past in self._pasts.values() if self._owner(past.client).holder == holder]
        shown = f"{there[0].shown} is the oldest" if there else "there is none"
        return (
            f"there is no command {message.client}-{message.number}. The last {self._bounds.commands:,} commands "
            f"that have ended are kept, with {sized(self._bounds.size)} of what they have printed and answered: "
            f"{shown}; see mec.history()"
        )

    def work(self, client: int, number: int) -> QueuedCommand | None:
        """Return the command that a client follows under this number, if it has not ended."""
        wished = (each.past for each in self._wishes if (each.client, each.message.id) == (client, number))
        past = self._followed.get(client, {}).get(number) or next(wished, None)
        return None if past is None else past.work

    def _tell(self, wish: _Wish) -> list[Effect]:
        client, asked, past = wish
        if client not in self._sessions:
            return []
        if self._pasts.get(past.name) is not past:
            text = self._unknown(asked, self._owner(client).holder)
            return [Send(client, m.Refused(asked.id, "ClientError", text))]
        told: list[Effect] = [Send(client, m.Accepted(asked.id, past.engines))]
        told += [Send(client, each) for each in past.printed_since(asked.since, asked.id)]
        if not asked.waits:
            undone = m.Undone(asked.id, past.engines, "ResultNotCompleted", STILL_RUNS)
            return [*told, Send(client, undone)]
        if past.left_out and not asked.since:
            told.append(Send(client, m.Notice(f"{past.label}: {past.what_is_left_out()}")))
        told += [Send(client, each, body) for each, body in past.answers_for(asked.id)]
        if past.lost:
            text = f"{past.label} {NOT_KEPT}"
            told.append(Send(client, m.Undone(asked.id, past.lost.ids(), "ClientError", text)))
        if past.is_open:
            past.followers[client, asked.id] = None
            self._followed.setdefault(client, {})[asked.id] = past
        return told
