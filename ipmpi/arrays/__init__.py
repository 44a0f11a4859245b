"""Arrays that are spread over engines: where their blocks are, and what engines compute of theirs (no I/O)."""
