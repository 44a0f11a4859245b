"""Log lines and notices about lost engines (no I/O).

Clients with commands on a lost engine get ``EngineLost``. Tasks are run again on other engines; so their clients
get a notice, one for all engines that are lost at about the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ..protocol.messages import Death, Notice
from ..ranges import engines_named
from .commands.router import Router
from .effects import Effect, Send
from .farm.suspects import Suspects
from .registry import Engine

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
        self._lost: dict[int, tuple[str, str]] = {}
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
        engines = [] if engine_set is None else [engine_set.engines[r] for r in ranks if r in engine_set.engines]
        if engines and not expected:
            # Ranks below another one in the tree of the set are lost with it.
            first = min(engines, key=lambda engine: engine.rank)
            self.last = (first.rank, first.pid, first.host)
        ids = self._router.ranks_lost(key, ranks, reason, now, death)
        self._note(engines, ids, reason, None if expected else now)

    def set_lost(self, key: int, reason: str, now: float, *, silent: bool, expected: bool) -> None:
        """All engines of a set are lost; ``silent``: its process ended without a message."""
        engine_set = self._router.registry.sets.get(key)
        engines = [] if engine_set is None else list(engine_set.engines.values())
        if silent:
            reason = _without_a_word(engines, reason)
        self._note(engines, self._router.set_lost(key, reason, now), reason, None if expected else now)

    def _note(self, engines: Iterable[Engine], ids: Iterable[int], reason: str, now: float | None) -> None:
        for number in ids:
            self._log(f"unregistered engine with id: {number} ({reason})")
        if now is None:
            return
        for engine in engines:
            where = f"rank {engine.rank}, pid {engine.pid} on {engine.host}"
            self._lost[engine.id] = (where, reason)
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
        self._lost.clear()
        self._said.clear()
        self._clients.clear()
        self._due = None
        return effects

    def _lost_text(self) -> list[str]:
        if not self._lost:
            return []
        ids = list(self._lost)
        where, reason = self._lost[ids[-1]]
        if len(ids) == 1:
            text = f"engine {ids[0]} ({where}) is lost: {reason}"
        else:
            text = f"{engines_named(ids)} are lost; the last was engine {ids[-1]} ({where}): {reason}"
        return [f"{text}. Tasks that were there are run again on others"]

    def next_deadline(self) -> float | None:
        """Return when to call :meth:`flush` if no event occurs."""
        return self._due


def _without_a_word(engines: Sequence[Engine], reason: str) -> str:
    """Return why a set is lost whose root agent ended without a message."""
    if len(engines) < 2:
        return f"{reason}, without a word: a crash, MPI_Abort, or out of memory"
    root = min(engines, key=lambda engine: engine.rank)
    return (
        f"its set, which is reached through the node agent on {root.host}, ended without a word ({reason}): it "
        "was killed, alone or by what has ended all ranks, or the node is down or out of memory"
    )
