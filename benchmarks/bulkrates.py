"""Rates of transfers between machines, beside those of one TLS stream and of Dask in the same run. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ipmpi.bench.report import number

from .comparison import Comparison, named
from .systems import OWN

STREAM = "one TLS stream"


def rates(found: Comparison, size: int) -> list[dict[str, Any]]:
    """GB/s of ours and of the others for each row, and how many times theirs ours is.

    Args:
        found: where a stream was measured as ``push_all``; it is as quick in the other direction.
        size: bytes of each transfer, counted once however many engines it is for.
    """
    stream = found.summaries("push_all").get(STREAM)
    rows = []
    for key, name in named(found.keys, size, 0).items():
        seconds = {system: each.median for system, each in found.summaries(key).items() if system != STREAM}
        if stream is not None:
            seconds[STREAM] = stream.median
        own = seconds.get(OWN)
        rows.append(
            {
                "key": key,
                "name": name.removesuffix(" 0"),
                "gb_per_s": {system: size / 1e9 / each for system, each in seconds.items()},
                "ratio": {s: each / own for s, each in seconds.items() if s != OWN} if own else {},
            }
        )
    return rows


def rate_rows(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A table, with a heading."""
    others = list(dict.fromkeys(system for row in found for system in row["gb_per_s"] if system != OWN))
    heading = ["from another machine, GB/s", OWN, *(part for other in others for part in (other, "ratio"))]
    rows = [heading]
    for row in found:
        cells = [row["name"], number(row["gb_per_s"][OWN]) if OWN in row["gb_per_s"] else "failed"]
        for other in others:
            cells.append(number(row["gb_per_s"][other]) if other in row["gb_per_s"] else "")
            cells.append(f"{row['ratio'][other]:.3g}" if other in row["ratio"] else "")
        rows.append(cells)
    return rows
