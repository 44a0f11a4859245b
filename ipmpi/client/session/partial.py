"""The replies of a call that have arrived while others are still missing.

If one engine raises while the others wait for it in a collective, a call that waits for all engines would wait
forever without a reason shown. So a line about the failures is printed, once, for any number of engines.
"""

from __future__ import annotations

import concurrent.futures
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from ...errors import ClientError, CompositeError
from ...protocol.operations import Failed
from ...ranges import ranges
from .calltimes import CallTimes
from .commandoutput import CommandOutput
from .debuggertalk import DebuggerTalk
from .failures import failure_of
from .waiting import SessionFuture

if TYPE_CHECKING:
    from .enginereply import EngineReply

PARTIAL_AFTER: Final = 2.0
"""Seconds after the first failure; by then engines that fail for the same reason have failed, too."""

PROGRESS_AFTER: Final = 2.0
"""Seconds of waiting before the status line is shown."""

HANG_AFTER: Final = 60.0
"""Seconds without progress until a notice says where the engines are."""

OnInterrupt = Literal["ranks", "detach"]
"""What the first Ctrl-C of a wait does: interrupt the ranks that run the call, or end the wait."""

OnTimeout = Literal["interrupt", "free", "restart"]
OnFailure = Literal["end", "free", "wait"]
_Mode = TypeVar("_Mode", bound=str)

_ADVICE: Final[dict[OnInterrupt, str]] = {
    "ranks": "Ctrl-C interrupts running code, and mec.restart() ends waits inside MPI",
    "detach": ("Ctrl-C ends the wait. Then mec.interrupt() ends running code, and mec.restart() waits inside MPI"),
}

_MOST: Final = 3
"""Number of different failures that the line shows."""

_TEXT: Final = 120


class SoFar:
    """The replies to one command so far: added in the session's thread, read in any.

    Attributes:
        order: the ids of the target engines; None while unknown.
        done: the engines that have replied.
        failed: the replies that are failures, by engine.
    """

    def __init__(self, order: Sequence[int] | None) -> None:
        self.order = order
        self.done: set[int] = set()
        self.failed: dict[int, EngineReply] = {}
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], object]] = []

    def add(self, replies: Iterable[EngineReply], order: Sequence[int] | None) -> None:
        """Add replies that have arrived."""
        with self._lock:
            self.order = order
            for reply in replies:
                self.done.add(reply.engine)
                if not reply.ok:
                    self.failed[reply.engine] = reply
            listeners = list(self._listeners) if self.failed else []
        for listener in listeners:
            listener()

    def on_failure(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` when there is a failure: now, or in the session's thread."""
        with self._lock:
            self._listeners.append(listener)
            has_failed = bool(self.failed)
        if has_failed:
            listener()

    def look(self) -> tuple[list[int], list[EngineReply], list[int]]:
        """Return the engines that have replied, the failures, and the engines that have not replied."""
        with self._lock:
            return sorted(self.done), list(self.failed.values()), sorted(set(self.order or ()) - self.done)


class CommandFuture(SessionFuture):
    """The replies to the commands of one call; :attr:`so_far` has those that have arrived.

    Attributes:
        outputs: what the engines print meanwhile, one per command.
        numbers: the numbers of the commands in their session.
        talks: their debuggers, one per command.
    """

    def __init__(
        self,
        so_far: Sequence[SoFar],
        outputs: Sequence[CommandOutput] = (),
        numbers: Sequence[int] = (),
        talks: Sequence[DebuggerTalk] = (),
    ) -> None:
        super().__init__()
        self.so_far = list(so_far)
        self.outputs = list(outputs)
        self.numbers = list(numbers)
        self.talks = list(talks)


class WaitSettings:
    """How a client and its views wait for calls.

    Attributes:
        partial_after: seconds after the first failure until a waiting user is told; None for never.
        progress_after: seconds until the status line is shown; None for never.
        hang_after: seconds without progress until a notice says where the engines are; None for never.
        on_interrupt: what the first Ctrl-C does: ``'ranks'`` or ``'detach'``.
        on_timeout: what a call with a timeout does when engines do not react to the interrupt: ``'interrupt'`` for
            no more than that, ``'free'`` or ``'restart'``.
        on_failure: what a call does when some engines have failed and all others wait inside MPI: ``'end'``,
            ``'free'`` or ``'wait'``.
        interrupt: called with a list of numbers of commands, interrupts the engines that run them, or those of
            them that a second list names; None where that is not possible.
        engines: the ids of all engines.
        why: says why engines do not react, in words; waits for that. None where nobody can be asked.
        free: frees engines that wait in MPI, and returns what was done; waits for that. None where nobody can.
    """

    def __init__(
        self,
        interrupt: Callable[..., object] | None = None,
        engines: Callable[[], Sequence[int]] = tuple,
        why: Callable[[list[int]], str] | None = None,
        free: Callable[[Sequence[int]], object] | None = None,
    ) -> None:
        self.partial_after: float | None = PARTIAL_AFTER
        self.progress_after: float | None = PROGRESS_AFTER
        self.hang_after: float | None = HANG_AFTER
        self.on_interrupt: OnInterrupt = "ranks"
        self.on_timeout: OnTimeout = "interrupt"
        self.on_failure: OnFailure = "end"
        self.why, self.free = why, free
        self.interrupt = interrupt
        self.engines = engines


class Partial:
    """The replies of a call that have arrived.

    Args:
        future: the future of all replies; empty unless it is a :class:`CommandFuture`.
        method: the name of the method, for exceptions.
        after: seconds from the first failure to the printed line; None for no line.
        settings: those of the client; without any, the call cannot be interrupted.
        label: the call, for messages.

    Attributes:
        times: when the call began and ended.
        talks: the debuggers in the commands of the call, one per command.
    """

    def __init__(
        self,
        future: concurrent.futures.Future[Any],
        method: str,
        after: float | None,
        settings: WaitSettings | None = None,
        label: str = "",
    ) -> None:
        self._parts = future.so_far if isinstance(future, CommandFuture) else []
        self._outputs = future.outputs if isinstance(future, CommandFuture) else []
        self._numbers = future.numbers if isinstance(future, CommandFuture) else []
        self.talks = future.talks if isinstance(future, CommandFuture) else []
        self._method = method
        self._settings = WaitSettings() if settings is None else settings
        self.label = label or method or "the call"
        self.after = after
        self.times = CallTimes()

    @property
    def begun(self) -> float:
        """When the call began, by the monotonic clock."""
        return self.times.begun

    @property
    def outputs(self) -> list[CommandOutput]:
        """What the engines print meanwhile, one per command of the call."""
        return self._outputs

    @property
    def order(self) -> list[int]:
        """The engines of the call, in the order of its targets, as far as that is known yet."""
        return [engine for part in self._parts for engine in part.order or ()]

    @property
    def done_ids(self) -> list[int]:
        """The ids of the engines that have replied, ascending."""
        return sorted({engine for part in self._parts for engine in part.look()[0]})

    @property
    def failures(self) -> dict[int, BaseException]:
        """The exceptions of the engines that have failed, by id."""
        found: dict[int, BaseException] = {}
        for reply in (reply for part in self._parts for reply in part.look()[1]):
            error = failure_of(reply, self._method)
            if error is not None:
                found[reply.engine] = error
        return dict(sorted(found.items()))

    @property
    def still_running(self) -> str:
        """Text that names the engines that have not replied; "" if there are none, or they are unknown."""
        waits = sorted({engine for part in self._parts for engine in part.look()[2]})
        return f": [{ranges(waits)}] still running ({time.monotonic() - self.begun:.0f} s)" if waits else ""

    @property
    def has_commands(self) -> bool:
        """Whether engines are asked; else it is the controller."""
        return bool(self._parts)

    @property
    def has_failed(self) -> bool:
        """Whether an engine has failed."""
        return any(part.failed for part in self._parts)

    @property
    def running(self) -> list[int]:
        """Engines that have not answered, ascending."""
        waits: set[int] = set()
        for part in self._parts:
            done, _, missing = part.look()
            waits.update(missing if part.order is not None else set(self._settings.engines()) - set(done))
        return sorted(waits)

    @property
    def progress_after(self) -> float | None:
        """Seconds after which the status line is shown; None for never."""
        return self._settings.progress_after

    @property
    def on_interrupt(self) -> OnInterrupt:
        """What the first Ctrl-C does."""
        return self._settings.on_interrupt

    @property
    def can_be_interrupted(self) -> bool:
        """Whether :meth:`interrupt` does something."""
        return bool(self._numbers) and self._settings.interrupt is not None

    def interrupt(self, engines: list[int] | None = None) -> None:
        """Interrupt the engines that run this call, all or some; elsewhere it will not begin."""
        if self._settings.interrupt is not None:
            self._settings.interrupt(self._numbers, *([] if engines is None else [engines]))

    def why(self, engines: list[int]) -> str:
        """Say why these engines do not react to an interrupt, as a sentence; "" if that cannot be found out."""
        return "" if self._settings.why is None else self._settings.why(engines)

    def failure(self) -> CompositeError | None:
        """The exception of all failures that are here; None if there are none."""
        found = [(type(error), error, None) for error in self.failures.values()]
        message = f"one or more exceptions from call to method: {self._method}"
        return CompositeError(message, found) if found else None

    def outcome(self) -> str:
        """How the engines have ended, in one line."""
        told, done = self._told(), set(self.done_ids)
        for part in self._parts:
            done -= part.failed.keys()
        if done:
            told.append(f"[{ranges(done)}] had finished")
        return " · ".join(told)

    def on_failure(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` when there is a failure, maybe in another thread."""
        for part in self._parts:
            part.on_failure(listener)

    def line(self) -> str:
        """Who has failed how, who still runs, and what to do about it."""
        seconds = time.monotonic() - self.begun
        told = [*self._told(), f"[{ranges(self.running)}] still running ({seconds:.0f} s)"]
        return f"{' · '.join(told)}. {_ADVICE[self.on_interrupt]}"

    def _told(self) -> list[str]:
        """Who has failed how."""
        engines: dict[str, list[int]] = {}
        for reply in (reply for part in self._parts for reply in part.look()[1]):
            engines.setdefault(in_short(reply), []).append(reply.engine)
        told = [f"[{ranges(ids)}] {text}" for text, ids in list(engines.items())[:_MOST]]
        if len(engines) > _MOST:
            others = [engine for ids in list(engines.values())[_MOST:] for engine in ids]
            told.append(f"[{ranges(others)}] other failures")
        return told


def in_short(reply: EngineReply) -> str:
    """Return about the last line of a traceback."""
    if isinstance(reply.outcome, Failed):
        name, text = reply.outcome.type_name, reply.outcome.text
    else:
        name, text = reply.undone or ("", "")
    first = " ".join(text.split("\n", 1)[0].split())
    short = first if len(first) <= _TEXT else first[: _TEXT - 3] + "..."
    name = name.removeprefix("builtins.").removeprefix("ipmpi.errors.")
    return f"{name}: {short}" if short else name


def interrupt_mode(value: object) -> OnInterrupt:
    """Check and return a value of ``on_interrupt``; raises ClientError for any other."""
    return _mode(
        value, ("ranks", "detach"),
        "on_interrupt must be 'ranks' (the first Ctrl-C interrupts the engines that run the call) or 'detach' (it "
        "ends the wait)",
    )  # fmt: skip


def timeout_mode(value: object) -> OnTimeout:
    """Check and return a value of ``on_timeout``; raises ClientError for any other."""
    return _mode(
        value, ("interrupt", "free", "restart"),
        "on_timeout must be 'interrupt' (a call whose time is up is interrupted, and ends), 'free' (engines that "
        "do not react are freed by mec.free()) or 'restart' (their set is restarted)",
    )  # fmt: skip


def failure_mode(value: object) -> OnFailure:
    """Check and return a value of ``on_failure``; raises ClientError for any other."""
    return _mode(
        value, ("end", "free", "wait"),
        "on_failure must be 'end' (a call ends when some engines have failed and all others wait inside MPI), "
        "'free' (the others are freed by mec.free() before) or 'wait' (it waits for them all the same)",
    )  # fmt: skip


def _mode(value: object, modes: tuple[_Mode, ...], expected: str) -> _Mode:
    for mode in modes:
        if value == mode:
            return mode
    raise ClientError(f"{expected}, not {value!r}")


def seconds_until_told(value: float | None, name: str = "partial_after") -> float | None:
    """Check and return a value of ``partial_after``, ``progress_after`` or ``hang_after``.

    Raises:
        TypeError: it is neither a number nor None.
        ClientError: it is negative or not finite.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if not math.isfinite(value) or not 0 <= value <= threading.TIMEOUT_MAX:
        raise ClientError(f"{name} must be 0 seconds or more, or None for never, not {value!r}")
    return float(value)
