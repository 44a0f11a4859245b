"""Reading what is appended to files."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path


class GrowingFiles:
    """Returns what is appended to text files from now on.

    A file that was replaced or truncated is read from its beginning. An incomplete UTF-8 character is returned
    with the next piece.

    Args:
        files: files whose present contents are skipped.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._read: dict[Path, tuple[int, int]] = {}
        self._decoders: dict[Path, codecs.IncrementalDecoder] = {}
        for path in files:
            try:
                status = path.stat()
            except OSError:
                continue
            self._read[path] = (status.st_ino, status.st_size)

    def read(self, path: Path) -> str:
        """Return what is new in a file; "" if it cannot be read."""
        try:
            with path.open("rb") as stream:
                inode = path.stat().st_ino
                known, position = self._read.get(path, (inode, 0))
                if known != inode or stream.seek(0, 2) < position:
                    position = 0
                    self._decoders.pop(path, None)
                stream.seek(position)
                data = stream.read()
        except OSError:
            self._read.pop(path, None)  # a new one may have the same inode
            self._decoders.pop(path, None)
            return ""
        self._read[path] = (inode, position + len(data))
        decoder = self._decoders.setdefault(path, codecs.getincrementaldecoder("utf-8")("replace"))
        return decoder.decode(data)
