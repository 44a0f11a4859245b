"""Engines that are lost: what the log and the clients are told (no I/O).

Clients with commands on a lost engine hear of it by ``EngineLost``. Tasks are run again on other engines, so their
clients would hear nothing: they get a notice, one for all engines that are lost in the same moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ..protocol.messages import Notice
from ..ranges import engines_named
from .commands.router import Router
from .effects import Effect, Send
from .farm.suspects import Suspects
from .registry import Engine

_SHORT_WHILE: Final = 0.5
"""Seconds in which further losses go into the same notice: engines without MPI are lost one by one."""


class Losses:
    """Takes lost engines from the router, and says which and why.

    Args:
        router: has the engines.
        suspects: knows which clients have tasks.
        log: called with each line for the log.
        look: called when :meth:`flush` is to be called, as something is due at once.
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
        """Rank, process id and machine of the process that was lost last, and was not expected to end."""

    def ranks_lost(self, key: int, ranks: Sequence[int], reason: str, now: float, *, expected: bool) -> None:
        """Some engines of a set are lost; ``expected``: they were told to end, or their job has ended."""
        engine_set = self._router.registry.sets.get(key)
        engines = [] if engine_set is None else [engine_set.engines[r] for r in ranks if r in engine_set.engines]
        if engines and not expected:
            # Those below another one in the tree of the set are lost with it.
            first = min(engines, key=lambda engine: engine.rank)
            self.last = (first.rank, first.pid, first.host)
        self._note(engines, self._router.ranks_lost(key, ranks, reason), reason, None if expected else now)

    def set_lost(self, key: int, reason: str, now: float, *, silent: bool, expected: bool) -> None:
        """All engines of a set are lost; ``silent``: its process ended, and had not said that it would."""
        engine_set = self._router.registry.sets.get(key)
        engines = [] if engine_set is None else list(engine_set.engines.values())
        if silent:
            reason = _without_a_word(engines, reason)
        self._note(engines, self._router.set_lost(key, reason), reason, None if expected else now)

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
        """Whoever runs the cluster has this to tell to clients with tasks."""
        self._log(text)
        self._clients.update(dict.fromkeys(self._suspects.clients()))
        self._said.append(text)
        self._due = now
        self._look()

    def flush(self, now: float) -> list[Effect]:
        """The notices that are due."""
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
        """When :meth:`flush` is to be called if nothing happens before."""
        return self._due


def _without_a_word(engines: Sequence[Engine], reason: str) -> str:
    """Why a set is lost whose agent, on the node of its lowest rank, had not said that it would end."""
    if len(engines) < 2:
        return f"{reason}, without a word: a crash, MPI_Abort, or out of memory"
    root = min(engines, key=lambda engine: engine.rank)
    return (
        f"its set, which is reached through the node agent on {root.host}, ended without a word ({reason}): it "
        "was killed, alone or by what has ended all ranks, or the node is down or out of memory"
    )
