"""Scheduling of tasks inside an engine set, without I/O."""
