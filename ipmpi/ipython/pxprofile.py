"""``%%px --profile``: where engines spend their time while a cell runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .. import limits
from ..client.engines.profile import Profile, sampled
from ..client.session.results import PendingResult
from ..errors import KernelError

EVERY = 0.1
"""Seconds from one question to the next."""


class PxProfile:
    """Samples of where engines are while a command runs, taken by a thread.

    Args:
        pending: the command.
        where: asks the engines; called in the thread.
    """

    def __init__(self, pending: PendingResult[Any], where: Callable[[], Any]) -> None:
        self._where = where
        self._over = threading.Event()
        self._profile = Profile()
        self._failure = ""
        self._pending = pending
        self._thread = threading.Thread(target=self._run, name="ipmpi-profile", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._profile = sampled(
                self._where, limits.LONGEST, EVERY, sleep=self._over.wait, is_over=self._is_over
            )
        except KernelError as error:
            self._failure = str(error)

    def _is_over(self) -> bool:
        return self._over.is_set() or self._pending.done()

    def end(self) -> tuple[Profile, str]:
        """Ask no more; return the samples, and why there are none or fewer, or ""."""
        self._over.set()
        self._thread.join()
        return self._profile, self._failure
