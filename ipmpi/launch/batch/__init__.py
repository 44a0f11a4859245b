"""Batch systems: options, job scripts, commands and their output."""
