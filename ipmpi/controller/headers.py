"""Sizes of messages without their bodies (no I/O)."""

from __future__ import annotations

from .. import limits

LARGEST_HEADER = limits.MESSAGE - limits.INLINE_BODY - limits.KIB
"""Most bytes of a message without its body, so that it can be passed on with any body."""


def header_size(content: bytes, sizes: list[int], engines: int) -> int:
    """Return an upper bound of the bytes of an operation or outcome, the sizes of a body, and ids or ranks."""
    return len(content) + 9 * len(sizes) + 5 * engines
