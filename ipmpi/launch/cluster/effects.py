"""Effects of events: actions for the process that runs a cluster."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Cause(Enum):
    """Whose log files explain a failure."""

    NOBODY = "nobody"
    CONTROLLER = "controller"
    ENGINES = "engines"


class Started(NamedTuple):
    """All engines are registered."""


class LogLine(NamedTuple):
    """A line for the user."""

    text: str


class StartEngines(NamedTuple):
    """Start the engines, or submit their job. For a restart, the text says why."""

    text: str = ""


class StartController(NamedTuple):
    """Start the controller again, on its ports and with its furls; the text says why."""

    text: str


class AskQueue(NamedTuple):
    """Ask the batch system about the job; reply with :class:`~ipmpi.launch.cluster.happenings.JobNews`."""


class Stopped(NamedTuple):
    """Stop the cluster: the reason, the exit code, and whose log files to show."""

    code: int
    reason: str
    blame: Cause


Effect = Started | LogLine | StartEngines | StartController | AskQueue | Stopped
