"""Looks where engines are when a command takes long, and says so if they wait for each other in vain."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from ...errors import KernelError
from ...protocol import inquiries, messages
from .notices import say
from .partial import CommandFuture, WaitSettings, in_short
from .stacks import ask_stacks, stacks_of
from .verdict import CALLS, Answered, Look, judge, looked_into, undecided

_SHORTEST: Final = 0.05
_LABEL: Final = 48
_PLACES: Final = 4
"""Different places at most at which an engine is halted to see whether its C code waits in MPI."""
_LEAST: Final = 1.0
"""Seconds, where less is asked for: engines are not to be asked all the time."""


class Asks(Protocol):
    """The part of a session that is needed here: see :class:`ipmpi.client.session.session.Session`."""

    notices: list[str]

    @property
    def engines(self) -> list[int]:
        """The ids of all engines."""

    def request(self, make: Callable[[int], messages.AnyMessage]) -> concurrent.futures.Future[Any]:
        """Send a request to the controller."""

    def post(self, call: Callable[[], object]) -> None:
        """Call it in the session's thread."""

    def post_later(self, seconds: float, call: Callable[[], object]) -> object:
        """As :meth:`post`, after some seconds; only from the session's thread."""


class _Watched:
    """A command that has not ended.

    Attributes:
        future: its replies.
        label: its name in notices.
        looked: when its engines were asked last; at first, when it was sent.
        before: what the last look has shown.
        is_told: whether a notice has come.
    """

    def __init__(self, future: CommandFuture, label: str) -> None:
        self.future = future
        self.label = label
        self.looked = time.monotonic()
        self.before: Look | None = None
        self.is_told = False

    def due(self, patience: float) -> float:
        """When to look next: twice in the time after which a notice is to come."""
        return self.looked + max(patience, _LEAST) / 2

    @property
    def is_debugged(self) -> bool:
        """Whether a debugger in it waits for its user: others may well wait for that engine."""
        return any(talk.waiting() for talk in self.future.talks)

    def waits_for(self, known: list[int]) -> list[int]:
        """The engines that have not answered."""
        waits: set[int] = set()
        for part in self.future.so_far:
            done, _, missing = part.look()
            waits.update(missing if part.order is not None else set(known) - set(done))
        return sorted(waits)

    def answered(self) -> Answered:
        """The engines that have."""
        failed: dict[int, str] = {}
        done: set[int] = set()
        for part in self.future.so_far:
            ids, failures, _ = part.look()
            done.update(ids)
            failed.update({reply.engine: in_short(reply) for reply in failures})
        return Answered(failed, sorted(done - failed.keys()))


def _shortened(label: str) -> str:
    """The label of a command, for a line that says more important things."""
    return label if len(label) <= _LABEL else f"{label[: _LABEL - 4]}...)"


class HangWatch:
    """Watches the commands of a client.

    There is a timer only while a command is open, and it is set again only when it rings. So short commands cost
    next to nothing. ``settings.hang_after`` says how long to wait.

    Thread-safety: :meth:`watch` and :meth:`settings_changed` may be called from any thread.
    """

    def __init__(self, session: Asks, settings: WaitSettings) -> None:
        self._session = session
        self._settings = settings
        self._lock = threading.Lock()
        self._keys = itertools.count()
        self._open: dict[int, _Watched] = {}
        self._is_set = False
        self._rings = 0
        """Number of the timer that counts; earlier ones do nothing."""

    def watch(self, future: object, label: str) -> None:
        """Watch a command that was sent."""
        if self._settings.hang_after is None or not isinstance(future, CommandFuture):
            return
        watched, key = _Watched(future, label), next(self._keys)
        with self._lock:
            self._open[key] = watched
            is_set, self._is_set = self._is_set, True
        future.add_done_callback(lambda _: self._forget(key))
        if not is_set:
            self._session.post(self._set)

    def settings_changed(self) -> None:
        """``settings.hang_after`` was changed."""
        with self._lock:
            self._is_set = True
        self._session.post(self._set)

    def _forget(self, key: int) -> None:
        with self._lock:
            self._open.pop(key, None)

    # --- in the session's thread -----------------------------------------------------------------------------

    def _set(self) -> None:
        """Set the timer, if there is anything to wait for."""
        self._rings += 1
        number, patience = self._rings, self._settings.hang_after
        with self._lock:
            untold = [(watched.looked, key) for key, watched in self._open.items() if not watched.is_told]
            self._is_set = bool(untold) and patience is not None
            if not untold or patience is None:
                return
            key = min(untold)[1]
            delay = self._open[key].due(patience) - time.monotonic()
        # By its key: a timer must not keep what belongs to a command that has ended, such as its client.
        self._session.post_later(max(_SHORTEST, delay), lambda: self._rung(number, key))

    def _rung(self, number: int, key: int) -> None:
        if number != self._rings:
            return
        patience, now = self._settings.hang_after, time.monotonic()
        with self._lock:
            watched = self._open.get(key)
        if patience is None or watched is None or now < watched.due(patience):
            self._set()
            return
        watched.looked = now
        targets = watched.waits_for(self._session.engines)
        if watched.is_debugged:
            watched.before = None
            self._set()
            return
        if not targets or self._is_queued(watched, targets):
            self._set()
            return
        try:
            future = ask_stacks(self._session, targets, inquiries.ReadStacks(calls=CALLS, quick=True))
        except KernelError:  # the session is over
            return
        future.add_done_callback(lambda came: self._came(watched, now, patience, came))

    def _is_queued(self, watched: _Watched, targets: list[int]) -> bool:
        """Whether an earlier command of this client has to end first on some of these engines."""
        with self._lock:
            earlier = list(itertools.takewhile(lambda each: each is not watched, self._open.values()))
        known = self._session.engines
        return any(not set(targets).isdisjoint(each.waits_for(known)) for each in earlier)

    def _came(self, watched: _Watched, at: float, patience: float, came: concurrent.futures.Future[Any]) -> None:
        found = _stacks(came)
        if found is None:  # an engine was lost, or the session: the command ends
            self._set()
            return
        look, before, answered = Look(at, *found), watched.before, watched.answered()
        watched.before = look
        text = judge(before, look, answered, patience)
        places = {} if text or before is None else undecided(before, look, answered, patience)
        if places and len(places) <= _PLACES:
            self._look_into(watched, look._replace(at=before.at) if before else look, look, places, patience)
            return
        self._tell(watched, text)

    def _look_into(
        self, watched: _Watched, before: Look, look: Look, places: dict[int, list[int]], patience: float
    ) -> None:
        """Ask for functions of C, of one engine at each place: it is halted for that."""
        try:
            asked = ask_stacks(self._session, list(places))
        except KernelError:  # the session is over
            return

        def came(answer: concurrent.futures.Future[Any]) -> None:
            found = _stacks(answer)
            native = {} if found is None else found[0]
            then, now = looked_into(before, places, native), looked_into(look, places, native)
            self._tell(watched, judge(then, now, watched.answered(), patience))

        asked.add_done_callback(came)

    def _tell(self, watched: _Watched, text: str) -> None:
        if text and not watched.future.done():
            watched.is_told = True
            notice = f"{_shortened(watched.label)}: {text}"
            self._session.notices.append(notice)
            say(notice)
        self._set()


def _stacks(
    came: concurrent.futures.Future[Any],
) -> tuple[dict[int, inquiries.RankStack], list[int]] | None:
    """The stacks in an answer, and the engines without one; None if there is no answer."""
    try:
        reply = came.result()
        return stacks_of(reply), list(reply[1])
    except (KernelError, msgspec.DecodeError):
        return None
