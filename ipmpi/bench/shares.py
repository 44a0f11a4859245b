"""Each figure as a share of what the machine can do at best. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .figures import MORE_IS_BETTER, OURS, Figure
from .report import aligned, number

ROUND_TRIPS: Final = (
    *("execute_one", "execute_other", "execute_all", "apply_one", "apply_all", "push_small", "pull_small"),
    *("status", "submit_result"),
)
TRANSFERS: Final = ("push_all", "push_one", "pull_one", "pull_other", "scatter", "gather")
LOCAL: Final = "limit_fresh"
REMOTE: Final = "limit_tls"
"""What limits transfers: on one machine one copy into fresh memory, between machines one TLS stream."""


@dataclass(frozen=True)
class Share:
    """How near a figure is to a limit: 1 is the limit itself, 0.5 is twice as slow.

    Attributes:
        key: of the figure.
        name: of the figure.
        limit: name of the limit.
        value: the median of the figure, in its unit.
        best: what it would be at the limit, in the same unit.
        unit: of both.
        share: see above.
    """

    key: str
    name: str
    limit: str
    value: float
    best: float
    unit: str
    share: float


def limit_for(key: str, one_machine: bool) -> str | None:
    """The limit of a figure; None where there is none that means something."""
    if key in ROUND_TRIPS:
        return "limit_unix"
    if key in TRANSFERS:
        return LOCAL if one_machine else REMOTE
    return {"start": "limit_start", "tasks": "limit_calls", "submit_gather": "limit_calls"}.get(key)


def shares(figures: Iterable[Figure], transfer: int, one_machine: bool) -> list[Share]:
    """Compare the medians of ours with the limits of the same run.

    Args:
        figures: of ours and limits; others are left alone.
        transfer: bytes of one transfer.
        one_machine: whether client, controller and engines are on one machine.
    """
    everything = {figure.key: figure for figure in figures if figure.system == OURS or _is_limit(figure)}
    found = []
    for key, figure in everything.items():
        limit = everything.get(limit_for(key, one_machine) or "")
        if limit is None or min(figure.median, limit.median) <= 0:
            continue
        best = limit.median
        if figure.unit != limit.unit:  # a transfer that is told in seconds
            best = transfer / MORE_IS_BETTER[limit.unit] / limit.median
        share = figure.median / best if figure.unit in MORE_IS_BETTER else best / figure.median
        found.append(Share(key, figure.name, limit.name, figure.median, best, figure.unit, share))
    return found


def share_table(found: Sequence[Share]) -> str:
    """Figures, what the machine could do, and the share; empty if there is nothing to compare."""
    if not found:
        return ""
    rows = [("share of the limit", "median", "at best", "unit", "share", "limit")]
    rows += [
        (each.name, number(each.value), number(each.best), each.unit, f"{100 * each.share:.3g} %", each.limit)
        for each in found
    ]
    return "\n".join(aligned(rows))


def _is_limit(figure: Figure) -> bool:
    return figure.key.startswith("limit_")
