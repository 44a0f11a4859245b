"""The agent of a node: a process that carries all traffic of its ranks."""
