"""Ending commands that do not end by themselves, in steps, each of which is reported.

A command that exceeds its timeout, or that the user has cancelled, is interrupted. If engines do not react, their
node agents are asked where they are. Then the call ends without their answers, or their sets are restarted.

If some engines have failed, and all others wait inside MPI, nothing would end the call: it ends without them, too.

Everything here happens in the session's thread, which must not wait: replies come to callbacks.
"""

from __future__ import annotations

import concurrent.futures
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from ...errors import text_of
from ...ids import Ids
from ...protocol import messages
from ...protocol.inquiries import RankStack
from ...protocol.operations import Failed
from ...ranges import engines_named
from .notices import say
from .partial import CommandFuture, WaitSettings
from .stacks import ask_stacks, stacks_of
from .standstill import RESTART, place, waits_for_others, why_they_stay

if TYPE_CHECKING:
    from ...transport.loop import Timer
    from .enginereply import EngineReply

FIRST_LOOK: Final = 1.0
SECOND_LOOK: Final = 1.5
"""Seconds from the first failure until the first look at where the others are, and from then until the second one,
which shows whether they have moved: a collective of large arrays takes a second, too."""

LONGEST_PAUSE: Final = 30.0
"""Longest time in seconds between two looks at engines that do not wait; it doubles, as each look halts them."""

ANSWERED_WITHIN: Final = 0.5
"""Seconds in which the answers of freed engines are here."""

_INTERRUPTED: Final = "KeyboardInterrupt"


class CommandSession(Protocol):
    """The part of :class:`ipmpi.client.session.session.Session` that this module uses."""

    def request(self, make: Callable[[int], messages.AnyMessage]) -> concurrent.futures.Future[Any]:
        """Send a request."""

    def post(self, call: Callable[[], object]) -> None:
        """Call it in the session's thread."""

    def post_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call it there after some seconds."""

    def give_up(self, number: int, engines: Sequence[int], error: str, text: str) -> None:
        """End the wait for these engines' replies to a command."""


class Escalation:
    """The steps by which one call is ended.

    Args:
        session: the session.
        future: the replies to the commands of the call.
        label: the call, for messages.
        settings: those of the client.
    """

    def __init__(self, session: CommandSession, future: CommandFuture, label: str, settings: WaitSettings) -> None:
        self._session = session
        # What has the replies refers to the pending result, which has this object: a cycle would keep them.
        self._future = weakref.ref(future)
        self._label = label
        self._settings = settings

    # --- what begins it, from any thread -------------------------------------------------------------------

    def after(self, seconds: float) -> None:
        """Begin after so many seconds, if the call has not ended."""
        self._session.post(lambda: self._set_timer(seconds))

    def cancel(self) -> None:
        """Interrupt the call now, and say which engines do not react and why."""
        self._interrupt(lambda stuck, why: say(f"{engines_named(stuck)} did not react: {self._stays(why)}"))

    def watch_failures(self) -> None:
        """End the call if engines have failed and all others wait inside MPI."""
        future = self._future()
        watch = _FailureWatch(self._session, self._future, self._settings)
        for part in future.so_far if future is not None else ():
            part.on_failure(watch.failed)

    # --- the steps -----------------------------------------------------------------------------------------

    def _set_timer(self, seconds: float) -> None:
        timer = self._session.post_later(seconds, lambda: self._time_is_up(seconds))
        future = self._future()
        if future is not None:
            future.add_done_callback(lambda _: timer.cancel())

    def _open(self) -> CommandFuture | None:
        """The replies, if some are missing."""
        future = self._future()
        return None if future is None or future.done() else future

    def _time_is_up(self, seconds: float) -> None:
        future = self._open()
        if future is None:
            return
        say(f"{self._label} has not ended within {seconds:g} s: interrupting {self._targets(future)}")
        self._interrupt(lambda stuck, why: self._still_runs(seconds, stuck, why))

    def _targets(self, future: CommandFuture) -> str:
        """Name the engines that have not replied, before any has replied, too."""
        unknown = any(part.order is None for part in future.so_far)
        running = list(self._settings.engines()) if unknown else _running(future)
        return engines_named(running) if running else "its engines"

    def _interrupt(self, still_runs: Callable[[list[int], str], object]) -> None:
        future = self._open()
        if future is None:
            return
        numbers = future.numbers
        answer = self._session.request(lambda i: messages.Interrupt(i, None, numbers))

        def reacted(arrived: concurrent.futures.Future[Any]) -> None:
            told = [] if arrived.exception() is not None else arrived.result()[1]
            stuck = sorted(engine for engines, _ in told for engine in Ids.unpacked(engines))
            if stuck and self._open() is not None:
                _ask_where(self._session, stuck, lambda stacks: still_runs(stuck, why_they_stay(stacks, stuck)))

        answer.add_done_callback(reacted)

    def _stays(self, why: str) -> str:
        return f"{self._label} still runs. {why}. {RESTART}"

    def _still_runs(self, seconds: float, stuck: list[int], why: str) -> None:
        if self._open() is None:
            return
        if self._settings.on_timeout == "free" and self._settings.free is not None:
            say(f"{engines_named(stuck)} did not react: {why}. Freeing them")
            _free(self._session, self._settings.free, stuck, lambda told: self._give_up(seconds, stuck, told))
        elif self._settings.on_timeout == "restart":
            say(f"{engines_named(stuck)} did not react: {why}. Restarting the set")
            self._restart(seconds, stuck, why)
        else:
            self._give_up(seconds, stuck, why)

    def _restart(self, seconds: float, stuck: list[int], why: str) -> None:
        answer = self._session.request(lambda i: messages.Restart(i, stuck))

        def answered(future: concurrent.futures.Future[Any]) -> None:
            error = future.exception()
            if error is not None:
                say(f"they are not restarted: {text_of(error)}")
                self._give_up(seconds, stuck, why)

        answer.add_done_callback(answered)

    def _give_up(self, seconds: float, stuck: list[int], why: str) -> None:
        text = f"it has not ended within {seconds:g} s, nor after an interrupt: {self._stays(why)}"
        future = self._open()
        for number, part in zip(future.numbers, future.so_far, strict=False) if future is not None else ():
            missing = [engine for engine in stuck if engine not in part.look()[0]]
            self._session.give_up(number, missing, "CommandTimeout", text)


class _FailureWatch:
    """Looks twice where the other engines are after a failure."""

    def __init__(
        self, session: CommandSession, future: weakref.ref[CommandFuture], settings: WaitSettings
    ) -> None:
        self._session = session
        self._settings = settings
        self._has_failed = False
        self._future = future
        self._pause = FIRST_LOOK

    def failed(self) -> None:
        """An engine has failed."""
        if not self._has_failed:
            self._has_failed = True
            self._session.post(lambda: self._session.post_later(FIRST_LOOK, self._look))

    def _look(self, before: Mapping[int, tuple[object, ...]] | None = None) -> None:
        future = self._future()
        if future is None or future.done() or self._settings.on_failure == "wait":
            return
        running = _running(future)
        if running:
            _ask_where(self._session, running, lambda stacks: self._seen(running, stacks, before))

    def _look_again(self, places: Mapping[int, tuple[object, ...]] | None) -> None:
        self._pause = SECOND_LOOK if places else min(2 * self._pause, LONGEST_PAUSE)
        self._session.post_later(self._pause, lambda: self._look(places))

    def _seen(
        self, running: list[int], stacks: Mapping[int, RankStack], before: Mapping[int, tuple[object, ...]] | None
    ) -> None:
        future = self._future()
        if future is None or future.done():
            return
        places = {engine: place(stack) for engine, stack in stacks.items()}
        wait = waits_for_others(stacks, running)
        if not wait or before is None or any(before.get(engine) != places[engine] for engine in running):
            self._look_again(places if wait else None)
            return
        failed = sorted({engine for part in future.so_far for engine in part.failed})
        text = (
            f"{engines_named(failed)} failed, and nothing ends this rank's wait: "
            f"{why_they_stay(stacks, running)}. {RESTART}"
        )
        if self._settings.on_failure == "free" and self._settings.free is not None:
            say(f"{engines_named(failed)} failed, and the others wait in MPI: freeing {engines_named(running)}")
            _free(self._session, self._settings.free, running, lambda told: self._give_up(text))
        else:
            self._give_up(text)

    def _give_up(self, text: str) -> None:
        future = self._future()
        if future is None or future.done():
            return
        for number, part in zip(future.numbers, future.so_far, strict=False):
            self._session.give_up(number, part.look()[2], "PeerError", text)


def _free(
    session: CommandSession,
    free: Callable[[list[int]], object],
    engines: list[int],
    give_up: Callable[[str], object],
) -> None:
    """Free engines in a thread, as it waits, and say what was done.

    ``give_up`` is called with these words in the session's thread, when the engines' own answers should be here.
    """

    def run() -> None:
        try:
            told = str(free(engines))
        except Exception as error:
            told = f"they were not freed: {text_of(error)}"
        say(told)
        session.post(lambda: session.post_later(ANSWERED_WITHIN, lambda: give_up(told)))

    threading.Thread(target=run, name="ipmpi-free", daemon=True).start()


def timed_out(replies: Sequence[EngineReply], seconds: float) -> list[EngineReply]:
    """Return the replies of a call with a timeout, with interrupts as that timeout."""
    text = f"it was interrupted after {seconds:g} s"
    found = []
    for reply in replies:
        outcome = reply.outcome
        if reply.undone is not None and reply.undone[0] == _INTERRUPTED:
            reply = reply._replace(undone=("CommandTimeout", f"{reply.undone[1]} within {seconds:g} s"))
        elif isinstance(outcome, Failed) and outcome.type_name.rpartition(".")[2] == _INTERRUPTED:
            failed = msgspec.structs.replace(outcome, type_name="CommandTimeout", text=text)
            reply = reply._replace(outcome=failed, body=[])
        found.append(reply)
    return found


def _ask_where(
    session: CommandSession, engines: list[int], then: Callable[[dict[int, RankStack]], object]
) -> None:
    """Ask node agents where engines are; ``then`` is called with what is known of them, perhaps nothing."""
    answer = ask_stacks(session, engines)

    def answered(future: concurrent.futures.Future[Any]) -> None:
        then({} if future.exception() is not None else stacks_of(future.result()))

    answer.add_done_callback(answered)


def _running(future: CommandFuture) -> list[int]:
    """The engines that have not replied, as far as they are known."""
    return sorted({engine for part in future.so_far for engine in part.look()[2]})
