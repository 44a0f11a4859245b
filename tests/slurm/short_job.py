"""A job that reaches its walltime with tasks left to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from submitted import Submitted

TASKS = 50
EACH = 4.0
"""Seconds. Two engines need 100 s for all: more than a job of one minute gets, also if Slurm ends it late."""


WORDS = ("-n", "2", "--nodes", "1", "--time", "0:01:00", "--warn-before", "20", "--resubmit")


class ShortJob:
    """A cluster whose job is submitted again when its time is up, and what it has been given to do.

    Attributes:
        cluster: the running ``ipcluster slurm --resubmit``.
        results: futures of ``(number, job id)`` of each task.
        too_long: a task that says that it does not fit into what is left.
        saved: the folder in which engines save something before the end.
    """

    def __init__(self, cluster: Submitted) -> None:
        self.cluster = cluster
        self.first_job = cluster.up().job
        self.saved = self.cluster.home / "saved"
        self.saved.mkdir()
        mec, tc = self.cluster.mec(), self.cluster.tc()
        mec.push({"folder": str(self.saved)})
        mec.before_walltime(_save(), seconds=15)
        task = _task(EACH)
        self.results = [tc.submit(task, number) for number in range(TASKS)]
        self.too_long = tc.submit(pow, 2, 3, expected=3600)


def _task(seconds: float) -> Callable[[int], tuple[int, str]]:
    # Defined inside, so that it travels by value: engines do not have this module.
    def where(number: int) -> tuple[int, str]:
        import os
        import time

        time.sleep(seconds)
        return number, os.environ["SLURM_JOB_ID"]

    return where


def _save() -> Callable[[], None]:
    def save() -> None:
        import os
        from pathlib import Path

        import __main__

        Path(__main__.folder, f"{os.environ['SLURM_JOB_ID']}-{__main__.id}").touch()

    return save


def names(folder: Path) -> list[str]:
    """The files in a folder."""
    return sorted(path.name for path in folder.iterdir())
