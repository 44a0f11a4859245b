"""How much of a message is taken beside its body (no I/O)."""

from __future__ import annotations

from .. import limits

LARGEST_HEADER = limits.MESSAGE - limits.INLINE_BODY - limits.KIB
"""What a message may have beside its body so that it can be passed on, whatever the body."""


def header_size(content: bytes, sizes: list[int], engines: int) -> int:
    """The most bytes that an operation or outcome, the sizes of a body and ids or ranks take in a message."""
    return len(content) + 9 * len(sizes) + 5 * engines
