"""A terminal, as far as the display uses one."""

from __future__ import annotations

import re


class Screen:
    """Shows what was written: text, newline, carriage return, cursor up, clear to the end; colours are ignored."""

    def __init__(self) -> None:
        self.lines = [""]
        self.written = ""
        self._row = 0
        self._column = 0

    def write(self, text: str) -> None:
        self.written += text
        for token in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
            self._do(token)

    def _do(self, token: str) -> None:
        if token == "\n":
            self._row, self._column = self._row + 1, 0
            if self._row == len(self.lines):
                self.lines.append("")
        elif token == "\r":
            self._column = 0
        elif token == "\033[J":
            del self.lines[self._row + 1 :]
            self.lines[self._row] = self.lines[self._row][: self._column]
        elif token.startswith("\033"):
            assert token[-1] in "Am", f"not on this terminal: {token!r}"
            if token[-1] == "A":
                self._row -= int(token[2:-1])
                assert self._row >= 0
        else:
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + token + line[self._column + len(token) :]
            self._column += len(token)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)
