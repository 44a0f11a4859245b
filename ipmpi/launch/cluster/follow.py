"""Running ``ipcluster`` from another program, and reading the events that it writes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ipmpi.errors import LauncherError

IPCLUSTER: list[str] = [sys.executable, "-m", "ipmpi.cli.ipcluster"]


STOP: Final = b"s"
STAY: Final = b"k"
"""Bytes that are written to a lifeline before it is closed: ipcluster must end, or continue by itself. Without
one,
our process was killed, and ipcluster ends. Closing alone does not suffice: forked processes have copies of the
pipe."""

_all: weakref.WeakSet[Followed] = weakref.WeakSet()


class Followed:
    """A started ``ipcluster``.

    Args:
        words: its command line, from the sub-command on.
        log: the file for its output; None for none, since :meth:`news` has all of it, too.
        lifeline: whether it ends when this object is closed, or this process ends; see also :meth:`let_stay`.
        terminal: whether it stays with this terminal, so that ssh can ask for a password.

    Attributes:
        process: the process.

    Raises:
        LauncherError: it cannot be run.
    """

    def __init__(
        self, words: Sequence[str], log: Path | None = None, *, lifeline: bool = True, terminal: bool = False
    ) -> None:
        self._owner = os.getpid()
        _all.add(self)
        self._news_fd, news_write = os.pipe()
        lifeline_read, self._lifeline_fd = os.pipe()
        passed = [news_write, lifeline_read]
        argv = [*IPCLUSTER, *words, "--status-fd", str(news_write)]
        argv += ["--lifeline-fd", str(lifeline_read)] if lifeline else []
        try:
            if log is not None:
                log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = os.devnull if log is None else log
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as output:
                self.process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=None if terminal else output,
                    pass_fds=passed if lifeline else passed[:1],
                    start_new_session=not terminal,
                )
        except OSError as error:
            self.close()
            raise LauncherError(f"ipcluster could not be started: {error}") from error
        finally:
            os.close(news_write)
            os.close(lifeline_read)

    def news(self) -> Iterator[dict[str, Any]]:
        """Yield its events until it ends; see :class:`ipmpi.cli.reporter.Reporter`."""
        with open(self._news_fd, encoding="utf-8", errors="replace", closefd=False) as lines:
            for line in lines:
                if line.endswith("\n"):  # it may be killed while it writes
                    yield json.loads(line)

    @property
    def is_own(self) -> bool:
        """Whether this process has started it, rather than being a fork of that process."""
        return self._owner == os.getpid()

    def let_go(self) -> None:
        """End it by its lifeline; its last events can still be read."""
        self._say(STOP)

    def let_stay(self) -> None:
        """Let it continue after the end of this process."""
        self._say(STAY)

    def _say(self, word: bytes) -> None:
        descriptor, self._lifeline_fd = self._lifeline_fd, -1
        if descriptor >= 0:
            if self.is_own:
                with contextlib.suppress(BrokenPipeError):  # it has ended
                    os.write(descriptor, word)
            os.close(descriptor)

    def close(self) -> None:
        """End it by its lifeline, and close the pipes. Without a lifeline it continues."""
        self.let_go()
        descriptor, self._news_fd = self._news_fd, -1
        if descriptor >= 0:
            os.close(descriptor)


def _close_copies() -> None:
    """In a forked process, close our copies, so that ipcluster notices the end of its parent."""
    for followed in list(_all):
        followed.close()


os.register_at_fork(after_in_child=_close_copies)
