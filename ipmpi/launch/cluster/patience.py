"""How long the process that runs a cluster waits for a reason, and for the batch system."""

from __future__ import annotations

from typing import Final

EXPLANATION_GRACE: Final = 2.0
"""Seconds that a loss must last to count as a failure: when a client stops everything, engines end just before the
controller."""

JOB_GRACE: Final = 40.0
"""Seconds from the loss of a job's engines to the batch system's report of its end. Slurm waits 30 s between
SIGTERM and SIGKILL."""

ASK_FIRST: Final = 2.0
ASK_FACTOR: Final = 1.5
ASK_LONGEST: Final = 30.0
"""Longest interval in seconds between questions to the batch system while nothing changes."""

ASK_RUNNING: Final = 120.0
"""The same while all engines are registered; their loss is noticed without it."""

SUBMIT_PAUSE: Final = 60.0
SUBMIT_TRIES: Final = 30
"""Attempts to submit a job, over half an hour: busy batch systems refuse a job and accept it a minute later."""
