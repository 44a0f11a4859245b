"""What a cluster is to be, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """Where in its life a cluster is."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    OVER = "over"


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    Attributes:
        n: engines.
        timeout: seconds in which all of them have to be registered, once their processes are started.
        engines_wait: the engines can be started only when the controller is ready.
        batch: they are a job, which may wait in a queue.
        walltime: seconds that the job may run, if known.
        resubmit: how often to submit the job again when it has reached its walltime, or was preempted.
        restarts: how often to start engines again that have ended and should not have. What starts those of a job
            again is its script; here it means that tasks are kept when the job has failed.
    """

    n: int
    timeout: float
    engines_wait: bool = False
    batch: bool = False
    walltime: float | None = None
    resubmit: int = 0
    restarts: int = 0
