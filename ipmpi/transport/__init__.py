"""Loops and links: the only package that imports socket and select (L3)."""
