"""Keep all workers busy with a list of work that grows while it is done.

    $ ipcluster -n 4
    $ python examples/executor_run_workers.py
    $ python examples/executor_run_workers.py --executor process     # without a cluster, on this machine

Nobody knows beforehand how much work it will be: to integrate a function with a sharp peak, each call looks at one
interval and says either "here is the area" or "this is too rough, have both halves looked at". ``wait`` with
FIRST_COMPLETED hands over what has ended, the halves go out at once, and the rest goes on meanwhile.

At the end there is a table of who has done how much.
"""

from __future__ import annotations

import math
import os
import socket
import sys
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from itertools import pairwise
from typing import NamedTuple

from executors import run
from screen import Screen

PEAK, WIDTH = 1.0 / 3.0, 1e-3  # where the peak is, and how sharp
ALLOWED = 1e-6


class Piece(NamedTuple):
    """What one call found out about its interval."""

    first: float
    last: float
    area: float
    is_good: bool
    worker: str


def height(x: float) -> float:
    """Return the function that is integrated."""
    return WIDTH / (WIDTH**2 + (x - PEAK) ** 2)


def simpson(first: float, last: float, parts: int) -> float:
    """Return the area over an interval by Simpson's rule, with an even number of parts."""
    step = (last - first) / parts
    inner = math.fsum((4 if number % 2 else 2) * height(first + number * step) for number in range(1, parts))
    return step / 3 * (height(first) + inner + height(last))


def look(first: float, last: float, allowed: float) -> tuple[float, float, float, bool, str]:
    """Integrate over an interval in two ways; where they agree, the area is good."""
    rough, fine = simpson(first, last, 64), simpson(first, last, 128)
    worker = f"{socket.gethostname()}, process {os.getpid()}"
    return first, last, fine, abs(fine - rough) <= allowed, worker


def main(executor: Executor, screen: Screen, parts: int = 16, allowed: float = ALLOWED) -> bool:
    edges = [number / parts for number in range(parts + 1)]
    pending = {executor.submit(look, first, last, allowed * (last - first)) for first, last in pairwise(edges)}
    screen(f"{len(pending)} intervals to begin with")

    screen.typed("done, pending = wait(pending, return_when=FIRST_COMPLETED)")
    areas: list[float] = []
    calls: Counter[str] = Counter()
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            piece = Piece(*future.result())
            calls[piece.worker] += 1
            if piece.is_good:
                areas.append(piece.area)
            else:
                middle = (piece.first + piece.last) / 2
                for first, last in ((piece.first, middle), (middle, piece.last)):
                    pending.add(executor.submit(look, first, last, allowed * (last - first)))

    for worker, number in sorted(calls.items()):
        screen(f"{number:5d} calls by {worker}")
    # The integral of the function is an arc tangent. A tree in which each knot has two branches has one leaf more.
    exact = math.atan((1 - PEAK) / WIDTH) + math.atan(PEAK / WIDTH)
    error = abs(math.fsum(areas) - exact)
    is_whole = 2 * (len(areas) - parts) + parts == sum(calls.values())
    figure = f"{sum(calls.values())} calls, {len(areas)} intervals in the end"
    return screen.result(
        f"{figure}, off by {error:.1e} (allowed: {allowed:g})",
        error <= allowed and is_whole and len(areas) > parts,
    )


if __name__ == "__main__":
    sys.exit(run(main))
