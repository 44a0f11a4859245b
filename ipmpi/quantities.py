"""Durations and sizes in words."""

from __future__ import annotations

import math
from typing import Final

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float) -> str:
    """``4 ms``, ``1.3 s``, ``41 s``, ``2 h 10 min``."""
    if seconds < 1:
        return f"{max(0.0, 1000 * seconds):.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 2:
        return f"{round(seconds)} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def sized(size: int) -> str:
    """``1.2 GiB``."""
    step = _step(size)
    return f"{_in_unit(size, step)} {_UNITS[step]}"


def sized_of(size: int, limit: int) -> str:
    """``0.8 of 1.2 GiB``."""
    step = _step(limit)
    return f"{_in_unit(size, step)} of {_in_unit(limit, step)} {_UNITS[step]}"


def _step(size: int) -> int:
    return min(int(math.log2(size)) // 10, len(_UNITS) - 1) if size >= 1 else 0


def _in_unit(size: int, step: int) -> str:
    return f"{size / (1 << 10 * step):.1f}".removesuffix(".0")
