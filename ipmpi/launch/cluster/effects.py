"""What can follow from a happening: things to do for the process that runs a cluster."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Cause(Enum):
    """Whose log files explain what happened."""

    NOBODY = "nobody"
    CONTROLLER = "controller"
    ENGINES = "engines"


class Started(NamedTuple):
    """All engines are registered."""


class LogLine(NamedTuple):
    """Something that the user should know, and that changes nothing."""

    text: str


class StartEngines(NamedTuple):
    """Start the engines, or submit their job. If it is not for the first time, the text says why."""

    text: str = ""


class AskQueue(NamedTuple):
    """Ask the batch system about the job; answer with :class:`~ipmpi.launch.cluster.happenings.JobNews`."""


class Stopped(NamedTuple):
    """The cluster has to be taken down: why, with which exit code, and whose log files to show."""

    code: int
    reason: str
    blame: Cause


Effect = Started | LogLine | StartEngines | AskQueue | Stopped
