"""Check a job: why and how long it waits, or how it ended (no I/O)."""

from __future__ import annotations

from typing import Final

from ipmpi.environment.walltime import duration, moment
from ipmpi.launch.batch.batchsystem import JobState, JobStatus

from .diagnostics import Diagnostic, Table, always, first, note, ok, problem, warning
from .reasons import explain_reason

_SPECIAL: Final = {
    "CONFIGURING": ("its nodes are being started, which may take minutes", ""),
    "REQUEUE_HOLD": ("it was requeued, and is held", "scontrol release JOB"),
    "SPECIAL_EXIT": ("it ended in a special way, and is held", "scontrol release JOB"),
    "H": ("it is held", "qrls JOB"),
    "T": ("it is on its way to another server", ""),
    "W": ("it is not to start before a certain time, as was asked for", ""),
}
"""Meanings and remedies of native states that explain a job without a reason."""

_UNSEEN: Final = 600.0
"""Seconds by which a batch system's account of the time that a job has used may be behind: nodes tell PBS now and
then. A job that has used even less was suspended meanwhile."""


_AREA, _ENDED = "Job {id}", "job-ended"

_CHECKS: Final[Table] = (
    (lambda f: f.state is JobState.RUNNING and f.native in ("SUSPENDED", "STOPPED", "S", "U"), note(
        _AREA, "job-suspended", "It is suspended ({native}), for jobs that go first.")),
    (lambda f: f.state is JobState.RUNNING, ok(_AREA, "job-runs", "It runs{how}.")),
    (lambda f: f.state is JobState.ENDING, note(_AREA, "job-ending", "It is ending ({native}).")),
    (lambda f: f.state is not JobState.ENDED, warning(
        _AREA, "job-unknown", "{title} does not tell how it is{said}.",
        "Ask again in a minute, on a machine that can submit jobs; batch systems restart now and then.")),
    (lambda f: f.outcome == "completed", ok(_AREA, _ENDED, "It has ended, in good order.")),
    (lambda f: f.outcome == "timeout", warning(
        _AREA, _ENDED, "It was ended at its walltime{why}.",
        "Submit it again, with a longer --time; with --resubmit ipcluster does it by itself.")),
    (lambda f: f.outcome == "cancelled", note(
        _AREA, _ENDED, "It was cancelled{why}.", "If that was not you, ask the administrators.")),
    (lambda f: f.outcome == "preempted", warning(
        _AREA, _ENDED, "It was preempted: a job that goes first took its nodes{why}.",
        "Submit it again; with --resubmit ipcluster does it by itself.")),
    (lambda f: f.outcome == "node-failure", problem(
        _AREA, _ENDED, "It ended since one of its nodes failed{why}.", "Submit it again.")),
    (lambda f: f.outcome == "failed" and f.why, problem(
        _AREA, _ENDED, "It failed{why}.", "The end of its output says why.")),
    (lambda f: f.outcome == "failed", problem(
        _AREA, _ENDED, "It failed ({native}).", "The end of its output says why.")),
    (always, note(
        _AREA, _ENDED, "{title} does not know it any more: it has ended, or never was.",
        "Its output may tell how it ended; batch systems forget jobs after some minutes.")),
)  # fmt: skip


def check_job(system: str, title: str, status: JobStatus, now: float) -> list[Diagnostic]:
    """Check the state of a job.

    Args:
        system: name of the batch system.
        title: its name in messages.
        status: the status of the job.
        now: Unix time.
    """
    if status.state is JobState.PENDING:
        return _pending(f"Job {status.id}", system, title, status, now)
    left = _left(status, now)
    how = f" on {status.nodes}" if status.nodes else ""
    how += f" since {moment(status.start, now)}" if status.start is not None else ""
    how += f"; {duration(left)} are left" if left is not None else ""
    said, why = (f": {status.reason}", f" ({status.reason})") if status.reason else ("", "")
    return first(_CHECKS, **status._asdict(), title=title, how=how, said=said, why=why)


def _pending(area: str, system: str, title: str, status: JobStatus, now: float) -> list[Diagnostic]:
    meaning, fix = explain_reason(system, status.reason)
    if status.native in _SPECIAL and not status.reason:
        meaning, fix = _SPECIAL[status.native]
    word = f" ({status.reason})" if status.reason and status.reason not in meaning else ""
    never = "never start" in meaning
    judge = problem if never else note
    found = [judge(area, "job-waits", f"It waits: {meaning}{word}.", fix.replace("JOB", status.id))]
    if never:
        return found
    if status.start is not None and status.start > now:
        text = f"{title} expects to start it at {moment(status.start, now)}, in {duration(status.start - now)}."
        found.append(note(area, "job-start", text, "That changes as other jobs end early, or are submitted."))
    else:
        found.append(note(area, "job-start", f"{title} does not say yet when it will start."))
    return found


def _left(status: JobStatus, now: float) -> float | None:
    """Return the seconds until the walltime: the smaller of two figures, unless it was suspended."""
    if status.time_left is None or status.end is None:
        return status.time_left
    behind = status.time_left - (status.end - now)
    return status.time_left - behind if 0 < behind < _UNSEEN else status.time_left
