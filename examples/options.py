"""A task farm: the price of options by Monte Carlo, over strikes x volatilities x seeds.

    $ ipcluster -n 4
    $ python examples/options.py

A European call pays max(S - K, 0) at the end of its life, a put max(K - S, 0). Each task draws many final stock
prices S and averages the payoffs for one strike K, one volatility and one seed. The tasks are independent, so they
go to a TaskClient: an engine that is free takes the next one, and a slow engine slows nobody down.

Black and Scholes found the same prices in closed form, so the result can be checked.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import product
from time import perf_counter
from typing import Any

from screen import Screen

SPOT, RATE, YEARS = 100.0, 0.05, 1.0
STRIKES = (80.0, 90.0, 100.0, 110.0, 120.0)
VOLATILITIES = (0.15, 0.25, 0.35)
SEEDS = (1, 2, 3, 4)
PAIRS = 400_000  # per task; four seeds make 1.6 million pairs for each price

# One task's answer: (process, pairs, sum and sum of squares for the call, the same two for the put)
Tally = tuple[str, int, float, float, float, float]
# A price with its standard error
Price = tuple[float, float]


def black_scholes(strike: float, sigma: float) -> tuple[float, float]:
    """Return the exact prices (call, put)."""
    discounted = strike * math.exp(-RATE * YEARS)
    if sigma == 0:
        return max(SPOT - discounted, 0.0), max(discounted - SPOT, 0.0)
    spread = sigma * math.sqrt(YEARS)
    d1 = (math.log(SPOT / strike) + (RATE + sigma**2 / 2) * YEARS) / spread
    call = SPOT * normal(d1) - discounted * normal(d1 - spread)
    return call, call - SPOT + discounted


def normal(x: float) -> float:
    """Return the probability that a standard normal variable is below x."""
    return (1 + math.erf(x / math.sqrt(2))) / 2


def make_pricer(pairs: int, spot: float = SPOT, rate: float = RATE, years: float = YEARS) -> Callable[..., Tally]:
    """Return the function that becomes a task.

    It is made inside another function, so it travels *by value*: its code together with ``pairs``, ``spot``,
    ``rate`` and ``years``. The engines need no copy of this file. What it imports, it imports there.
    """

    def price(strike: float, sigma: float, seed: int) -> Tally:
        import math
        import os
        import socket

        import numpy as np

        # A stream of random numbers that belongs to this strike, volatility and seed, on whatever engine it runs.
        stream = np.random.default_rng([seed, round(strike * 100), round(sigma * 10_000)])
        z = sigma * math.sqrt(years) * stream.standard_normal(pairs)
        drift = spot * math.exp((rate - sigma**2 / 2) * years)
        up, down = drift * np.exp(z), drift * np.exp(-z)
        discount = math.exp(-rate * years) / 2
        # Antithetic pairs: z and -z have opposite luck, and their mean scatters much less than two free draws.
        call = discount * (np.maximum(up - strike, 0) + np.maximum(down - strike, 0))
        put = discount * (np.maximum(strike - up, 0) + np.maximum(strike - down, 0))
        process = f"{socket.gethostname()}:{os.getpid()}"
        return process, pairs, float(call.sum()), float((call**2).sum()), float(put.sum()), float((put**2).sum())

    return price


def merge(tallies: Iterable[Tally]) -> tuple[Price, Price]:
    """Return the call's and the put's mean with its standard error, over all tallies of one option."""
    n, call, call2, put, put2 = (sum(column) for column in list(zip(*tallies, strict=True))[1:])
    return mean_and_error(n, call, call2), mean_and_error(n, put, put2)


def mean_and_error(n: float, total: float, squares: float) -> Price:
    """Return the mean of n values and its standard error, from their sum and sum of squares."""
    mean = total / n
    return mean, math.sqrt(max(squares / n - mean**2, 0.0) / (n - 1))


def is_right(price: Price, exact: float) -> bool:
    """Tell whether a price is within 4 standard errors, and within 5 cents, of the exact one."""
    value, error = price
    return abs(value - exact) < min(max(4 * error, 1e-9), 0.05)


def main(_mec: Any, tc: Any, screen: Screen) -> bool:
    # 1. One task per combination.
    grid = list(product(STRIKES, VOLATILITIES, SEEDS))
    strikes, sigmas, seeds = zip(*grid, strict=True)

    # 2. Farm them out. The answers come back in the order of the grid, whoever computed them.
    screen.typed("tallies = tc.map(price, strikes, volatilities, seeds)")
    started = perf_counter()
    tallies = tc.map(make_pricer(PAIRS), strikes, sigmas, seeds)
    seconds = perf_counter() - started
    share = sorted(Counter(tally[0] for tally in tallies).values(), reverse=True)
    screen(f"{len(tallies)} tasks in {seconds:.2f} s; the engines took {' + '.join(map(str, share))} of them")

    # 3. Merge the seeds and compare with the closed form.
    screen("strike  volatility      call  (exact)   error        put  (exact)   error")
    right, worst = [], 0.0
    for strike, sigma in product(STRIKES, VOLATILITIES):
        mine = [t for t, (k, s, _) in zip(tallies, grid, strict=True) if (k, s) == (strike, sigma)]
        prices, exact = merge(mine), black_scholes(strike, sigma)
        cells = [f"{p:8.4f} {e:8.4f}  +-{error:.4f}" for (p, error), e in zip(prices, exact, strict=True)]
        screen(f"{strike:6.0f}  {sigma:10.2f}  {'   '.join(cells)}")
        right += [is_right(price, e) for price, e in zip(prices, exact, strict=True)]
        worst = max(worst, *(abs(p - e) / error for (p, error), e in zip(prices, exact, strict=True)))
    known = [round(value, 4) for value in black_scholes(100.0, 0.25)] == [12.3360, 7.4589]
    figure = f"{sum(right)} of {len(right)} prices right, the worst {worst:.1f} standard errors off"
    return screen.result(figure, all(right) and known)


if __name__ == "__main__":
    from ipmpi import client

    sys.exit(0 if main(client.MultiEngineClient(), client.TaskClient(), Screen()) else 1)
