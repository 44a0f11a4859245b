"""MPI for the set and for gang tasks; nothing else of ipmpi imports mpi4py."""
