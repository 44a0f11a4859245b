"""Loops and links: the only package that imports socket and selectors (L3)."""
