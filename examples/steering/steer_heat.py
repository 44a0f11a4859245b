"""Steers one of the heat programs of this folder: ``python steer_heat.py [NU]``, while it runs.

It pauses the program and draws the plate, changes ``nu`` between two steps, lets it make 40 more, draws the plate
again, and ends the program. Whether that is ``heat.py``, ``heat.c`` or ``heat.f90`` makes no difference.
"""

import sys

import numpy as np

from ipmpi import client

SHADES = " .:-=+*#%@"
STEPS = 40


def plate(sim):
    """Return the whole field, from the parts of the ranks, of which some own rows and others columns."""
    parts = [part[1:-1, 1:-1] for part in sim.engines.pull("T")]
    return np.concatenate(parts, axis=0 if parts[0].shape[1] == sum(len(part) for part in parts) else 1)


def draw(field):
    """Print it, 16 lines of 32 characters."""
    rows, columns = field.shape[0] // 16, field.shape[1] // 32
    coarse = field.reshape(16, rows, 32, columns).mean(axis=(1, 3))
    shades = np.rint(coarse / max(coarse.max(), 1e-300) * (len(SHADES) - 1)).astype(int)
    print("\n".join("".join(SHADES[shade] for shade in line) for line in shades.clip(0)))


def main():
    """Steer; return where ``nu`` was changed, and where the program was ended."""
    sim = client.Simulation()
    changed_at = sim.pause()
    print(f"{sim.program} is at step {changed_at}, nu = {sim.nu}")
    draw(plate(sim))
    sim.nu = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
    sim.step(STEPS)
    print(f"{STEPS} steps with nu = {sim.nu} later:")
    draw(plate(sim))
    ended_at = sim.stop()
    print(f"changed before step {changed_at}, ended before step {ended_at}")


if __name__ == "__main__":
    main()
