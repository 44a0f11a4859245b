"""Tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .figures import MORE_IS_BETTER, Figure

HEADINGS = ("median", "p90", "p99", "unit", "first", "goal", "reached")


def number(value: float) -> str:
    """Three significant digits, in full: 0.123, 12.3, 1,230."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def row(figure: Figure) -> tuple[str, ...]:
    """One line of the table."""
    sign = ">=" if figure.unit in MORE_IS_BETTER else "<="
    goal = figure.goal
    first = "" if goal is None or goal.first is None else f"{sign} {number(goal.first)}"
    final = "" if goal is None else f"{sign} {number(goal.final)}"
    spread = (number(figure.p90), number(figure.p99)) if figure.samples > 1 else ("", "")
    return (figure.name, number(figure.median), *spread, figure.unit, first, final, figure.verdict())


def table(figures: Sequence[Figure]) -> str:
    """Aligned columns, one section for each system."""
    rows: list[tuple[str, ...]] = []
    for system in dict.fromkeys(figure.system for figure in figures):
        rows += [(system, *HEADINGS), *(row(figure) for figure in figures if figure.system == system)]
    lines = aligned(rows)
    ruler = "-" * max(map(len, lines))
    sections = (
        f"\n{line}\n{ruler}" if cells[1:] == HEADINGS else line for cells, line in zip(rows, lines, strict=True)
    )
    return "\n".join(sections).lstrip("\n")


def machine_lines(machine: dict[str, Any], engines: int) -> str:
    """What was measured, and on what."""
    lines = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:g} GB, load {machine['load']:g}; "
        f"{machine['system']}\n{machine['python']}; MPI: {machine['mpi']}; {machine['tls']}; {engines} engines"
    )
    if machine["autogroup"] and engines > machine["cores"]:
        lines += (
            "\nThis kernel shares processors among sessions (sched_autogroup_enabled is 1), and there are more "
            "engines than cores: all ranks that Open MPI's mpirun starts are one session, and get no more time "
            "together than the client, the controller or the node agent"
        )
    return lines


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns: the first one to the left, the others to the right."""
    columns = max(len(cells) for cells in rows)
    padded = [(*cells, *[""] * (columns - len(cells))) for cells in rows]
    widths = [max(len(cells[column]) for cells in padded) for column in range(columns)]
    pad = [str.ljust, *[str.rjust] * (columns - 1)]
    return ["  ".join(p(c, w) for p, c, w in zip(pad, cells, widths, strict=True)).rstrip() for cells in padded]
