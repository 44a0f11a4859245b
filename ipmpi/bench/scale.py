"""The same work with different numbers of engines: what grows with them, as a table and as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from ipmpi.client import MultiEngineClient, TaskClient

from . import idle
from .cluster import own_cluster
from .farm import no_ops
from .figures import Figure, from_times, single
from .report import aligned, number
from .timing import sample
from .workloads import doubles

IDLE_SECONDS: Final = 3.0
Series = Mapping[str, Mapping[int, Figure]]
"""Key of a figure -> number of engines -> figure."""


def measure(engines: int, mpi: str, transfer: int, repeat: int, logs: Path | None) -> Iterator[Figure]:
    """Start a cluster of ``engines``, let it do a little of everything, and stop it.

    Raises:
        LauncherError: it could not be started.
    """
    with own_cluster(engines, mpi, logs) as target:
        yield single("start", "start", "s", target.ready_after)
        with MultiEngineClient(str(target.mec_furl)) as mec:
            array = doubles(transfer)
            text = f"{array.nbytes / 1e6:g} MB"
            first = mec.get_ids()[0]
            one = sample(lambda: mec.execute("pass", targets=first), 100 * repeat, warm=20)
            yield from_times("execute_one", "execute on one", "ms", one)
            everyone = sample(lambda: mec.execute("pass"), 100 * repeat, warm=20)
            yield from_times("execute_all", "execute on all", "ms", everyone)
            pushed = sample(lambda: mec.push({"bench_a": array}), repeat)
            yield from_times("push_all", f"push {text} to all", "s", pushed)
            mec.execute("bench_a = None")
            yield from idle.measure(target, IDLE_SECONDS)
        with TaskClient(str(target.tc_furl)) as tc:
            count, times = no_ops(tc, repeat)
            yield from_times("tasks", "no-op tasks", "tasks/s", times, count)


def series(runs: Mapping[int, Sequence[Figure]]) -> dict[str, dict[int, Figure]]:
    """Figures of each number of engines, sorted by what they are of."""
    found: dict[str, dict[int, Figure]] = {}
    for engines, figures in runs.items():
        for figure in figures:
            found.setdefault(figure.key, {})[engines] = figure
    return found


def table(found: Series) -> str:
    """One row for each kind of work, one column for each number of engines; empty if nothing was measured."""
    counts = sorted({engines for figures in found.values() for engines in figures})
    if not counts:
        return ""
    rows: list[tuple[str, ...]] = [("engines", *map(str, counts), "unit")]
    for figures in found.values():
        some = next(iter(figures.values()))
        cells = (number(figures[count].median) if count in figures else "" for count in counts)
        rows.append((some.name.partition(":")[0], *cells, some.unit))
    return "\n".join(aligned(rows))


def record(found: Series) -> list[dict[str, Any]]:
    """The same for JSON: one entry for each figure, with the number of engines."""
    return [
        {"engines": engines, **figure.as_dict()}
        for figures in found.values()
        for engines, figure in figures.items()
    ]


# --- The picture ---------------------------------------------------------------------------------------------

WIDTH: Final = 300
HEIGHT: Final = 200
MARGIN: Final = 42
COLUMNS: Final = 3
COLOUR: Final = "#1f6f8b"


def picture(found: Series) -> str:
    """An SVG with one panel for each kind of work: the median against the number of engines.

    Both axes are logarithmic, so that a straight line upwards is growth by a power and a level one is none.
    """
    rows = -(-len(found) // COLUMNS)
    size = f'width="{COLUMNS * WIDTH}" height="{rows * HEIGHT}"'
    panels = []
    for place, figures in enumerate(found.values()):
        x, y = place % COLUMNS * WIDTH, place // COLUMNS * HEIGHT
        panels.append(f'<g transform="translate({x},{y})">{_panel(figures)}</g>')
    style = 'font-family="sans-serif" font-size="11" fill="#222"'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>', ground, *panels, "</svg>\n"])


def _panel(figures: Mapping[int, Figure]) -> str:
    counts = sorted(figures)
    values = {count: max(figures[count].median, 1e-6) for count in counts}
    some = figures[counts[0]]
    low, high = min(values.values()), max(values.values())
    low, high = min(low, high / 2), max(high, 2 * low)  # less than a factor of two looks level
    right, bottom = WIDTH - MARGIN / 2, HEIGHT - MARGIN

    def across(count: int) -> float:
        return _between(count, counts[0], counts[-1], MARGIN, right)

    def up(value: float) -> float:
        return _between(value, low, high, bottom, MARGIN)

    points = [(across(count), up(values[count])) for count in counts]
    title = f"{some.name.partition(':')[0]} ({some.unit})"
    parts = [
        f'<text x="{MARGIN}" y="20" font-size="13">{escape(title)}</text>',
        f'<path d="M{MARGIN},{MARGIN} V{bottom} H{right}" fill="none" stroke="#999"/>',
        f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" '
        f'fill="none" stroke="{COLOUR}" stroke-width="2"/>',
    ]
    for count, (x, y) in zip(counts, points, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOUR}"/>')
        parts.append(f'<text x="{x:.1f}" y="{y - 6:.1f}" text-anchor="middle">{number(values[count])}</text>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{count}</text>')
    return "".join(parts)


def _between(value: float, low: float, high: float, first: float, last: float) -> float:
    """Where ``value`` is on a logarithmic axis from ``low`` at ``first`` to ``high`` at ``last``."""
    if high <= low:
        return (first + last) / 2
    return first + (last - first) * math.log(value / low) / math.log(high / low)
