"""The kinds of work that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

Kind = Literal["start", "call", "transfer", "tasks"]
"""How a row is measured: once a turn, as short calls, as transfers of an array, or as many tasks at once."""

UNITS: Final[Mapping[str, float]] = {"ms": 1e3, "s": 1.0, "tasks/s": 0.0}
"""How many of a unit one second is; 0 for a rate."""


class Row(NamedTuple):
    """One kind of work.

    Attributes:
        key: name of the method of :class:`benchmarks.systems.system.System` that does it.
        name: in words; ``{size}`` and ``{engines}`` are filled in.
        unit: one of :data:`UNITS`.
        kind: see :data:`Kind`.
        samples: how many a turn takes.
        budget: seconds after which a turn stops taking samples.
        warm: how many are taken before, and do not count, so that what can be used again is there; fewer if
            half of the budget is over.
    """

    key: str
    name: str
    unit: str
    kind: Kind
    samples: int
    budget: float
    warm: int = 0


ROWS: Final = (
    Row("start", "start of {engines} engines", "s", "start", 1, 0.0),
    Row("execute_one", "execute on one", "ms", "call", 100, 1.0, 10),
    Row("execute_all", "execute on all {engines}", "ms", "call", 100, 1.0, 10),
    Row("push_all", "push {size} to all {engines}", "ms", "transfer", 4, 2.0, 4),
    Row("pull_one", "pull {size} from one", "ms", "transfer", 4, 2.0, 4),
    Row("scatter", "scatter {size}", "ms", "transfer", 4, 2.0, 4),
    Row("gather", "gather {size}", "ms", "transfer", 4, 2.0, 4),
    Row("submit_result", "one task, submit to result", "ms", "call", 100, 1.0, 10),
    Row("tasks_map", "no-op tasks by map, one per item", "tasks/s", "tasks", 1, 2.0),
    Row("tasks_submit", "no-op tasks submitted one by one", "tasks/s", "tasks", 1, 2.0),
)
BY_KEY: Final[Mapping[str, Row]] = {row.key: row for row in ROWS}

TRIAL_TASKS: Final = 100
MOST_TASKS: Final = 100_000
TASK_SECONDS: Final = 0.3
"""A sample of tasks has as many as take so long."""


def tasks_for(count: int, seconds: float) -> int:
    """How many tasks take about :data:`TASK_SECONDS`, if ``count`` of them took so many seconds."""
    fitting = int(count * TASK_SECONDS / max(seconds, 1e-9))
    return min(MOST_TASKS, max(TRIAL_TASKS, fitting))
