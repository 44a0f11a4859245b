"""A Julia set, drawn row by row: many calls, some of them a hundred times longer than others.

    $ ipcluster -n 4
    $ python examples/executor_julia.py
    $ python examples/executor_julia.py --executor process     # without a cluster, on this machine

Take a point z of the plane, replace it by z^2 + c, again and again, and count how many steps it takes to leave.
The points that never leave are the Julia set. Rows that cross the set take long, those beside it do not: cut into
equal parts beforehand, most workers would wait for one. Here whoever is free takes the next row.

The set looks the same when it is turned by half a turn, since z and -z have the same square. So does the picture,
if no row was lost or has changed its place.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from time import perf_counter

from executors import run
from screen import Screen

C = -0.8 + 0.156j
WIDTH, HEIGHT = 320, 160  # points
LONG, FAR = 200, 2.0  # steps at most, and the distance from which nothing comes back
INK = " .:-=+*#%@"


def steps(z: complex, c: complex = C) -> int:
    """Return how many steps it takes from ``z`` to leave, at most ``LONG``."""
    for number in range(LONG):
        if abs(z) > FAR:
            return number
        z = z * z + c
    return LONG


def row(number: int, width: int, height: int) -> bytes:
    """Return the steps of all points of one row of the picture, one byte each."""
    # Written so that opposite points are exactly opposite, to the last bit.
    y = (2 * number + 1 - height) / height
    return bytes(steps(complex(1.6 * ((2 * column + 1 - width) / width), y)) for column in range(width))


def draw(screen: Screen, picture: Sequence[bytes], width: int = 72, height: int = 20) -> None:
    """Print a small copy of the picture."""
    for y in range(height):
        line = picture[(2 * y + 1) * len(picture) // (2 * height)]
        points = [line[(2 * x + 1) * len(line) // (2 * width)] for x in range(width)]
        screen("".join(INK[min(point * len(INK) // 40, len(INK) - 1)] for point in points))


def main(executor: Executor, screen: Screen, width: int = WIDTH, height: int = HEIGHT) -> bool:
    screen.typed("picture = list(executor.map(row, range(height), [width] * height, [height] * height))")
    started = perf_counter()
    picture = list(executor.map(row, range(height), [width] * height, [height] * height))
    seconds = perf_counter() - started
    draw(screen, picture)

    turned = [line[::-1] for line in reversed(picture)]
    sample = range(0, height, max(1, height // 8))
    right = picture == turned and all(picture[number] == row(number, width, height) for number in sample)
    inside = sum(line.count(LONG) for line in picture)
    return screen.result(
        f"{width} x {height} points in {seconds:.2f} s, {inside} never leave", right and inside > 0
    )


if __name__ == "__main__":
    sys.exit(run(main))
