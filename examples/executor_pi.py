"""Pi, through Python's own interface for parallel calls: an Executor.

    $ ipcluster -n 4
    $ python examples/executor_pi.py
    $ python examples/executor_pi.py --executor process     # without a cluster, on this machine

A program that knows ``concurrent.futures`` need not know more to use a cluster. The two lines above run the same
``main``; only the executor that it gets is another one.

The area below 4 / (1 + x^2) between 0 and 1 is pi. It is cut into blocks of narrow strips, and each block is one
call: ``map`` gives the areas back in the order of the blocks.
"""

from __future__ import annotations

import math
import sys
from concurrent.futures import Executor
from time import perf_counter

from executors import run
from screen import Screen

STRIPS, BLOCKS = 2_000_000, 40


def area(first: int, last: int, strips: int) -> float:
    """Return the area of the strips from ``first`` up to, not including, ``last``: midpoint rule."""
    width = 1.0 / strips
    return width * sum(4.0 / (1.0 + ((number + 0.5) * width) ** 2) for number in range(first, last))


def main(executor: Executor, screen: Screen, strips: int = STRIPS, blocks: int = BLOCKS) -> bool:
    edges = [block * strips // blocks for block in range(blocks + 1)]

    screen.typed("sum(executor.map(area, edges[:-1], edges[1:], [strips] * blocks))")
    started = perf_counter()
    pi = math.fsum(executor.map(area, edges[:-1], edges[1:], [strips] * blocks))
    screen(f"{strips} strips in {blocks} calls: {perf_counter() - started:.2f} s")

    # The midpoint rule is off by 1 / (12 strips^2); the rest is what adding many numbers rounds away.
    allowed = 1.0 / (12 * strips**2) + 1e-11
    error = abs(pi - math.pi)
    return screen.result(f"pi = {pi:.12f}, off by {error:.1e} (allowed: {allowed:.1e})", error <= allowed)


if __name__ == "__main__":
    sys.exit(run(main))
