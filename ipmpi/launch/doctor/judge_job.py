"""Judge a job: why it waits, how long still, how it ended (layer L4, no I/O)."""

from __future__ import annotations

import time
from typing import Final

from ipmpi.launch.batch.batchsystem import JobState, JobStatus

from .findings import Finding, note, ok, problem, warning
from .reasons import explain_reason

_SPECIAL: Final = {
    "CONFIGURING": ("its nodes are being started, which may take minutes", ""),
    "REQUEUE_HOLD": ("it was requeued, and is held", "scontrol release JOB"),
    "SPECIAL_EXIT": ("it ended in a special way, and is held", "scontrol release JOB"),
    "H": ("it is held", "qrls JOB"),
    "T": ("it is on its way to another server", ""),
    "W": ("it is not to start before a certain time, as was asked for", ""),
}
"""Native states that say more than no reason: what they mean, and what can be done."""

_UNSEEN: Final = 600.0
"""Seconds by which a batch system's account of the time that a job has used may be behind: nodes tell PBS now and
then. A job that has used even less was suspended meanwhile."""


def judge_job(system: str, title: str, status: JobStatus, now: float) -> list[Finding]:
    """What the state of a job means.

    Args:
        system: name of the batch system.
        title: how it is called in sentences.
        status: what it says.
        now: unix time.
    """
    area = f"Job {status.id}"
    if status.state is JobState.PENDING:
        return _pending(area, system, title, status, now)
    if status.state is JobState.RUNNING:
        return _running(area, status, now)
    if status.state is JobState.ENDING:
        return [note(area, "job-ending", f"It is ending ({status.native}).")]
    if status.state is JobState.ENDED:
        return [_ended(area, title, status)]
    said = f": {status.reason}" if status.reason else ""
    fix = "Ask again in a minute, on a machine that can submit jobs; batch systems restart now and then."
    return [warning(area, "job-unknown", f"{title} does not tell how it is{said}.", fix)]


def _pending(area: str, system: str, title: str, status: JobStatus, now: float) -> list[Finding]:
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


def _running(area: str, status: JobStatus, now: float) -> list[Finding]:
    text = "It runs"
    text += f" on {status.nodes}" if status.nodes else ""
    text += f" since {moment(status.start, now)}" if status.start is not None else ""
    left = _left(status, now)
    text += f"; {duration(left)} are left" if left is not None else ""
    if status.native in ("SUSPENDED", "STOPPED", "S", "U"):
        return [note(area, "job-suspended", f"It is suspended ({status.native}), for jobs that go first.")]
    return [ok(area, "job-runs", f"{text}.")]


def _left(status: JobStatus, now: float) -> float | None:
    """Seconds until its time is up: the earlier one of two accounts, unless it was suspended."""
    if status.time_left is None or status.end is None:
        return status.time_left
    behind = status.time_left - (status.end - now)
    return status.time_left - behind if 0 < behind < _UNSEEN else status.time_left


def _ended(area: str, title: str, status: JobStatus) -> Finding:
    check = "job-ended"
    reason = f" ({status.reason})" if status.reason else ""
    if status.outcome == "completed":
        return ok(area, check, "It has ended, in good order.")
    if status.outcome == "timeout":
        fix = "Submit it again, with a longer --time; with --resubmit ipcluster does it by itself."
        return warning(area, check, f"It was ended at its walltime{reason}.", fix)
    if status.outcome == "cancelled":
        return note(area, check, f"It was cancelled{reason}.", "If that was not you, ask the administrators.")
    if status.outcome == "preempted":
        fix = "Submit it again; with --resubmit ipcluster does it by itself."
        return warning(area, check, f"It was preempted: a job that goes first took its nodes{reason}.", fix)
    if status.outcome == "node-failure":
        return problem(area, check, f"It ended since one of its nodes failed{reason}.", "Submit it again.")
    if status.outcome == "failed":
        fix = "The end of its output says why."
        return problem(area, check, f"It failed{reason or f' ({status.native})'}.", fix)
    fix = "Its output may tell how it ended; batch systems forget jobs after some minutes."
    return note(area, check, f"{title} does not know it any more: it has ended, or never was.", fix)


def moment(when: float, now: float) -> str:
    """A time of day, with the date if it is not today, in this machine's zone."""
    that, today = time.localtime(when), time.localtime(now)
    return time.strftime("%H:%M" if that[:3] == today[:3] else "%Y-%m-%d %H:%M", that)


def duration(seconds: float) -> str:
    """Seconds in two words: ``2 h 10 min``."""
    whole = max(0, round(seconds))
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((at for at, (number, _) in enumerate(parts) if number), 3)
    shown = parts[first : first + 2] if first < 2 or whole < 600 else parts[first : first + 1]
    return " ".join(f"{number} {unit}" for number, unit in shown if number) or "0 s"
