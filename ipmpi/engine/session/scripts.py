"""The environment of a script that is run on an engine."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, Final

_MISSING: Final = object()


@contextlib.contextmanager
def as_script(names: dict[str, Any], argv: list[str], path: str) -> Iterator[None]:
    """Set ``sys.argv`` and ``__file__`` as for a script, and restore them at the end.

    Args:
        names: the namespace in which it is run.
        argv: its arguments, including its name.
        path: the path of its file.
    """
    words, file = sys.argv, names.get("__file__", _MISSING)
    sys.argv, names["__file__"] = list(argv), path
    try:
        yield
    finally:
        sys.argv = words
        if file is not _MISSING:
            names["__file__"] = file
        else:
            names.pop("__file__", None)
