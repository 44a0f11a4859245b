"""What all streams have in common whose text is shown elsewhere than where it is written."""

from __future__ import annotations

import io


class CapturedText(io.TextIOBase):
    """A stream in place of a standard one."""

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Never: it is shown elsewhere, and nothing that controls a terminal is passed on."""
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """UTF-8: captured text travels so."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What cannot be encoded is written as an escape."""
        return "backslashreplace"
