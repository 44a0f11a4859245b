"""How much memory Python keeps."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable


def bytes_kept(work: Callable[[], object]) -> int:
    """The bytes that are allocated in a call, and are still there after it."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
