"""Processes of this machine, MPI launchers, and their messages about ended ranks."""
