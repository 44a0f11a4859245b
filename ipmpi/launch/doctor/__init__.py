"""The checks of `ipcluster doctor` and `ipcluster explain`.

The modules ``check_*`` are tables of conditions and diagnostics: they take facts, do no I/O and read no clock.
``gather``, ``mpi_run`` and ``mpi_probe`` collect facts, on this machine and by starting two ranks.
"""
