"""Tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .figures import MORE_IS_BETTER, OURS, Figure, Ratio

HEADINGS = ("", "median", "p90", "p99", "unit", "first", "goal", "reached")


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
    systems = list(dict.fromkeys(figure.system for figure in figures))
    rows = [HEADINGS, *(row(figure) for figure in figures)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEADINGS))]
    lines = []
    for system in systems:
        own = [row(figure) for figure in figures if figure.system == system]
        lines += ["", _aligned((system, *HEADINGS[1:]), widths), "-" * (sum(widths) + 2 * (len(widths) - 1))]
        lines += [_aligned(cells, widths) for cells in own]
    return "\n".join(lines[1:])


def ratio_table(found: Sequence[Ratio]) -> str:
    """How many times better than each peer."""
    peers = list(dict.fromkeys(ratio.peer for ratio in found))
    names = {ratio.key: ratio.name for ratio in found}
    times = {(ratio.key, ratio.peer): f"{ratio.times:.3g} x" for ratio in found}
    rows = [(f"{OURS} is better by", *peers)]
    rows += [(name, *(times.get((key, peer), "") for peer in peers)) for key, name in names.items()]
    widths = [max(len(cells[column]) for cells in rows) for column in range(1 + len(peers))]
    return "\n".join(_aligned(cells, widths) for cells in rows)


def machine_lines(machine: dict[str, Any], engines: int) -> str:
    """What was measured, and on what."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:g} GB, load {machine['load']:g}; "
        f"{machine['system']}\n{machine['python']}; MPI: {machine['mpi']}; {machine['tls']}; {engines} engines"
    )


def as_json(
    machine: dict[str, Any],
    options: dict[str, Any],
    figures: Sequence[Figure],
    found: Sequence[Ratio],
    notes: list[str],
) -> dict[str, Any]:
    """Everything, for ``json.dump``."""
    return {
        "machine": machine,
        "options": options,
        "figures": [figure.as_dict() for figure in figures],
        "ratios": [vars(ratio) for ratio in found],
        "notes": notes,
    }


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = cells
    padded = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
    return "  ".join([first.ljust(widths[0]), *padded]).rstrip()
