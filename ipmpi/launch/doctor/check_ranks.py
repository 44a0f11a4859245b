"""Judge which engines of a cluster are missing, and which log file tells why (no I/O)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ipmpi.environment.walltime import duration
from ipmpi.ranges import engines_named, ranks_named

from .diagnostics import Diagnostic, note, ok, warning

AREA: Final = "Engines"
SOON: Final = 600.0
"""Seconds before the end of a job that are worth a note."""
LOOKED_AT: Final = 40
"""Lines at the end of a log in which the failure is looked for."""

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
        path: where it is.
        kind: engine, controller or output (what a launcher or a job printed).
        rank: which rank wrote it, if it says so.
        size: of its set.
        failure: the last line that looks like one; '' if none does.
        lines: its end.
    """

    path: str
    kind: str
    rank: int | None = None
    size: int | None = None
    failure: str = ""
    lines: tuple[str, ...] = ()


def understand_log(path: str, kind: str, beginning: str, end: Sequence[str]) -> LogFacts:
    """What a log tells: by its beginning, whose it is; by its end, what went wrong."""
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
    """Engines that were asked for, against those that are registered.

    Args:
        asked: how many there should be.
        engines: those that are registered, as in ``cluster_info()``.
        nodes: the machines of the job, if known.
        logs: their log files.
        starting: there are none yet for a good reason: the job waits.
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
    """Which ranks: those of the one joined set there is, or is to be."""
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
    known = {host.partition(".")[0] for host in hosts}
    silent = [node for node in nodes if node.partition(".")[0] not in known]
    if not silent or not hosts:
        return []
    more = f" and {len(silent) - 8} more" if len(silent) > 8 else ""
    return [f"Nothing is there from {', '.join(silent[:8])}{more}."]


def check_time(engines: Sequence[Mapping[str, Any]]) -> list[Diagnostic]:
    """How long the jobs of engines last still, as the engines told the controller."""
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
    """An engine that was lost: who it was, if that is known, and the controller's words."""

    id: int
    who: str
    reason: str


_CAME: Final = re.compile(r"\bregistered engine with id: (\d+) \((rank \d+, pid \d+ on [^)]+)\)")
_WENT: Final = re.compile(r"\bunregistered engine with id: (\d+) \((.*)\)$")


def parse_losses(log: str) -> list[Loss]:
    """The engines that a controller's log says are gone, and did not come back."""
    who: dict[int, str] = {}
    gone: dict[int, Loss] = {}
    for line in log.splitlines():
        if went := _WENT.search(line):
            number = int(went.group(1))
            gone[number] = Loss(number, who.get(number, ""), went.group(2))
        elif came := _CAME.search(line):
            number = int(came.group(1))
            who[number] = came.group(2)
            gone.pop(number, None)
    return list(gone.values())


def check_losses(losses: Sequence[Loss], engines: Sequence[Mapping[str, Any]]) -> list[Diagnostic]:
    """Why engines are gone that were there; equal reasons are one diagnostic."""
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
"""What reasons contain where somebody wanted it so."""


def failing_log(
    logs: Sequence[LogFacts], registered: Sequence[Mapping[str, Any]] = ()
) -> tuple[LogFacts, int] | None:
    """The log that tells most about what went wrong, and how many others end alike; None if all went well.

    An engine's own words tell more than what a launcher says about it, and that more than the controller's.
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
    """Whether an engine wrote this log of which the host is known, by process id: ``...-HOST-RANK-PID.log``."""
    name, _, pid = re.sub(r"(\.\d+)?\.log$", "", path).rpartition("-")
    plain = [re.escape(re.sub(r"[^\w.-]", "_", host)) for host in hosts.get(pid, ())]
    return any(re.search(rf"(^|[-/]){host}(-\d+)?$", name) for host in plain)


def _gist(line: str) -> str:
    """A line without times and numbers, in which equal failures differ."""
    return re.sub(r"\d+", "#", line)
