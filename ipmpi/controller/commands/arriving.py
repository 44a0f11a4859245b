"""Bodies of commands that are arriving from clients, and the engines that wait for them (no I/O).

An engine that waits for a body runs nothing else. If the client does not send it (for instance a stopped process),
and others wait for the engine, the command is deferred: it is moved to the end of the queues of all its engines,
and so are the client's later commands. That is as if they had been submitted now, so engines that work together
still see the same order, and the client is asked for the body again. If some of these commands have begun, the
command fails instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ...ids import Ids, IdSet
from ..effects import GiveUp
from .commandqueue import CommandQueue, join
from .queuedcommand import QueuedCommand
from .queues import Queues


class ArrivingCommand:
    """The commands whose bodies are arriving, by client and stream, and their engines.

    Args:
        queues: the queues of all engines.
        advance: sends the engines of a queue their next command, if they are free.
        drop: tells a client that a command will not be run on engines, with the name and text of an error.
    """

    def __init__(
        self,
        queues: Queues,
        advance: Callable[[CommandQueue], None],
        drop: Callable[[QueuedCommand, Iterable[int], str, str], None],
    ) -> None:
        self._queues = queues
        self._advance = advance
        self._drop = drop
        self._by_stream: dict[tuple[int, int], tuple[QueuedCommand, Ids]] = {}

    def begin(self, stream: int, work: QueuedCommand, engines: Iterable[int]) -> None:
        """The body of a command begins to arrive."""
        self._by_stream[work.client, stream] = work, Ids.of(engines)

    def ended(self, client: int, stream: int) -> None:
        """A body is complete, or will not arrive."""
        self._by_stream.pop((client, stream), None)

    def held_up(self, late: Mapping[QueuedCommand, IdSet]) -> dict[int, QueuedCommand]:
        """Return, by client, a command whose body engines wait for, while other clients wait for the engines.

        Args:
            late: the commands whose bodies were requested again, and for which engines.
        """
        waiting = [*self._by_stream.values(), *((work, engines.ids()) for work, engines in late.items())]
        found: dict[int, QueuedCommand] = {}
        for work, engines in waiting:
            queues = (queue for _, queue in self._queues.parts(engines))
            if any(queue.running is work and queue.is_wanted_by_others(work.client) for queue in queues):
                found.setdefault(work.client, work)
        return found

    def give_way(
        self, work: QueuedCommand, later: Sequence[QueuedCommand], late: Sequence[int], numbers: Iterator[int]
    ) -> list[GiveUp]:
        """Move a command to the end of its queues.

        Args:
            work: the command.
            later: the later commands of its client.
            late: engines for which its body was requested again.
            numbers: yields new places at the end.
        """
        mine = {name: engines for name, (other, engines) in self._by_stream.items() if other is work}
        work.given_up = {e for engines in mine.values() for e in self._queues.that_run(work, engines)}
        running = set(self._queues.that_run(work, work.outstanding))
        work.will_fail = (
            work.is_answered
            or running != work.given_up.union(self._queues.that_run(work, late))
            or any(other.is_begun for other in later)
        )
        if work.will_fail:
            waits = Ids.of(sorted(set(work.outstanding) - running))
            self._leave(waits, work)
            self._drop(work, waits, "ConnectionError", _not_sent(work))
        else:
            work.is_begun = False
            for each in (work, *sorted(later, key=lambda other: other.place)):
                each.postponed = next(numbers)
                waits = Ids.of(sorted(set(each.outstanding) - (running if each is work else set())))
                self._leave(waits, each)
                for queue in self._queues.each(waits):
                    join(queue, each)
        for engine in late:
            self._put_back(engine, work)
        return [GiveUp(*name) for name in mine]

    def not_come(self, work: QueuedCommand, ids: Sequence[int]) -> Ids:
        """Engines report that a body has not arrived; return those of ``ids`` for which it was not dropped."""
        back = [engine for engine in ids if engine in work.given_up]
        for engine in back:
            work.given_up.discard(engine)
            self._put_back(engine, work)
        return Ids.of(engine for engine in ids if engine not in back)

    def _put_back(self, engine: int, work: QueuedCommand) -> None:
        """Remove a deferred command from its engine, and queue it again."""
        if not self._queues.that_run(work, [engine]):
            return
        queue = self._queues.own(engine)
        queue.running = None
        if work.will_fail:
            self._drop(work, [engine], "ConnectionError", _not_sent(work))
            for other in [each for each in queue.waiting if each.client == work.client]:
                queue.waiting.remove(other)
                self._drop(other, [engine], "QueueCleared", _not_sent(work))
        else:
            join(queue, work)
        self._advance(queue)

    def _leave(self, engines: Ids, work: QueuedCommand) -> None:
        for queue in self._queues.each(engines):
            queue.waiting.remove(work)


def _not_sent(work: QueuedCommand) -> str:
    return (
        f"the data of {work.label} did not arrive: this client was silent (was it stopped, or its network cut?), "
        "and others waited for the engines. Call it again"
    )
