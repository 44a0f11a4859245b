"""The engine's side of ``heat.py``: one block of a hot plate on every rank.

The client sends this file with ``mec.run("heat_engine.py")``. From then on the names below exist on every engine.
It is an ordinary MPI program without a main loop: the client decides when to go on, and for how long.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Alone:
    """Stands in for a communicator when there is one engine and no MPI."""

    rank, size = 0, 1

    def Create_cart(self, _dims: list[int]) -> Alone:
        """Return a line of one rank."""
        return self

    def Shift(self, _direction: int, _displacement: int) -> tuple[int, int]:
        """Return the neighbours: there are none."""
        return -1, -1

    def Sendrecv(self, sendbuf: Any, dest: int, recvbuf: Any, source: int) -> None:
        """Exchange nothing with nobody."""


class Plate:
    """The rows of the plate that this rank owns, with one halo row above and below.

    The unit square has ``points`` x ``points`` inner grid points; its edges are held at 0. Rank r owns a block
    of neighbouring rows. ``u`` has shape (rows + 2, points + 2), float64; ``u[1:-1, 1:-1]`` is what it owns.

    Raises:
        ValueError: there are more ranks than rows.
    """

    def __init__(self, comm: Any, points: int) -> None:
        if comm.size > points:
            raise ValueError(f"{points} rows cannot be shared by {comm.size} ranks: ask for more points")
        # A "Cartesian" communicator is MPI's way to say who is next to whom. At both ends of the line the
        # neighbour is MPI.PROC_NULL: sending there does nothing, and the halo row stays 0 - the edge of the plate.
        self.line = comm.Create_cart([comm.size])
        self.above, self.below = self.line.Shift(0, 1)
        first = comm.rank * points // comm.size
        last = (comm.rank + 1) * points // comm.size
        self.h = 1.0 / (points + 1)
        self.dt = 0.2 * self.h**2
        x = np.arange(points + 2) * self.h
        y = x[first : last + 2]
        self.u = np.outer(np.sin(np.pi * y), np.sin(np.pi * x))
        self.u += 0.5 * np.outer(np.sin(3 * np.pi * y), np.sin(2 * np.pi * x))
        self.u[:, [0, -1]] = 0.0
        if first == 0:
            self.u[0] = 0.0
        if last == points:
            self.u[-1] = 0.0

    def exchange(self) -> None:
        """Swap edge rows with the ranks above and below: straight from array to array, no pickle, no client."""
        u = self.u
        self.line.Sendrecv(u[1], dest=self.above, recvbuf=u[-1], source=self.below)
        self.line.Sendrecv(u[-2], dest=self.below, recvbuf=u[0], source=self.above)

    def advance(self, D: float, steps: int) -> None:
        """Take explicit Euler steps of u_t = D (u_xx + u_yy); every rank must be asked for the same number.

        Raises:
            ValueError: the scheme is not stable for so large a diffusivity.
        """
        c = D * self.dt / self.h**2
        if not 0 <= c <= 0.25:
            raise ValueError(
                f"D = {D} is outside 0 ... {0.25 * self.h**2 / self.dt:g}, where this scheme is stable"
            )
        for _ in range(steps):
            self.exchange()
            u = self.u
            # The right-hand side is complete before the assignment starts, so one array is enough.
            u[1:-1, 1:-1] += c * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:] - 4 * u[1:-1, 1:-1])

    def hottest(self) -> float:
        """Return the highest temperature in this rank's rows."""
        return float(self.u[1:-1, 1:-1].max())

    def block(self) -> np.ndarray[Any, Any]:
        """Return this rank's rows without halo and edges, shape (rows, points)."""
        return self.u[1:-1, 1:-1].copy()
