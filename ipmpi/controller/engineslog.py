"""Lines of the log about engines that came, and that are gone (no I/O).

``ipcluster doctor`` reads them (:mod:`ipmpi.launch.doctor.check_ranks`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..ids import Ids, IdSet
from ..ranges import ranges
from .registry import EngineSet

EACH: Final = 256
"""Up to so many engines get a line each. Of more, each node gets one: 65,536 lines would tell nobody more."""


def came(engine_set: EngineSet) -> Iterator[str]:
    """Yield lines about a set that has registered."""
    engines = engine_set.engines.values()
    if len(engine_set) <= EACH:
        for engine in engines:
            where = f"rank {engine.rank}, pid {engine.pid} on {engine.host}"
            yield f"registered engine with id: {engine.id} ({where})"
        return
    hosts: dict[str, tuple[list[int], list[int]]] = {}
    for engine in engines:
        ids, ranks = hosts.setdefault(engine.host, ([], []))
        ids.append(engine.id)
        ranks.append(engine.rank)
    for host, (ids, ranks) in hosts.items():
        yield f"registered engines with ids: {ranges(ids)} (ranks {ranges(ranks)} on {host})"


def gone(ids: Ids, reason: str) -> Iterator[str]:
    """Yield lines about engines that are gone."""
    if len(ids) <= EACH:
        yield from (f"unregistered engine with id: {number} ({reason})" for number in ids)
    else:
        yield f"unregistered engines with ids: {ranges(IdSet(ids).ids())} ({reason})"
