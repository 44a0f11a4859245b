"""A real IPython in a real terminal, of which a test reads the screen."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

COLUMNS, LINES = 110, 60
LOOK_AGAIN = 0.05


def tmux_is_here() -> bool:
    """Whether a terminal can be had."""
    return shutil.which("tmux") is not None


class Terminal:
    """IPython in tmux, on a server of its own.

    Args:
        home: a folder for its socket and history.
        environ: its environment.
    """

    def __init__(self, home: Path, environ: Mapping[str, str]) -> None:
        self._socket = str(home / "tmux")
        self._number = 1
        command = [sys.executable, "-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=nocolor"]
        quiet = ["--HistoryManager.enabled=False", "--TerminalInteractiveShell.autoindent=False"]
        env = {**environ, "TERM": "screen", "NO_COLOR": "1", "COLUMNS": "", "LINES": ""}
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES),
            "exec " + " ".join([*command, *quiet]), env=env,
        )  # fmt: skip
        self.wait_for(r"In \[1\]: ", 60)

    def _tmux(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *words], env=None if env is None else dict(env), capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def keys(self, *keys: str) -> None:
        """Press keys, by tmux's names for them."""
        self._tmux("send-keys", *keys)

    def write(self, text: str) -> None:
        """Type text, without Enter."""
        self._tmux("send-keys", "-l", text)

    def enter(self, cell: str) -> None:
        """Type a cell, and run it."""
        *lines, last = cell.split("\n")
        for line in lines:
            self.write(line)
            self.keys("Enter")
        self.write(last)
        self.keys("Escape", "Enter")

    def clear(self) -> None:
        """Drop what is typed and not run, and what is on the screen."""
        self.keys("C-c")
        self.keys("C-u")
        self.wait_for(r"In \[\d+\]: $")

    def run(self, cell: str, seconds: float = 30) -> str:
        """Run a cell; returns what it has shown, up to the next prompt."""
        self.wait_for(r"In \[\d+\]: \Z", seconds)  # it may come after all that the cell has shown
        before = self.number()
        self.enter(cell)
        shown = self.wait_for(rf"In \[{before + 1}\]: $", seconds)
        return shown.split(f"In [{before}]: ")[-1].split(f"In [{before + 1}]: ")[0]

    def number(self) -> int:
        """The number of the prompt."""
        return int(re.findall(r"In \[(\d+)\]: ", self.screen())[-1])

    def screen(self) -> str:
        """All lines, those that have left the screen as well; lines that the terminal broke are whole."""
        return self._tmux("capture-pane", "-p", "-J", "-S", "-500").rstrip("\n ") + " "

    def wait_for(self, pattern: str, seconds: float = 30) -> str:
        """Wait until the pattern is on the screen; returns the screen."""
        deadline = time.monotonic() + seconds
        while re.search(pattern, screen := self.screen(), re.MULTILINE) is None:
            assert time.monotonic() < deadline, f"never {pattern!r} within {seconds} s:\n{screen}"
            time.sleep(LOOK_AGAIN)
        return screen

    def close(self) -> None:
        """End it, and its server."""
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, check=False)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
