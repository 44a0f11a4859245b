"""Where output is shown: what the terminal, notebook or file of this process can do."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from .pictures import publisher
from .render import MAX_LINES, Fold, GroupOutputs, Renderer


def has_colours(stream: Any = None) -> bool:
    """Return whether a stream is a terminal or notebook, and ``NO_COLOR`` is not set.

    Args:
        stream: by default standard output.
    """
    if sys.platform == "win32" or os.environ.get("NO_COLOR"):
        return False
    return is_terminal(stream) or (stream is None and publisher() is not None)


def is_terminal(stream: Any = None) -> bool:
    """Return whether a stream, by default standard output, is a terminal."""
    isatty = getattr(sys.stdout if stream is None else stream, "isatty", None)
    return bool(isatty is not None and isatty())


def width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns


def renderer_here(
    stream: Any = None,
    fold: Fold = "exact",
    group_outputs: GroupOutputs = "type",
    max_lines: int | None = MAX_LINES,
) -> Renderer:
    """A renderer for a stream; see :class:`~ipmpi.client.display.render.Renderer`, also for what it raises.

    Raises:
        TypeError: the stream cannot be written to like a text file.
    """
    if stream is not None and not callable(getattr(stream, "write", None)):
        raise TypeError(f"stream must be a file that is open for text, such as sys.stdout, not {stream!r:.100}")
    return Renderer(fold, has_colours(stream), width(), max_lines, group_outputs)
