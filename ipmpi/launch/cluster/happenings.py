"""Events in the life of a cluster, for the process that runs it."""

from __future__ import annotations

from typing import NamedTuple

from ipmpi.launch.batch.registry import JobStatus


class ControllerReady(NamedTuple):
    """The controller listens and has written its furl files."""

    furl_files: dict[str, str]


class EngineCount(NamedTuple):
    """The number of registered engines has changed."""

    registered: int
    ordered: bool = False
    """Whether a client ended the others."""
    tasks: int = 0
    """Number of unfinished tasks."""
    aborted: str = ""
    """Why the others were ended, if one was lost and ``on_loss`` is ``abort``."""
    lost: tuple[int, int, str] | None = None
    """Rank, process id and host of a process that ended unexpectedly since the last event."""
    restarted: str = ""
    """Why the others were ended, as a clause, if they are to be started again."""


class ControllerEnded(NamedTuple):
    """The controller's process ended."""

    code: int


class EnginesEnded(NamedTuple):
    """One process that is an engine, or that launched engines, ended; ``left`` others run."""

    title: str
    code: int
    left: int
    chance: str = ""
    """The transient failure of a launcher that has not started any rank, or ""."""
    asked: str = ""
    """Why it is to be started again, as a clause, if a client has asked for that, or ``on_loss``."""


class EnginesWait(NamedTuple):
    """Engines wait to be admitted: what clients are told of them."""

    text: str


class WhereAsked(NamedTuple):
    """The controller asks where a launch runs."""

    launch: str
    question: int
    """Its number; later ones have larger numbers."""


class RunsOn(NamedTuple):
    """The machines on which our engines run; none while their job waits, None if that cannot be found out."""

    nodes: tuple[str, ...] | None
    question: int = 0
    """The last question that was asked before this was found out; 0 if there was none."""


class RankEnded(NamedTuple):
    """A rank has ended, while its launcher runs."""

    pid: int


class RankFailed(NamedTuple):
    """A rank has ended before the others, which may have ended because of it."""

    text: str


class JobNews(NamedTuple):
    """The batch system's answer to a question about the engines' job."""

    status: JobStatus


class JobUnclear(NamedTuple):
    """The batch system did not reply."""

    why: str


class StartedAgain(NamedTuple):
    """The job script has restarted engines that had all ended: the number of the restart, as in "1 of 3".

    It is "asked for" if a client has asked for it.
    """

    number: str


class Submitted(NamedTuple):
    """The batch system has accepted the job."""

    job: str


class NotSubmitted(NamedTuple):
    """The batch system has refused the job."""

    why: str


class StopRequest(NamedTuple):
    """A stop signal has arrived, or the parent of ``ipcluster`` has ended."""

    signum: int


Happening = (
    ControllerReady
    | EngineCount
    | ControllerEnded
    | EnginesEnded
    | EnginesWait
    | RankEnded
    | RankFailed
    | JobNews
    | JobUnclear
    | StartedAgain
    | Submitted
    | NotSubmitted
    | StopRequest
    | WhereAsked
    | RunsOn
)
