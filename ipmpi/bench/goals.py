"""The goals that figures are judged by; docs/performance.rst explains them. Nothing else is a fixed figure."""

from __future__ import annotations

from typing import Final, NamedTuple

GOAL_ENGINES: Final = 4
GOAL_BYTES: Final = 100_000_000
"""The goals are for so many engines, and for transfers of so many bytes."""
BIG_BYTES: Final = 4_000_000_000
QUEUE_TASKS: Final = 1_000_000
"""The goal for what a queue costs is for so many tasks."""
BIG_KEYS: Final = frozenset({"controller_memory", "status_worst"})
"""These goals are for a push of one object of so many bytes."""


class Goal(NamedTuple):
    """What a median has to reach.

    Attributes:
        final: the goal, in the unit of the figure.
        first: a milder one on the way there, or None.
    """

    final: float
    first: float | None


GOALS: Final[dict[str, Goal]] = {
    "start": Goal(1.5, 2.5),
    "execute_one": Goal(0.4, 0.6),
    "execute_other": Goal(0.4, 0.6),
    "execute_all": Goal(0.6, 1.0),
    "push_all": Goal(0.15, 0.3),
    "push_one": Goal(1.2, None),
    "pull_one": Goal(1.0, 0.7),
    "pull_other": Goal(1.0, 0.7),
    "scatter": Goal(0.12, None),
    "gather": Goal(0.12, None),
    "idle": Goal(2.0, None),
    "controller_memory": Goal(300.0, None),
    "status_worst": Goal(100.0, None),
    "tasks": Goal(100_000.0, 50_000.0),
    "submit_gather": Goal(15_000.0, None),
    "submit_result": Goal(0.3, 0.5),
    "greedy": Goal(5.0, None),
    "queue_memory": Goal(2000.0, None),
}


def goal_for(key: str, engines: int, transfer: int, big: int | None = None) -> Goal | None:
    """The goal of a figure, if it was measured as the goal means it: with ``big``, the size of the big push."""
    meant = big == BIG_BYTES if key in BIG_KEYS else transfer == GOAL_BYTES
    return GOALS.get(key) if engines == GOAL_ENGINES and meant else None
