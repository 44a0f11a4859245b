"""How many times better ipmpi did the same work than another system, in one run. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ipmpi.bench.figures import MORE_IS_BETTER, OURS, Figure
from ipmpi.bench.report import aligned


@dataclass(frozen=True)
class Ratio:
    """How many times better this system did the same work than another one, in this run; below 1 it is worse."""

    key: str
    name: str
    peer: str
    times: float


def ratios(figures: Iterable[Figure]) -> list[Ratio]:
    """Compare the medians of ours and of each peer, wherever both have a figure with the same key and unit."""
    everything = list(figures)
    ours = {figure.key: figure for figure in everything if figure.system == OURS}
    found = []
    for theirs in everything:
        own = ours.get(theirs.key)
        if theirs.system == OURS or own is None or own.unit != theirs.unit:
            continue
        if min(own.median, theirs.median) <= 0:
            continue
        better = own.median / theirs.median if own.unit in MORE_IS_BETTER else theirs.median / own.median
        found.append(Ratio(own.key, own.name, theirs.system, better))
    return found


def ratio_table(found: Sequence[Ratio]) -> str:
    """How many times better than each peer; empty if there is nothing to compare."""
    peers = list(dict.fromkeys(ratio.peer for ratio in found))
    names = {ratio.key: ratio.name for ratio in found}
    times = {(ratio.key, ratio.peer): f"{ratio.times:.3g} x" for ratio in found}
    rows = [(f"{OURS} is better by", *peers)]
    rows += [(name, *(times.get((key, peer), "") for peer in peers)) for key, name in names.items()]
    return "\n".join(aligned(rows)) if found else ""
