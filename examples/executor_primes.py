"""Count primes: calls of unequal length, and results as soon as they are there.

    $ ipcluster -n 4
    $ python examples/executor_primes.py
    $ python examples/executor_primes.py --executor process     # without a cluster, on this machine

Each call looks at one interval. ``submit`` returns a future for it, and ``as_completed`` gives the futures in the
order in which they end, so a table can grow while others still compute. Trying divisors takes longer for larger
numbers; nobody has to think about who gets which interval.
"""

from __future__ import annotations

import sys
from concurrent.futures import Executor, as_completed
from math import isqrt

from executors import run
from screen import Screen

# How many primes there are below some powers of ten: known for a long time, and a check of everything.
KNOWN = {10**3: 168, 10**4: 1229, 10**5: 9592, 10**6: 78498}
LIMIT, STEP = 10**5, 2_500


def count_primes(first: int, last: int) -> int:
    """Return how many primes there are from ``first`` up to, not including, ``last``."""
    count = 0
    for number in range(max(first, 2), last):
        count += number == 2 or (number % 2 == 1 and all(number % d for d in range(3, isqrt(number) + 1, 2)))
    return count


def main(executor: Executor, screen: Screen, limit: int = LIMIT, step: int = STEP) -> bool:
    screen.typed("futures = {executor.submit(count_primes, first, first + step): first for first in starts}")
    starts = range(0, limit, step)
    futures = {executor.submit(count_primes, first, min(first + step, limit)): first for first in starts}

    screen.typed("for future in as_completed(futures): ...")
    counts: dict[int, int] = {}
    for future in as_completed(futures):
        counts[futures[future]] = future.result()
        if len(counts) % max(1, len(futures) // 4) == 0:
            screen(f"{len(counts):4d} of {len(futures)} intervals, {sum(counts.values())} primes so far")

    late = sum(earlier > later for earlier, later in zip(counts, list(counts)[1:], strict=False))
    screen(f"{late} intervals ended after one that begins later")
    total = sum(counts.values())
    return screen.result(f"{total} primes below {limit} (known: {KNOWN[limit]})", total == KNOWN[limit])


if __name__ == "__main__":
    sys.exit(run(main))
