"""The wire protocol, sans-IO: bytes in, messages out (no socket, thread, clock, MPI or pickle)."""
