"""Batch systems: options, job scripts, commands and what they answer."""
