"""The lines of source files that stacks refer to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ...protocol.inquiries import StackFrame
from ...protocol.operations import Execute, decode_operation

_FILE: Final = 4 << 20
"""Bytes of a source file that is read at most."""
_KEPT: Final = 64
"""Files that are kept."""
_TEXT: Final = 80
_FRAMES: Final = 6
"""Innermost frames that get their line; nobody looks for one in the others."""


class SourceLines:
    """Adds lines to frames. Files are kept, and read again when they have changed.

    Thread-safety: the method may be called from any thread.
    """

    def __init__(self) -> None:
        self._files: dict[str, tuple[tuple[int, int], list[str]]] = {}

    def added(self, frames: Sequence[StackFrame], typed: Mapping[str, str]) -> list[StackFrame]:
        """Return the frames with their lines.

        Args:
            frames: innermost first.
            typed: sources that are in no file, by the name that their frames have.
        """
        found: list[StackFrame] = []
        left = _FRAMES
        for frame in frames:
            if not frame.line or not left:
                found.append(frame)
                continue
            left -= 1
            source = typed.get(frame.file)
            lines = self._lines(frame.file) if source is None else source.splitlines()
            text = lines[frame.line - 1].strip() if 0 < frame.line <= len(lines) else ""
            found.append(msgspec.structs.replace(frame, text=text[:_TEXT]))
        return found

    def _lines(self, path: str) -> list[str]:
        if not os.path.isabs(path):
            return []
        try:
            status = os.stat(path)
            state = status.st_mtime_ns, status.st_size
            kept = self._files.get(path)
            if kept is not None and kept[0] == state:
                return kept[1]
            if status.st_size > _FILE:
                return []
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.read(_FILE).splitlines()
        except (OSError, ValueError):
            return []
        while len(self._files) >= _KEPT:
            self._files.pop(next(iter(self._files)), None)
        self._files[path] = state, lines
        return lines


def typed_source(operation: bytes, frames: Sequence[StackFrame]) -> dict[str, str]:
    """Return the text of the command that runs, by the name of the outermost frame, which is that text."""
    if not operation or not frames:
        return {}
    try:
        decoded = decode_operation(operation)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    outermost = frames[-1]
    return {outermost.file: decoded.source} if isinstance(decoded, Execute) and outermost.line else {}
