"""What `ipcluster doctor` and `ipcluster explain` look at, and what they make of it.

The modules ``check_*`` are tables of what is said when: they take facts and return diagnostics, do no I/O and read
no clock. ``gather``, ``mpi_run`` and ``mpi_probe`` collect facts, on this machine and by starting two ranks.
"""
