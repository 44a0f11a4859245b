"""What can happen to a cluster, as seen by the process that runs it."""

from __future__ import annotations

from typing import NamedTuple

from ipmpi.launch.batch.registry import JobStatus


class ControllerReady(NamedTuple):
    """The controller listens and has written its furl files."""

    furl_files: dict[str, str]


class EngineCount(NamedTuple):
    """So many engines are registered now."""

    registered: int
    ordered: bool = False
    """A client ended them."""
    tasks: int = 0
    """So many wait for engines, or are run by them."""
    lost: tuple[int, int, str] | None = None
    """Rank, process id and machine of a process that was lost since the last time, and was not to end."""


class ControllerEnded(NamedTuple):
    """The controller's process ended."""

    code: int


class EnginesEnded(NamedTuple):
    """One process that is an engine, or that launched engines, ended; ``left`` others run."""

    title: str
    code: int
    left: int
    chance: str = ""
    """It is a launcher that failed before it started any rank, for this reason that comes and goes."""


class RankEnded(NamedTuple):
    """A rank that was seen is no longer there, while its launcher is."""

    pid: int


class RankFailed(NamedTuple):
    """A rank has ended before the others, which may have ended because of it."""

    text: str


class JobNews(NamedTuple):
    """The batch system's answer to a question about the engines' job."""

    status: JobStatus


class JobUnclear(NamedTuple):
    """The batch system gave no answer."""

    why: str


class StartedAgain(NamedTuple):
    """The job's script has started engines again that had all ended: for which time, as in "1 of 3"."""

    number: str


class Submitted(NamedTuple):
    """The batch system has taken the job."""

    job: str


class NotSubmitted(NamedTuple):
    """The batch system did not take the job."""

    why: str


class StopRequest(NamedTuple):
    """A signal asks for the end, or whoever started ``ipcluster`` is gone."""

    signum: int


Happening = (
    ControllerReady
    | EngineCount
    | ControllerEnded
    | EnginesEnded
    | RankEnded
    | RankFailed
    | JobNews
    | JobUnclear
    | StartedAgain
    | Submitted
    | NotSubmitted
    | StopRequest
)
