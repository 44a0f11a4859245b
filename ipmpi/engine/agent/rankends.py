"""In which order the ends of a node's ranks are reported, and for which reasons (no I/O; the time is an argument).

The rules.

* Ranks are reported in the order in which their sockets closed: the first may have caused the others' ends.
* A signal that tells ranks to end explains their ends: batch systems and launchers send it to all, and kill those
  that have not ended. A rank may say it, or have got it and been killed before it could; or its launcher has.
* When the launcher has ended, nothing is reported for a moment. Either it has ended because of a rank, whose
  process may still be ending, or the system ends all ranks because of it, before they can say that they got a
  signal.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Collection
from typing import Final

from .localrank import LocalRank

CAUSE_WITHIN: Final = 0.5
"""Seconds to wait, after the end of the launcher, for its cause."""
_MEANT_FOR_ALL: Final = 5.0
"""Seconds for which a signal to one rank explains the ends of others."""
_BY_OTHERS: Final = (None, -int(signal.SIGKILL))
"""How ranks end because of others: by SIGKILL, if it is known."""


def got(signal_name: str, job: str) -> str:
    """``got SIGTERM``, and when batch systems send it to this job."""
    return f"got {signal_name}{_when(job)}"


def _when(job: str) -> str:
    return f", as when job {job} is cancelled or its time is up" if job else ""


class RankEnds:
    """The ranks of a node that are ending.

    Attributes:
        launcher_is_gone: whether the launcher has ended, and its cause is not decided yet.
    """

    def __init__(self) -> None:
        self._ending: dict[LocalRank, str] = {}
        """In the order of their sockets' ends, with the reason once it is known."""
        self._told = "", -math.inf
        """The last signal that explains the ends of all, and its time."""
        self.launcher_is_gone = False
        self._until = math.inf
        self._before: set[LocalRank] = set()
        """Those whose ends had begun when the end of the launcher was seen."""

    def told(self, reason: str, now: float) -> None:
        """A signal has told ranks to end."""
        self._told = reason, now

    def reason(self, now: float) -> str:
        """Why all ranks end: the signal that they have got; or ""."""
        reason, when = self._told
        return reason if now - when < _MEANT_FOR_ALL else ""

    def begins(self, local: LocalRank, now: float, how: str = "") -> None:
        """A rank ends; ``how``, once that is known."""
        self._ending[local] = how or self._ending.get(local, "")
        if how and not local.has_aborted and _was_terminated(local):
            self.told(got("SIGTERM", job_of(local)), now)

    def due(self) -> tuple[LocalRank, str] | None:
        """Return the rank whose end is to be reported next, and how it ended; None if there is none now."""
        local, how = next(iter(self._ending.items()), (None, ""))
        return None if local is None or not how or self.launcher_is_gone else (local, how)

    def over(self, local: LocalRank) -> None:
        """The end of a rank is reported."""
        self._ending.pop(local, None)

    def farewell(self, local: LocalRank, now: float) -> str:
        """Return by what a rank was told to end; "" if it ended by itself.

        A launcher forwards a signal to all, and kills those that are left when others have ended: also one that
        has called MPI_Abort, and waits for that.
        """
        if local.has_aborted:
            return ""
        if not local.farewell and _was_terminated(local):
            return got("SIGTERM", job_of(local))
        return local.farewell or self.reason(now)

    # --- the launcher --------------------------------------------------------------------------------------

    def launcher_ended(self, status: int | None, job: str, now: float) -> None:
        """The launcher has ended with this status, as of ``os.waitpid``."""
        self.launcher_is_gone, self._until, self._before = True, now + CAUSE_WITHIN, set(self._ending)
        code = None if status is None else os.waitstatus_to_exitcode(status)
        if code in (-signal.SIGTERM, int(signal.SIGTERM), 128 + signal.SIGTERM) and not self._before:
            self.told(got("SIGTERM", job), now)

    def is_decided(self, ranks: Collection[LocalRank], now: float) -> bool:
        """Whether nothing more will tell why the launcher has ended: nobody is left of these, or it took long."""
        if not self.launcher_is_gone:
            return False
        ended = all(self._ending.get(local) for local in ranks)
        return ended or now >= self._until or bool(self.reason(now))

    def decide(
        self, ranks: Collection[LocalRank], job: str, now: float
    ) -> tuple[list[tuple[LocalRank, str]], str]:
        """Return the ranks that have ended by themselves and how, and why the others end."""
        self.launcher_is_gone = False
        aborted = [local for local in ranks if local.has_aborted]
        causes = [
            local
            for local in (*self._ending, *(local for local in aborted if local not in self._ending))
            if local in self._before or local.has_aborted or _code(local) not in _BY_OTHERS
        ]
        reason = self.reason(now)
        if not reason:
            reason = "the launcher (mpirun) is gone"
            if aborted:
                reason += f", since rank {aborted[0].rank} has called MPI_Abort"
            elif job and not causes:
                reason += f", perhaps by SIGTERM{_when(job)}"
        return [(local, self._ending.get(local) or "its process ended") for local in causes], reason


def _code(local: LocalRank) -> int | None:
    """The exit code of its process, negative for a signal; None while it is unknown."""
    return None if local.exit_status is None else os.waitstatus_to_exitcode(local.exit_status)


def _was_terminated(local: LocalRank) -> bool:
    """Whether SIGTERM has ended it, or it was killed when it had got that: C code keeps ranks from saying so."""
    code = _code(local)
    return code == -signal.SIGTERM or (code in _BY_OTHERS and local.crash_file.has_signal(signal.SIGTERM))


def job_of(local: LocalRank) -> str:
    """The batch job of a rank, or ""."""
    return "" if local.hello is None else local.hello.job
