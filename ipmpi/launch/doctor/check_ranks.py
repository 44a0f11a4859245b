"""Find the missing engines of a cluster, and the log file that shows the reason (no I/O)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ipmpi.environment.walltime import duration
from ipmpi.hostnames import others, shown
from ipmpi.ranges import engines_named, numbers_in, ranks_named

from .diagnostics import Diagnostic, note, ok, warning

AREA: Final = "Engines"
SOON: Final = 600.0
"""Seconds before the end of a job that are worth a note."""
LOOKED_AT: Final = 40
"""Lines at the end of a log to search for a failure."""

_FAILURE: Final = re.compile(
    r"error|traceback|\babort|fatal|refused|cannot|could not|no such file|not found|\bkilled\b|out of memory|"
    r"oom|cancelled|failed|exception|denied|mismatch|thinks it is alone|bad termination",
    re.IGNORECASE,
)
_HARMLESS: Final = re.compile(
    r"0 errors|refused a connection from|lost the link to the controller|waits for the controller"
)
_RANK: Final = re.compile(r"MPI started with rank = (\d+) and size = (\d+)")


class LogFacts(NamedTuple):
    """A log file.

    Attributes:
        path: its path.
        kind: engine, controller or output (of a launcher or a job).
        rank: the rank that wrote it, if known.
        size: the number of ranks of its set.
        failure: the last line that looks like a failure; '' if there is none.
        lines: its last lines.
    """

    path: str
    kind: str
    rank: int | None = None
    size: int | None = None
    failure: str = ""
    lines: tuple[str, ...] = ()


def understand_log(path: str, kind: str, beginning: str, end: Sequence[str]) -> LogFacts:
    """Extract the rank from the beginning of a log, and the failure from its end."""
    found = _RANK.search(beginning)
    failures = [line for line in end[-LOOKED_AT:] if _FAILURE.search(line) and not _HARMLESS.search(line)]
    rank, size = (int(found.group(1)), int(found.group(2))) if found else (None, None)
    return LogFacts(path, kind, rank, size, failures[-1] if failures else "", tuple(end))


def check_ranks(
    asked: int,
    engines: Sequence[Mapping[str, Any]],
    nodes: Sequence[str] = (),
    logs: Sequence[LogFacts] = (),
    starting: bool = False,
) -> list[Diagnostic]:
    """Compare the requested engines with the registered ones.

    Args:
        asked: number of requested engines.
        engines: the registered ones, as in ``cluster_info()``.
        nodes: the machines of the job, if known.
        logs: their log files.
        starting: whether the job still waits, so that no engines are expected.
    """
    there = len(engines)
    hosts = Counter(str(engine["host"]) for engine in engines)
    where = ", ".join(f"{count} on {host}" for host, count in sorted(hosts.items())[:16])
    where += f" and {len(hosts) - 16} more machines" if len(hosts) > 16 else ""
    if there >= asked:
        all_of_them = f"All {asked} engines are" if asked != 1 else "The one engine is"
        more = f", and {there - asked} more that were added" if there > asked else ""
        return [ok(AREA, "engines", f"{all_of_them} registered{more}: {where}.")]
    if starting:
        return [note(AREA, "engines", f"None of the {asked} engines is there yet: they start with the job.")]
    text = f"{there} of {asked} engines are registered{': ' + where if where else ''}."
    missing = [*_missing_ranks(asked, engines, logs), *_silent_nodes(hosts, nodes)]
    fix = (
        "The log below says what failed."
        if any(log.failure for log in logs)
        else "If they start only now: on a shared file system that takes minutes. Else: ipcluster logs"
    )
    return [warning(AREA, "engines", " ".join([text, *missing]), fix)]


def _missing_ranks(asked: int, engines: Sequence[Mapping[str, Any]], logs: Sequence[LogFacts]) -> list[str]:
    """Return texts about the missing ranks of the joined set."""
    sizes = {log.size for log in logs if log.size is not None}
    sets = {engine["set"] for engine in engines}
    joined = all(not str(engine["mpi"]).startswith("not joined") for engine in engines)
    if (sizes and sizes != {asked}) or len(sets) > 1 or not joined or not (engines or sizes):
        return []
    missing = sorted(set(range(asked)) - {int(engine["rank"]) for engine in engines})
    started = sorted({log.rank for log in logs if log.rank is not None} & set(missing))
    words = [f"Missing: {ranks_named(missing)}."]
    if started and len(started) < len(missing):
        never = sorted(set(missing) - set(started))
        words.append(f"Of these, {ranks_named(started)} did start; {ranks_named(never)} wrote no log.")
    elif started:
        words.append("All of these did start.")
    return words


def _silent_nodes(hosts: Mapping[str, int], nodes: Sequence[str]) -> list[str]:
    silent = others(nodes, hosts)
    return [f"Nothing is there from {shown(silent, 8)}."] if silent and hosts else []


def check_time(engines: Sequence[Mapping[str, Any]]) -> list[Diagnostic]:
    """Check the time left of the engines' jobs, as reported to the controller."""
    jobs: dict[str, list[Mapping[str, Any]]] = {}
    for engine in engines:
        if engine.get("time_left") is not None:
            jobs.setdefault(str(engine.get("job") or ""), []).append(engine)
    found = []
    for job, those in jobs.items():
        left = min(float(engine["time_left"]) for engine in those)
        named = engines_named([int(engine["id"]) for engine in those])
        text = f"{f'Job {job}' if job else 'The time'} of {named} ends in {duration(left)}."
        soon = left < SOON
        fix = "Tasks that run then go back to the queue; start further engines: ipcluster engines -n N"
        found.append(note(AREA, "time-left", text, fix) if soon else ok(AREA, "time-left", text))
    return found


class Loss(NamedTuple):
    """An engine that was lost: its description, if known, and the controller's text."""

    id: int
    who: str
    reason: str


_IDS: Final = r"engines? with ids?: (\d[\d, -]*)"
_CAME: Final = re.compile(rf"\bregistered {_IDS} \((ranks? .*)\)$")
_WENT: Final = re.compile(rf"\bunregistered {_IDS} \((.*)\)$")


def parse_losses(log: str) -> list[Loss]:
    """Return the engines that were lost, by a controller's log, and did not come back."""
    who: dict[int, str] = {}
    gone: dict[int, Loss] = {}
    for line in log.splitlines():
        if went := _WENT.search(line):
            for number in numbers_in(went.group(1)):
                gone[number] = Loss(number, who.get(number, ""), went.group(2))
        elif came := _CAME.search(line):
            for number in numbers_in(came.group(1)):
                who[number] = came.group(2) if came.group(2).startswith("rank ") else ""
                gone.pop(number, None)
    return list(gone.values())


def check_losses(losses: Sequence[Loss], engines: Sequence[Mapping[str, Any]]) -> list[Diagnostic]:
    """Check why engines were lost; equal reasons are merged."""
    there = {int(engine["id"]) for engine in engines}
    reasons: dict[str, list[Loss]] = {}
    for loss in losses:
        if loss.id not in there:
            reasons.setdefault(loss.reason, []).append(loss)
    found = []
    for reason, those in reasons.items():
        named = engines_named([loss.id for loss in those])
        who = f" ({those[0].who})" if len(those) == 1 and those[0].who else ""
        text = f"{named.capitalize()}{who} {'was' if len(those) == 1 else 'were'} there, and left: {reason}."
        if any(word in reason for word in _WANTED):
            found.append(note(AREA, "engines-left", text))
        else:
            fix = "Killed for want of memory? On its machine: dmesg | grep -i oom. Its log is the last it said."
            found.append(warning(AREA, "engines-lost", text, fix))
    return found


_WANTED: Final = ("ended by", "it was ended", "goodbye", "ended the session", "ended on request", "was stopped")
"""Texts in the reasons of ends that were requested."""


def failing_log(
    logs: Sequence[LogFacts], registered: Sequence[Mapping[str, Any]] = ()
) -> tuple[LogFacts, int] | None:
    """Return the log that is most informative about a failure, and how many others end alike, or None.

    An engine's log is more informative than the launcher's output, and that more than the controller's log.
    """
    hosts: dict[str, list[str]] = {}
    for engine in registered:
        hosts.setdefault(str(engine["pid"]), []).append(str(engine["host"]))
    failed = [log for log in logs if log.failure and not _is_of(log.path, hosts)]
    if not failed:
        return None
    order = {"engine": 0, "output": 1, "controller": 2}
    best = min(failed, key=lambda log: (order.get(log.kind, 3), log.rank is None, log.rank or 0))
    alike = sum(1 for log in failed if log is not best and _gist(log.failure) == _gist(best.failure))
    return best, alike


def _is_of(path: str, hosts: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a registered engine wrote this log, by host and process id: ``...-HOST-RANK-PID.log``."""
    name, _, pid = re.sub(r"(\.\d+)?\.log$", "", path).rpartition("-")
    plain = [re.escape(re.sub(r"[^\w.-]", "_", host)) for host in hosts.get(pid, ())]
    return any(re.search(rf"(^|[-/]){host}(-\d+)?$", name) for host in plain)


def _gist(line: str) -> str:
    """Return a line without digits, for comparison."""
    return re.sub(r"\d+", "#", line)
