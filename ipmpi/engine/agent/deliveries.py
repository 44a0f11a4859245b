"""Bodies of commands that are arriving at one node.

A body is assembled once for each node, in memory that its ranks share. A rank that is interrupted before the body
is complete does not run the command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from ...ids import IdSet
from ...protocol import messages as m, operations, rankmessages as rm
from ...transport.bodyreceiver import BodyReceiver
from ...transport.timedpool import TimedPool
from .shared import SharedMemory, why_not_stored


class Deliveries:
    """Commands whose bodies are arriving.

    Args:
        host: the name of this node.
        pool: files for bodies.
        start: called with a command for ranks of this node and its body, which is closed afterwards.
        not_run: called with a command that its ranks will not run, whether it succeeded, and the outcome.
    """

    def __init__(
        self,
        host: str,
        pool: TimedPool | None,
        start: Callable[[m.Dispatch, SharedMemory], None],
        not_run: Callable[[m.Dispatch, bool, bytes], None],
    ) -> None:
        self._host = host
        self._pool = pool
        self._start = start
        self._not_run = not_run
        self._arriving: dict[int, tuple[m.Dispatch, set[int]]] = {}
        """By identity, since a command may come twice, for different ranks: the ranks that were interrupted."""

    def interrupt(self, ranks: Sequence[int]) -> None:
        """Keep these ranks from running the commands whose bodies are arriving."""
        for message, interrupted in self._arriving.values():
            interrupted.update(IdSet(ranks).common(message.ranks))

    def expect(self, message: m.Dispatch) -> BodyReceiver | None:
        """Return a receiver for the body of a command; None if there is no memory for it."""
        try:
            memory = SharedMemory(sum(message.sizes), self._pool)
        except (OSError, ValueError, OverflowError) as error:
            self._failed(message, why_not_stored(error, self._host), False)
            return None
        self._arriving[id(message)] = message, set()
        return BodyReceiver(
            message.sizes, memory, lambda _done: self._assembled(message, memory),
            lambda: self._broken(message, "its sender is gone, or the bulk lane by which it came", True),
            lambda error: self._broken(message, why_not_stored(error, self._host), False),
        )  # fmt: skip

    def _failed(self, message: m.Dispatch, reason: str, ok: bool) -> None:
        """A body did not arrive. ``ok``: count it as a success, so that queues are not cleared."""
        text = f"the data of this {message.method} did not arrive: {reason}"
        self._not_run(message, ok, operations.encode(operations.Failed("ConnectionError", text, "")))

    def _broken(self, message: m.Dispatch, reason: str, ok: bool) -> None:
        self._arriving.pop(id(message), None)
        self._failed(message, reason, ok)

    def _assembled(self, message: m.Dispatch, memory: SharedMemory) -> None:
        _, interrupted = self._arriving.pop(id(message), (message, set()))
        if interrupted:
            self._not_run(for_ranks(message, sorted(interrupted)), False, operations.NEVER_BEGAN)
            message = for_ranks(message, [rank for rank in message.ranks if rank not in interrupted])
        if message.ranks:
            self._start(message, memory)
        memory.close()


def for_ranks(message: m.Dispatch, ranks: Sequence[int]) -> m.Dispatch:
    """Return the message addressed to some of its ranks."""
    return msgspec.structs.replace(message, ranks=ranks)


def for_rank(number: int, message: m.Dispatch, shared: bool) -> rm.RunCommand:
    """Return the message for the ranks of a node, to which the command has this number."""
    return rm.RunCommand(
        number, message.method, message.operation, message.sizes, shared, message.renew, message.members
    )
