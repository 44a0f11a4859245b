"""A file of notes that outlive the process, but need not outlive the machine.

Notes are bytes. They are appended, each with its length and a check sum, and the file is not synced: what was
written is there when another process reads it, also after ``kill -9``, and costs some microseconds. After a crash
of the machine the end may be missing: what is read ends before the first note that does not fit.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from .. import furl

_HEADER: Final = b"ipmpi notes 1\n"
"""The format, with its version."""
_FRAME: Final = struct.Struct("<II")
"""Length and check sum of what follows."""


class NoteFile:
    """The notes at ``path``, in a folder that exists. Only one process may write them.

    Not thread-safe.

    Attributes:
        size: bytes of the file, as far as it is written here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._descriptor = -1

    def read(self) -> Iterator[bytes]:
        """Yield the notes that are there, in their order.

        Raises:
            SecurityError: somebody else could have written them.
            OSError: they cannot be read.
        """
        if not self.path.exists():
            return
        furl.check_private(self.path)
        with open(self.path, "rb") as file:
            left = os.fstat(file.fileno()).st_size - len(_HEADER)
            if file.read(len(_HEADER)) != _HEADER:
                return
            while len(frame := file.read(_FRAME.size)) == _FRAME.size:
                length, check_sum = _FRAME.unpack(frame)
                left -= _FRAME.size
                note = file.read(length) if length <= left else b""
                if len(note) != length or zlib.crc32(note) != check_sum:
                    return
                left -= length
                yield note

    def append(self, notes: Iterable[bytes]) -> None:
        """Write notes behind those that are there; after :meth:`replace`.

        Raises:
            OSError: not all could be written; replace them.
        """
        self._write(b"".join([_FRAME.pack(len(note), zlib.crc32(note)) + note for note in notes]))

    def replace(self, notes: Iterable[bytes]) -> None:
        """Write these notes in place of all others: at any time, either all of those are there, or all of these.

        Raises:
            OSError: it is not possible; what was there before may be appended to no more.
        """
        self.close()
        new = self.path.with_name(f"{self.path.name}-new")
        # Where others may make files, too, nobody else's must be written.
        new.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor, self.size = os.open(new, flags, 0o600), 0
        try:
            os.fchmod(self._descriptor, 0o600)
            self._write(_HEADER)
            for note in notes:
                self.append([note])
            new.replace(self.path)
        except BaseException:
            self.close()
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise

    def _write(self, data: bytes) -> None:
        written = os.write(self._descriptor, data)
        while written < len(data):
            written += os.write(self._descriptor, memoryview(data)[written:])
        self.size += written

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
