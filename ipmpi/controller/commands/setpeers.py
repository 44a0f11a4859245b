"""What a set is told of a command beside its own part of it (no I/O)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ...protocol import messages as m
from ..effects import Send
from ..registry import Registry
from .queuedcommand import QueuedCommand


def whole_sets(registry: Registry, targets: Sequence[int]) -> frozenset[int]:
    """Return the keys of the sets of which all engines are among these."""
    if len(targets) < 2:
        return frozenset()
    counts = {key: len(ranks) for key, ranks in registry.by_set(targets).items()}
    return frozenset(key for key, count in counts.items() if count == len(registry.sets[key].engines))


def withdrawn(
    registry: Registry, undone: Mapping[tuple[QueuedCommand, str, str, m.Death | None], Iterable[int]]
) -> list[Send]:
    """Tell sets that engines will not run a command: others there may have begun, and wait for them.

    Args:
        registry: all engines.
        undone: engines, by command, the name of an error, its text, and what is known of a death.
    """
    found = []
    for (work, error, text, _), ids in undone.items():
        if work.is_begun and work.outstanding:
            running = registry.by_set(work.outstanding).keys()
            for key, ranks in registry.by_set(ids).items():
                if key in running:
                    found.append(Send(key, m.CommandWithdrawn(work.serial, ranks, f"{error}: {text}")))
    return found
