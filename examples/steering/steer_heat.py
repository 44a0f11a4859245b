"""Steers one of the heat programs of this folder: ``python steer_heat.py [NU [LOGIN]]``, while it runs.

It pauses the program and draws the plate, changes ``nu`` between two steps, lets it make 40 more, draws the plate
again, and ends the program. It does not know whether that is ``heat.py``, ``heat.c`` or ``heat.f90``. With LOGIN,
such as ``me@cluster``, it goes through ssh to the controller there.
"""

import sys

import numpy as np

from ipmpi import client

SHADES = " .:-=+*#%@"
STEPS = 40


def plate(sim):
    """Return the whole field. The program has said which rows or columns each rank owns."""
    return sim.engines.array("T").gather()


def draw(field):
    """Print it, 16 lines of 32 characters."""
    rows, columns = field.shape[0] // 16, field.shape[1] // 32
    coarse = field.reshape(16, rows, 32, columns).mean(axis=(1, 3))
    shades = np.rint(coarse / max(coarse.max(), 1e-300) * (len(SHADES) - 1)).astype(int)
    print("\n".join("".join(SHADES[shade] for shade in line) for line in shades.clip(0)))


def main():
    """Steer; return where ``nu`` was changed, and where the program was ended."""
    sim = client.Simulation(ssh=sys.argv[2] if len(sys.argv) > 2 else None)
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
