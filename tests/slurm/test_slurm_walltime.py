"""The end of a job's time: engines save their work, tasks go back to the queue, and the next job goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Tests are imported by path (importlib), so the helpers beside them are not found otherwise.
sys.path.insert(0, str(Path(__file__).parent))

from short_job import TASKS, names

if TYPE_CHECKING:
    from short_job import ShortJob

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(300)]


def test_tasks_survive_the_end_of_their_job(short_job: ShortJob) -> None:
    results = [future.result() for future in short_job.results]
    assert [number for number, _ in results] == list(range(TASKS))
    jobs = {job for _, job in results}
    assert short_job.first_job in jobs
    assert len(jobs) >= 2
    assert f"Job {short_job.first_job} ended at its walltime" in short_job.cluster.said("Submitting it again")


def test_engines_were_told_before_the_end(short_job: ShortJob) -> None:
    short_job.results[-1].result()
    assert names(short_job.saved)[:2] == [f"{short_job.first_job}-{engine}" for engine in (0, 1)]


def test_a_task_that_does_not_fit_into_the_rest_of_the_job_has_not_begun(short_job: ShortJob) -> None:
    assert not short_job.too_long.done()
