"""Steer an MPI program step by step: heat spreading over a square plate.

    $ ipcluster -n 4
    $ python examples/heat.py

All ranks compute together - each owns some rows and swaps edge rows with its neighbours at every time step - but
nothing in the program says how long it runs. The client does: it takes 200 steps, looks, changes the diffusivity,
goes on. Between two calls the plate waits in the engines' memory, for a second or for the night.

The start is a sum of two sine waves, so the answer is known in closed form and the result can be checked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from screen import Screen, ranks_in_order

# (amplitude, half waves along y, half waves along x), as in heat_engine.py
WAVES = ((1.0, 1, 1), (0.5, 3, 2))

Leg = tuple[float, int]  # diffusivity, number of steps


def wave(ky: int, kx: int, points: int) -> np.ndarray[Any, Any]:
    """Return sin(ky pi y) sin(kx pi x) on the inner grid, shape (points, points)."""
    x = np.arange(1, points + 1) / (points + 1)
    return np.outer(np.sin(ky * np.pi * x), np.sin(kx * np.pi * x))


def discrete_solution(points: int, legs: Sequence[Leg]) -> np.ndarray[Any, Any]:
    """Return what the scheme gives in exact arithmetic: each wave shrinks by a fixed factor per step."""
    h = 1.0 / (points + 1)
    dt = 0.2 * h**2
    field = np.zeros((points, points))
    for amplitude, ky, kx in WAVES:
        # The eigenvalue of the five-point Laplacian that belongs to this wave.
        decay = 4 / h**2 * (np.sin(ky * np.pi * h / 2) ** 2 + np.sin(kx * np.pi * h / 2) ** 2)
        factor = np.prod([(1 - D * dt * decay) ** steps for D, steps in legs])
        field += amplitude * factor * wave(ky, kx, points)
    return field


def continuous_solution(points: int, legs: Sequence[Leg]) -> np.ndarray[Any, Any]:
    """Return the solution of the differential equation: exp(-(ky^2 + kx^2) pi^2 (D1 t1 + D2 t2 + ...))."""
    dt = 0.2 / (points + 1) ** 2
    spread = sum(D * steps * dt for D, steps in legs)
    field = np.zeros((points, points))
    for amplitude, ky, kx in WAVES:
        field += amplitude * np.exp(-(ky**2 + kx**2) * np.pi**2 * spread) * wave(ky, kx, points)
    return field


def main(mec: Any, _tc: Any, screen: Screen) -> bool:
    engines = ranks_in_order(mec)
    points = max(64, len(engines))

    # 1. Send the engine's side, and build the plate. `mpi` is there already on every engine.
    screen.typed('mec.run("heat_engine.py")')
    mec.run(str(Path(__file__).with_name("heat_engine.py")))
    mec.push({"points": points})
    screen.typed("mec.execute('plate = Plate(mpi.COMM_WORLD if mpi else Alone(), points)')")
    mec.execute("plate = Plate(mpi.COMM_WORLD if mpi else Alone(), points)")
    screen(f"a plate of {points} x {points} points, its rows shared by {len(engines)} rank(s)")

    # 2. Steer: some steps, a look, another diffusivity, more steps.
    legs: list[Leg] = [(1.0, 200), (0.25, 200), (0.5, 200)]
    for D, steps in legs:
        screen.typed(f"mec.push({{'D': {D}}}); mec.execute('plate.advance(D, {steps})')")
        mec.push({"D": D})
        mec.execute(f"plate.advance(D, {steps}); hottest = plate.hottest()")
        screen(f"{steps} steps with D = {D}: the hottest point is at {max(mec.pull('hottest')):.6f}")

    # 3. Bring the rows home, in the order of the ranks, as one array.
    screen.typed("field = mec.gather('block')")
    mec.execute("block = plate.block()")
    field = mec.gather("block", targets=engines)

    # 4. Compare. Against the scheme's own solution only rounding may remain, whatever the number of ranks.
    rounding = float(np.abs(field - discrete_solution(points, legs)).max())
    truncation = float(np.abs(field - continuous_solution(points, legs)).max())
    screen(f"largest difference from the differential equation's solution: {truncation:.1e} (allowed 2e-03)")
    return screen.result(f"largest rounding error {rounding:.1e}", rounding < 1e-10 and truncation < 2e-3)


if __name__ == "__main__":
    from ipmpi import client

    sys.exit(0 if main(client.MultiEngineClient(), client.TaskClient(), Screen()) else 1)
