"""The wire protocol, sans-IO: bytes in, messages out (layer L1; no socket, thread, clock, MPI or pickle)."""
