"""A comparison as tables: for a terminal, and in reStructuredText for docs/performance.rst."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ipmpi.bench.figures import Figure
from ipmpi.bench.report import aligned, number

from .comparison import Comparison, Summary, named, shown
from .rows import BY_KEY, Row
from .systems import OWN


def _quartiles(each: Summary, row: Row) -> str:
    low, high = sorted((shown(each.low, row), shown(each.high, row)))
    return f"{number(low)} to {number(high)}"


def _cell(each: Summary, row: Row) -> str:
    value = number(shown(each.median, row))
    return f"{value} {row.unit} ({_quartiles(each, row)})"


def ratio_rows(found: Comparison, names: Mapping[str, str]) -> list[list[str]]:
    """For each row of work: ours, the best of the others, and the ratio; with a heading."""
    rows = [["work", OWN, "best of the others", "that took", "ratio (rounds)"]]
    for key, name in names.items():
        row, summaries, best = BY_KEY[key], found.summaries(key), found.against(key)
        own = _cell(summaries[OWN], row) if OWN in summaries else ""
        if best is None:
            rows.append([name, own, "", "", ""])
            continue
        ratio = f"{best.ratio:.3g} ({best.lowest:.3g} to {best.highest:.3g})"
        rows.append([name, own, best.peer, _cell(summaries[best.peer], row), ratio])
    return rows


def median_rows(found: Comparison, names: Mapping[str, str]) -> list[list[str]]:
    """For each row of work, the medians of all systems; with a heading."""
    rows = [["work", "unit", *found.systems]]
    for key, name in names.items():
        row, summaries = BY_KEY[key], found.summaries(key)
        cells = []
        for system in found.systems:
            if system in summaries:
                cells.append(number(shown(summaries[system].median, row)))
            else:
                cells.append("failed" if key in found.failed.get(system, {}) else "")
        rows.append([name, row.unit, *cells])
    return rows


def failures(found: Comparison) -> list[str]:
    """Why systems, or rows of them, have no figures, or fewer."""
    return [
        f"{system}: {key + ': ' if key else ''}{'failed' if key else 'left out'}: {why}"
        for system, each in found.failed.items()
        for key, why in each.items()
    ]


def text(found: Comparison, size: int, engines: int) -> str:
    """Everything, for a terminal."""
    names = named(found.keys, size, engines)
    parts = [aligned(median_rows(found, names)), aligned(ratio_rows(found, names)), failures(found)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def list_table(rows: Sequence[Sequence[str]], widths: str = "auto") -> str:
    """Rows, the first of which is the heading, as a directive of reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in rows:
        lines += [f"   {'* - ' if number_ == 0 else '  - '}{cell}".rstrip() for number_, cell in enumerate(row)]
    return "\n".join(lines)


def call_rows(found: Comparison, names: Mapping[str, str]) -> list[list[str]]:
    """Which call did what; systems whose calls are all the same share a row."""
    rows = [["system", "work", "call"]]
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for system, calls in found.calls.items():
        groups.setdefault(tuple(calls.items()), []).append(system)
    for same, systems in groups.items():
        for place, (key, call) in enumerate(each for each in same if each[0] in names):
            rows.append([", ".join(systems) if place == 0 else "", names[key], f"``{call}``"])
    return rows


def limit_rows(figures: Iterable[Figure]) -> list[list[str]]:
    """What the machine could do in that run; with a heading."""
    return [
        ["limit", "median", "unit"],
        *([figure.name, number(figure.median), figure.unit] for figure in figures),
    ]


def rst(found: Comparison, size: int, engines: int) -> str:
    """Tables for the documentation."""
    names = named(found.keys, size, engines)
    parts = [list_table(ratio_rows(found, names)), list_table(median_rows(found, names))]
    if told := failures(found):
        parts.append("\n".join(f"* {line}" for line in told))
    return "\n\n".join([*parts, list_table(call_rows(found, names))])
