"""Processes of this machine, MPI launchers, and what they write when they end."""
