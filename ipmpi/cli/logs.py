"""Where controllers and engines write what they do (layer L5)."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path


def start_log(prefix: str) -> str | None:
    """Log to ``<prefix><pid>.log``, which is returned, or without a prefix to stdout."""
    path = None
    stream = sys.stdout
    if prefix:
        path = Path(f"{prefix}{os.getpid()}.log").expanduser()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        stream = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    logging.basicConfig(
        stream=stream, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )
    return None if path is None else str(path)
