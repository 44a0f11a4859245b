"""Where controllers and engines write what they do (layer L5)."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from ..errors import KernelError


class LogError(KernelError):
    """The log file cannot be written."""


def start_log(prefix: str) -> str | None:
    """Log to ``<prefix><pid>.log``, which is returned, or without a prefix to stdout.

    Raises:
        LogError: the file cannot be written.
    """
    path = None
    stream = sys.stdout
    if prefix:
        path = Path(f"{prefix}{os.getpid()}.log").expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            stream = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open until the process ends
        except OSError as error:
            raise LogError(
                f"cannot write the log file {path}: {error.strerror}; choose another -l PREFIX"
            ) from None
    logging.basicConfig(
        stream=stream, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )
    return None if path is None else str(path)
