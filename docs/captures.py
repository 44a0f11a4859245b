"""Sessions of IPython on four ranks, for pages that include them: what is shown is what really came."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
RUNNER = DOCS / "capturerun.py"
SOURCES = sorted((DOCS / "output").glob("*.ipy"))
SECONDS = 60
"""In which all of them have to end."""


class Captures:
    """Text files with the sessions, which are kept until their sources change.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp = folder / "captures.sha256"

    def is_stale(self) -> bool:
        """Whether they have to be made."""
        there = self._stamp.exists() and all(self.path(source).exists() for source in SOURCES)
        return not there or self._stamp.read_text("utf-8") != self._source()

    def path(self, source: Path) -> Path:
        """Where the session of a source is."""
        return self._folder / f"{source.stem}.txt"

    def make(self, cluster: Path) -> None:
        """Run the sessions; a cluster runs in the folder ``cluster``.

        Raises:
            RuntimeError: the program that runs them failed.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, str(RUNNER)]
        for source in SOURCES:
            words += [str(source), str(self.path(source))]
        environ = {**os.environ, "PYTHONPATH": str(DOCS.parent), "IPMPI_PICTURES": "file"}
        done = subprocess.run(
            words, cwd=cluster, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the sessions of the page on output failed:\n{done.stderr}")
        self._stamp.write_text(self._source(), "utf-8")

    def _source(self) -> str:
        digest = hashlib.sha256()
        for path in (Path(__file__), RUNNER, *SOURCES):
            digest.update(path.read_bytes())
        return digest.hexdigest()
