"""The requested properties of a cluster, and its state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """The state of a cluster."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    OVER = "over"


@dataclass(frozen=True)
class Plan:
    """The requested cluster.

    Attributes:
        n: number of engines.
        timeout: seconds in which all of them have to be registered, once their processes are started.
        engines_wait: the engines can be started only when the controller is ready.
        batch: they are a job, which may wait in a queue.
        walltime: seconds that the job may run, if known.
        resubmit: how often to submit the job again when it has reached its walltime, or was preempted.
        restarts: how often to restart engines that have ended unexpectedly. Those of a job are restarted by its
            script; for these, it means that tasks are kept when the job has failed.
    """

    n: int
    timeout: float
    engines_wait: bool = False
    batch: bool = False
    walltime: float | None = None
    resubmit: int = 0
    restarts: int = 0
