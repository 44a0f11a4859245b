"""Bodies of commands on their way to the ranks of one node.

A body is put together once for each node, in memory that its ranks share. A rank that is interrupted before its
body is there does not begin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...protocol import messages as m, operations
from ...transport.bodyreceiver import BodyReceiver
from .shared import SharedMemory


class Deliveries:
    """Commands whose body is on its way.

    Args:
        host: of this node.
        start: called with a command for ranks of this node, and the memory with its body, which is closed then.
        not_run: called with a command that its ranks will not run, whether that is a success, and the outcome.
    """

    def __init__(
        self,
        host: str,
        start: Callable[[m.Dispatch, SharedMemory], None],
        not_run: Callable[[m.Dispatch, bool, bytes], None],
    ) -> None:
        self._host = host
        self._start = start
        self._not_run = not_run
        self._arriving: dict[int, tuple[m.Dispatch, set[int]]] = {}
        """By their identity, since a command may come twice, for other ranks; and who of them was interrupted."""

    def interrupt(self, ranks: Sequence[int]) -> None:
        """These ranks shall not begin what is on its way to them."""
        for message, interrupted in self._arriving.values():
            interrupted.update(set(ranks).intersection(message.ranks))

    def expect(self, message: m.Dispatch) -> BodyReceiver | None:
        """What takes the body of a command for ranks of this node; None if there is no memory for it."""
        try:
            memory = SharedMemory(sum(message.sizes))
        except (OSError, ValueError, OverflowError) as error:
            self._failed(message, self._no_memory(error), False)
            return None
        self._arriving[id(message)] = message, set()
        return BodyReceiver(
            message.sizes, memory, lambda _done: self._assembled(message, memory),
            lambda: self._broken(message, "its sender is gone", True),
            lambda reason: self._broken(message, self._no_memory(reason), False),
        )  # fmt: skip

    def _failed(self, message: m.Dispatch, reason: str, ok: bool) -> None:
        """A command's body did not come. ``ok`` where nobody is left whom it concerns: others' queues stay."""
        text = f"the data of this {message.method} did not arrive: {reason}"
        self._not_run(message, ok, operations.encode(operations.Failed("ConnectionError", text, "")))

    def _no_memory(self, reason: object) -> str:
        """Why a body is not here."""
        return f"there is no memory for it on {self._host} ({reason})"

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


def for_ranks(message: m.Dispatch, ranks: list[int]) -> m.Dispatch:
    """The message, as it goes to some of its ranks."""
    return m.Dispatch(message.id, ranks, message.method, message.operation, message.sizes)
