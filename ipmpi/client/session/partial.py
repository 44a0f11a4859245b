"""The replies of a call that have arrived while others are still missing.

If one engine raises while the others wait for it in a collective, a call that waits for all engines would wait
forever without a reason shown. So a line about the failures is printed, once, for any number of engines.
"""

from __future__ import annotations

import concurrent.futures
import math
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ...errors import ClientError
from ...protocol.operations import Failed
from ...ranges import ranges
from .commandoutput import CommandOutput
from .failures import failure_of
from .waiting import SessionFuture

if TYPE_CHECKING:
    from .enginereply import EngineReply

PARTIAL_AFTER: Final = 2.0
"""Seconds after the first failure; by then engines that fail for the same reason have failed, too."""

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
        self._waiters: list[threading.Event] = []

    def add(self, replies: Iterable[EngineReply], order: Sequence[int] | None) -> None:
        """Add replies that have arrived."""
        with self._lock:
            self.order = order
            for reply in replies:
                self.done.add(reply.engine)
                if not reply.ok:
                    self.failed[reply.engine] = reply
            waiters = self._waiters if self.failed else []
        for waiter in waiters:
            waiter.set()

    def announce(self, waiter: threading.Event) -> None:
        """Set ``waiter`` when there is a failure."""
        with self._lock:
            self._waiters.append(waiter)
            if self.failed:
                waiter.set()

    def look(self) -> tuple[list[int], list[EngineReply], list[int]]:
        """Return the engines that have replied, the failures, and the engines that have not replied."""
        with self._lock:
            return sorted(self.done), list(self.failed.values()), sorted(set(self.order or ()) - self.done)


class CommandFuture(SessionFuture):
    """The replies to the commands of one call; :attr:`so_far` has those that have arrived.

    Attributes:
        outputs: what the engines print meanwhile, one per command.
    """

    def __init__(self, so_far: Sequence[SoFar], outputs: Sequence[CommandOutput] = ()) -> None:
        super().__init__()
        self.so_far = list(so_far)
        self.outputs = list(outputs)


class Partial:
    """The replies of a call that have arrived.

    Args:
        future: the future of all replies; empty unless it is a :class:`CommandFuture`.
        method: the name of the method, for exceptions.
        after: seconds from the first failure to the printed line; None for no line.
    """

    def __init__(self, future: concurrent.futures.Future[Any], method: str, after: float | None) -> None:
        self._parts = future.so_far if isinstance(future, CommandFuture) else []
        self._outputs = future.outputs if isinstance(future, CommandFuture) else []
        self._method = method
        self.after = after
        self._begun = time.monotonic()

    @property
    def outputs(self) -> list[CommandOutput]:
        """What the engines print meanwhile, one per command of the call."""
        return self._outputs

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
        return f": [{ranges(waits)}] still running ({time.monotonic() - self._begun:.0f} s)" if waits else ""

    @property
    def is_watched(self) -> bool:
        """Whether a line may have to be printed."""
        return self.after is not None and bool(self._parts)

    def announce(self, waiter: threading.Event) -> None:
        """Set ``waiter`` when there is a failure."""
        for part in self._parts:
            part.announce(waiter)

    def line(self) -> str:
        """Return a line: which engines failed how, which still run, and what to do."""
        engines: dict[str, list[int]] = {}
        running: list[int] = []
        for part in self._parts:
            _, failed, waits = part.look()
            running += waits
            for reply in failed:
                engines.setdefault(_in_short(reply), []).append(reply.engine)
        told = [f"[{ranges(ids)}] {text}" for text, ids in list(engines.items())[:_MOST]]
        if len(engines) > _MOST:
            others = [engine for ids in list(engines.values())[_MOST:] for engine in ids]
            told.append(f"[{ranges(others)}] other failures")
        seconds = time.monotonic() - self._begun
        told.append(f"[{ranges(running)}] still running ({seconds:.0f} s)")
        return (
            f"{' · '.join(told)}. Ctrl-C ends the wait. Then mec.interrupt() ends running code, and mec.kill() "
            "engines that wait inside MPI"
        )


def _in_short(reply: EngineReply) -> str:
    """Return about the last line of a traceback."""
    if isinstance(reply.outcome, Failed):
        name, text = reply.outcome.type_name, reply.outcome.text
    else:
        name, text = reply.undone or ("", "")
    first = " ".join(text.split("\n", 1)[0].split())
    short = first if len(first) <= _TEXT else first[: _TEXT - 3] + "..."
    name = name.removeprefix("builtins.").removeprefix("ipmpi.errors.")
    return f"{name}: {short}" if short else name


def seconds_until_told(value: float | None) -> float | None:
    """Check and return a value of ``partial_after``.

    Raises:
        TypeError: it is neither a number nor None.
        ClientError: it is negative or not finite.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"partial_after must be a number of seconds or None, not {value!r}")
    if not math.isfinite(value) or not 0 <= value <= threading.TIMEOUT_MAX:
        raise ClientError(f"partial_after must be 0 seconds or more, or None for never, not {value!r}")
    return float(value)
