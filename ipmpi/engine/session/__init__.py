"""What user code meets on an engine: names, commands, output, errors (no thread, no network, no MPI)."""
