"""Places in source files, as messages show them."""

from __future__ import annotations


def file_name(path: str) -> str:
    """The last part of a path."""
    return path.replace("\\", "/").rpartition("/")[2] or path


def place_in(file: str, line: int, function: str = "") -> str:
    """``heat.py:41 in step``; without a line that is not known (0)."""
    where = f"{file_name(file)}:{line}" if line else file_name(file)
    return f"{where} in {function}" if function else where
