"""Queues of commands for engines, without I/O."""
