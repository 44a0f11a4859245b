"""Tables and a plot of what :mod:`benchmarks.growth` has measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ipmpi.bench.report import aligned

COLUMNS: Final[Mapping[str, str]] = {
    "registered, s": "register_s",
    "execute on one, ms": "execute_one_ms",
    "execute on all, ms": "execute_all_ms",
    "- CPU of the client, us": "client_cpu_us",
    "- CPU of the controller, us": "controller_cpu_us",
    "- CPU of agents per rank, us": "agent_cpu_us_per_rank",
    "- CPU of each rank, us": "rank_cpu_us_per_rank",
    "push 10 MB to all, ms": "push_all_ms",
    "no-op tasks/s": "tasks_per_s",
    "memory of a rank, MB": "rank_mb",
    "memory of an agent, MB": "agent_mb",
    "memory of the controller, MB": "controller_mb",
    "idle node, % of a core": "idle_node_percent",
    "- waits begun per s": "idle_node_waits",
    "idle controller, % of a core": "idle_controller_percent",
    "idle ipcluster, % of a core": "idle_ipcluster_percent",
}
SIMULATED: Final[Mapping[str, str]] = {
    "registered, s": "register_s",
    "controller: memory, MB": "controller_mb",
    "CPU for execute on all, ms": "all_cpu_ms",
    "CPU for execute on one, ms": "one_cpu_ms",
    "CPU for execute on every second, ms": "second_cpu_ms",
    "CPU for cluster_info, ms": "info_cpu_ms",
}


def tables(record: Mapping[str, Any]) -> str:
    """Return everything, for a terminal."""
    parts = [f"{record['machine']['cores']} cores, {record['machine']['cpu']}"]
    for name in dict.fromkeys(_series(row) for row in record["rows"]):
        rows = [row for row in record["rows"] if _series(row) == name]
        loads = [row["load"] for row in rows]
        parts.append(f"{name} (load {min(loads):.1f} to {max(loads):.1f})\n{_table(COLUMNS, rows)}")
    if record.get("simulated"):
        loads = [row["load"] for row in record["simulated"]]
        load = f"load {min(loads):.1f} to {max(loads):.1f}"
        parts.append(f"sets without processes ({load})\n{_table(SIMULATED, record['simulated'])}")
    return "\n\n".join(parts)


def _series(row: Mapping[str, Any]) -> str:
    nodes = f"{row['nodes']} nodes" if row["nodes"] > 1 else "one node"
    delay = f", {row['delay_ms']:g} ms between them" if row["delay_ms"] else ""
    return f"{row['mpi']}, {nodes}{delay}"


def _table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [["ranks", *(f"{row['ranks']:,}" for row in rows)]]
    lines += [[title, *(_shown(row[key]) for row in rows)] for title, key in columns.items()]
    return "\n".join(aligned(lines))


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


PANELS: Final[Mapping[str, tuple[str, ...]]] = {
    "ms": ("execute_one_ms", "execute_all_ms", "push_all_ms"),
    "µs of a processor": ("controller_cpu_us", "agent_cpu_us_per_rank", "rank_cpu_us_per_rank"),
    "MB": ("rank_mb", "agent_mb", "controller_mb"),
}
_STYLES: Final[Mapping[str, str]] = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dashes and dots"}
_INK: Final = "#7a828b"
"""To be read on light and on dark pages."""


def plot(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw the rows over the number of ranks, on logarithmic axes; the ending of the file is its format."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(11, 3.6), layout="constrained")
    titles = {key: title.removeprefix("- ") for title, key in COLUMNS.items()}
    styles = dict(zip(dict.fromkeys(map(_series, rows)), _STYLES, strict=False))
    for axes, (unit, keys) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for number, key in enumerate(keys):
            for name, style in styles.items():
                points = [(row["ranks"], row[key]) for row in rows if _series(row) == name]
                label = titles[key].rpartition(",")[0] if name == next(iter(styles)) else None
                axes.plot(*zip(*points, strict=True), style, color=f"C{number}", marker=".", label=label)
        ranks = sorted({row["ranks"] for row in rows})
        axes.set(xscale="log", yscale="linear" if unit == "MB" else "log", xlabel="ranks", ylabel=unit)
        axes.set_xticks(ranks, [str(each) for each in ranks], minor=False)
        axes.set_xticks([], minor=True)
        if unit == "MB":
            axes.set_ylim(0)
        axes.legend(frameon=False, labelcolor=_INK, fontsize="small")
        axes.tick_params(which="both", colors=_INK)
        for part in (axes.xaxis.label, axes.yaxis.label):
            part.set_color(_INK)
        for spine in axes.spines.values():
            spine.set_color(_INK)
    title = "; ".join(f"{_STYLES[style]}: {name}" for name, style in styles.items())
    figure.suptitle(title, color=_INK, fontsize="small")
    figure.savefig(file, transparent=True)
