"""The log files of controllers and engines."""

from __future__ import annotations

import faulthandler
import logging
import os
import re
import sys
from pathlib import Path
from typing import Final, TextIO

from ..errors import KernelError
from ..folders import ipython_dir, security_dir

FORMAT: Final = "%(asctime)s %(name)s: %(message)s"
TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"

SAME_NAMES: Final = 1000
"""Most log files with the same host name, rank and process id, as in containers."""

UNNAMED: Final = "default"


class LogError(KernelError):
    """The log file cannot be written."""


def start_log(
    prefix: str, program: str, rank: int | str | None = None, furl_file: Path | None = None
) -> Path | None:
    """Log to a new file, and return its path.

    Its name is ``<prefix><host>-<rank>-<pid>.log``, as processes of several machines may write to one folder. An
    existing file is never appended to.

    Args:
        prefix: beginning of the path. Without one, as for programs that were started by hand, the file goes to the
            folder of the cluster, and lines are also printed; if that folder cannot be written, they are only
            printed.
        program: ``ipengine`` or ``ipcontroller``.
        rank: the rank of an engine that an MPI launcher has started, or ``agent``.
        furl_file: determines the cluster.

    Raises:
        LogError: the file cannot be written.
    """
    handlers: list[logging.Handler] = []
    path = None
    try:
        path, stream = _new_file(prefix or str(log_folder(furl_file) / f"{program}-"), rank)
        handlers.append(logging.StreamHandler(stream))
        # For the Python stacks of a crash in C. The file may be replaced by another one, so this needs its own.
        _crash.append(os.dup(stream.fileno()))
        faulthandler.enable(_crash[-1])
    except OSError as error:
        if prefix:
            raise LogError(
                f"cannot write the log file {error.filename}: {error.strerror}; choose another -l PREFIX"
            ) from None
    if not prefix:
        handlers.append(logging.StreamHandler(sys.stdout))
    logging.basicConfig(handlers=handlers, level=logging.INFO, format=FORMAT, datefmt=TIME_FORMAT)
    return path


_crash: list[int] = []


def crash_file() -> int:
    """Return the descriptor of the file into which faulthandler writes the stacks of a crash of this process.

    It can be read as well. Without a log file it is one in memory.
    """
    if not _crash:
        _crash.append(os.memfd_create("ipmpi-crash", os.MFD_CLOEXEC))
        faulthandler.enable(_crash[-1])
    return _crash[-1]


def log_folder(furl_file: Path | None = None) -> Path:
    """Return the log folder of the cluster to which a furl file belongs."""
    own = furl_file is not None and furl_file.absolute().parent.parent == security_dir().absolute()
    return ipython_dir() / "log" / (furl_file.absolute().parent.name if own and furl_file else UNNAMED)


def _new_file(prefix: str, rank: int | str | None) -> tuple[Path, TextIO]:
    host = re.sub(r"[^\w.-]", "_", os.uname().nodename)
    who = f"{host}-{os.getpid()}" if rank is None else f"{host}-{rank}-{os.getpid()}"
    beginning = Path(f"{prefix}{who}").expanduser()
    beginning.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in range(1, SAME_NAMES):
        path = beginning.with_name(f"{beginning.name}{f'.{number}' if number > 1 else ''}.log")
        try:
            return path, open(path, "x+", encoding="utf-8", errors="backslashreplace")
        except FileExistsError:
            continue
    raise OSError(0, f"there are {SAME_NAMES} files of this name already", str(path))
