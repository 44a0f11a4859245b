"""Log lines and notices about lost engines (no I/O).

Clients with commands on a lost engine get ``EngineLost``. Tasks are run again on other engines; so their clients
get a notice, one for all engines that are lost at about the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ..ids import NONE, Ids, IdSet
from ..protocol.messages import Death, Notice
from ..ranges import engines_named
from .commands.router import Router
from .effects import Effect, Send
from .engineslog import gone
from .farm.suspects import Suspects
from .registry import EngineSet

_SHORT_WHILE: Final = 0.5
"""Seconds in which losses share a notice: engines without MPI are lost one by one."""


class Losses:
    """Removes lost engines from the router, and reports which and why.

    Args:
        router: the router.
        suspects: has the clients with tasks.
        log: called with each line for the log.
        look: called when :meth:`flush` is to be called at once.
    """

    def __init__(
        self, router: Router, suspects: Suspects, log: Callable[[str], None], look: Callable[[], None]
    ) -> None:
        self._look = look
        self._router = router
        self._suspects = suspects
        self._log = log
        self._lost = IdSet()
        self._last = "", ""
        """Which engine of these was the last, and why it is lost."""
        self._said: list[str] = []
        self._clients: dict[int, None] = {}
        self._due: float | None = None
        self.last: tuple[int, int, str] | None = None
        """Rank, process id and host of the last process that ended unexpectedly."""

    def ranks_lost(
        self,
        key: int,
        ranks: Sequence[int],
        reason: str,
        now: float,
        *,
        expected: bool,
        death: Death | None = None,
    ) -> None:
        """Some engines of a set are lost; ``expected``: they were told to end, or their job has ended."""
        engine_set = self._router.registry.sets.get(key)
        there = NONE if engine_set is None else self._router.registry.of_ranks(key, Ids.of(ranks).ascending())
        if engine_set is not None and there and not expected:
            # Ranks below another one in the tree of the set are lost with it.
            first = engine_set.engines[min(rank for rank in ranks if rank in engine_set.engines)]
            self.last = (first.rank, first.pid, first.host)
        where = self._where(there)
        self._note(
            self._router.ranks_lost(key, ranks, reason, now, death), where, reason, None if expected else now
        )

    def set_lost(self, key: int, reason: str, now: float, *, silent: bool, expected: bool) -> None:
        """All engines of a set are lost; ``silent``: its process ended without a message."""
        engine_set = self._router.registry.sets.get(key)
        if silent and engine_set is not None:
            reason = _without_a_word(engine_set, reason)
        where = self._where(NONE if engine_set is None else engine_set.ids())
        self._note(self._router.set_lost(key, reason, now), where, reason, None if expected else now)

    def _where(self, ids: Ids) -> str:
        """Return which engine the last of these is."""
        if not ids:
            return ""
        engine = self._router.registry.engines[ids[-1]]
        return f"engine {engine.id} (rank {engine.rank}, pid {engine.pid} on {engine.host})"

    def _note(self, ids: Ids, where: str, reason: str, now: float | None) -> None:
        for line in gone(ids, reason):
            self._log(line)
        if now is None:
            return
        if ids:
            self._lost.add(ids)
            self._last = where, reason
        self._clients.update(dict.fromkeys(self._suspects.clients()))
        if self._lost and self._due is None:
            self._due = now + _SHORT_WHILE

    def explained(self, text: str, now: float) -> None:
        """``ipcluster`` has sent an explanation for clients with tasks."""
        self._log(text)
        self._clients.update(dict.fromkeys(self._suspects.clients()))
        self._said.append(text)
        self._due = now
        self._look()

    def flush(self, now: float) -> list[Effect]:
        """Return the notices that are due."""
        if self._due is None or now < self._due:
            return []
        texts = [*self._lost_text(), *self._said]
        effects: list[Effect] = [Send(client, Notice(text)) for text in texts for client in self._clients]
        self._lost = IdSet()
        self._said.clear()
        self._clients.clear()
        self._due = None
        return effects

    def _lost_text(self) -> list[str]:
        if not self._lost:
            return []
        where, reason = self._last
        if len(self._lost) == 1:
            text = f"{where} is lost: {reason}"
        else:
            text = f"{engines_named(self._lost.ids())} are lost; the last was {where}: {reason}"
        return [f"{text}. Tasks that were there are run again on others"]

    def next_deadline(self) -> float | None:
        """Return when to call :meth:`flush` if no event occurs."""
        return self._due


def _without_a_word(engines: EngineSet, reason: str) -> str:
    """Return why a set is lost whose root agent ended without a message."""
    if len(engines) < 2:
        return f"{reason}, without a word: a crash, MPI_Abort, or out of memory"
    root = engines.engines[min(engines.ranks())]
    return (
        f"its set, which is reached through the node agent on {root.host}, ended without a word ({reason}): it "
        "was killed, alone or by what has ended all ranks, or the node is down or out of memory"
    )
