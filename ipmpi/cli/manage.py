"""``ipcluster list``, ``status``, ``stop``, ``logs``: commands about clusters that run."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ipmpi.cli import argtypes
from ipmpi.cli.growing import GrowingFiles
from ipmpi.cli.printing import show_table
from ipmpi.client import MultiEngineClient
from ipmpi.environment.walltime import clock
from ipmpi.errors import KernelError, LauncherError
from ipmpi.launch.batch.queue import Queue
from ipmpi.launch.batch.registry import JobState, batch_system
from ipmpi.launch.cluster import defaultfurls, records
from ipmpi.launch.cluster.logs import log_files
from ipmpi.launch.cluster.records import ClusterRecord
from ipmpi.launch.processes.process import birth, tail

LINES: Final = 15
STOP_TIME: Final = 150.0
"""Seconds for a cluster to end. Its own process kills after some 10 s, but waits up to a minute for each command
of the
batch system."""

SILENCE: Final = 2.0
"""Seconds after which a message says what is waited for."""

LOOK: Final = 0.2
"""Seconds between checks of growing files, and of a process that is not our child."""


def main(command: str, words: Sequence[str]) -> int:
    """Run one of the commands; return its exit code."""
    parsed = parser(command).parse_args(words)
    try:
        return _COMMANDS[command](parsed)
    except KeyboardInterrupt:
        return 130


def parser(command: str = "list") -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(prog=f"ipcluster {command}", description=_PURPOSES[command])
    if command != "list":
        p.add_cluster_name()
    if command in ("list", "status"):
        p.add_argument("--json", action="store_true", help="print it as JSON")
    if command == "stop":
        p.add_argument("--all", action="store_true", help="all clusters of this machine")
        p.add_argument(
            "--forget", action="store_true", help="delete the record of a cluster on a machine that is no more"
        )
    if command == "logs":
        p.add_argument("-f", "--follow", action="store_true", help="go on until the cluster ends, or Ctrl-C")
        p.add_argument("--lines", type=argtypes.lines, default=LINES, metavar="N", help=f"of each file ({LINES})")
    if command == "follow":
        p.add_argument("--skip", type=argtypes.lines, default=0, metavar="N", help="events that are known already")
    return p


# --- list and status -----------------------------------------------------------------------------------------


def _list(parsed: argparse.Namespace) -> int:
    there = records.living()
    defaultfurls.release()
    if parsed.json:
        print(json.dumps([vars(record) for record in there], indent=1))
        return 0
    if not there:
        print("No cluster is known. Start one with: ipcluster -n 4")
        return 0
    show_table([("NAME", "KIND", "ENGINES", "STATE", "SINCE", "HOST", "JOBS"), *map(_row, there)])
    print("\nTo connect:")
    for record in there:
        if not record.is_addition:
            print(f"mec = client.MultiEngineClient({_arguments(record)})")
    return 0


def _arguments(record: ClusterRecord) -> str:
    """Return the arguments of a client that select a cluster."""
    path = record.furl_files.get("mec", "")
    own = path == str(records.furl_files(record.name)["mec"])
    return f"name={record.name!r}" if own else repr(path)


def _row(record: ClusterRecord) -> tuple[str, ...]:
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.started))
    where = record.ssh or record.host
    return (record.name, record.kind, str(record.n), _state(record), since, where, " ".join(record.jobs[-1:]))


def _state(record: ClusterRecord) -> str:
    if record.is_alive() is False:
        return "dead"
    return "up" if record.up is not None else "starting"


def _status(parsed: argparse.Namespace) -> int:
    record = records.find(parsed.name)
    added = records.additions(record.name)
    told: dict[str, Any] = {**vars(record), "state": _state(record), **_engines(record)}
    told["asked"] = record.n + sum(addition.n for addition in added)
    told["job_status"] = [status for each in (record, *added) for status in _jobs(each)]
    if parsed.json:
        print(json.dumps(told, indent=1))
        return 0
    print(f"{record.name}: {record.kind}, {told['state']}, process {record.pid} on {record.host}")
    if told["error"]:
        print(f"  engines: {told['asked']} asked for; the controller does not answer: {told['error']}")
    else:
        hosts = ", ".join(f"{host} ({count})" for host, count in told["hosts"].items())
        print(
            f"  engines: {told['registered']} of {told['asked']} registered" + (f", on {hosts}" if hosts else "")
        )
    if told["time_left"] is not None:
        print(f"  time left: {clock(int(told['time_left']))}")
    for job in told["job_status"]:
        print(f"  job {job['id']}: {job['state']}" + (f" ({job['reason']})" if job["reason"] else ""))
    print(f"  furl: {record.furl_files.get('mec', '')}")
    print(f"  logs: {record.log_dir}")
    return 0


def _engines(record: ClusterRecord) -> dict[str, Any]:
    """Return the status from the controller."""
    told: dict[str, Any] = {"registered": 0, "hosts": {}, "time_left": None, "error": ""}
    try:
        with MultiEngineClient(record.furl_files.get("mec", "")) as mec:
            engines = mec.cluster_info()["engines"]
    except (KernelError, ValueError, OSError) as error:
        return {**told, "error": str(error)}
    hosts: dict[str, int] = {}
    for engine in engines:
        hosts[engine["host"]] = hosts.get(engine["host"], 0) + 1
    left = [engine["time_left"] for engine in engines if engine.get("time_left") is not None]
    return {**told, "registered": len(engines), "hosts": hosts, "time_left": min(left, default=None)}


def _jobs(record: ClusterRecord) -> list[dict[str, Any]]:
    """Return the status of the last submitted job from the batch system."""
    if not record.batch or record.ssh:
        return []
    queue = Queue(batch_system(record.batch))
    found = []
    for job in record.jobs[-1:]:
        try:
            status = queue.status(job)
            found.append({**status._asdict(), "state": status.state.value})
        except LauncherError as error:
            found.append({"id": job, "state": "unknown", "reason": str(error)})
    return found


# --- stop ----------------------------------------------------------------------------------------------------


def _stop(parsed: argparse.Namespace) -> int:
    if parsed.forget:
        return _forget(records.find(parsed.name))
    if not parsed.all:
        return stop(records.find(parsed.name))
    code = 0
    for record in records.living():
        if record.is_here:
            try:
                code |= stop(record)
            except LauncherError as error:  # continue with the others
                print(f"ipcluster: {error}", file=sys.stderr)
                code = 1
    return code


def stop(record: ClusterRecord) -> int:
    """Stop a cluster; return an exit code.

    Raises:
        LauncherError: it cannot be stopped from here, or does not end.
    """
    alive = record.is_alive()
    if alive is None:
        return _stop_from_afar(record)
    if not alive:
        return _clean_up(record)
    with contextlib.suppress(ProcessLookupError):  # it may have just ended
        os.kill(record.pid, signal.SIGTERM)
    begin = time.monotonic()
    told = False
    while birth(record.pid) == record.born and time.monotonic() < begin + STOP_TIME:
        if not told and time.monotonic() > begin + SILENCE:
            told = True
            job = f" Its job {record.jobs[-1]} is being cancelled, which may take a minute." if record.jobs else ""
            print(f"The cluster {record.name!r} is ending.{job}", flush=True)
        time.sleep(LOOK / 4)
    if birth(record.pid) == record.born:
        hard = f"kill -KILL {record.pid}"
        if record.jobs:
            hard += f" ; ipcluster stop {record.name}    (which then cancels its job {record.jobs[-1]})"
        raise LauncherError(
            f"The cluster {record.name!r} has not ended within {STOP_TIME:g} s. What it does: ipcluster logs "
            f"{record.name}. The hard way: {hard}"
        )
    left = records.load(record.name)
    if left is not None and left.left_behind and left.pid == record.pid:
        return _clean_up(left)
    print(f"Stopped the cluster {record.name!r}.")
    return 0


def _stop_from_afar(record: ClusterRecord) -> int:
    """Stop a cluster whose process is on another machine, by its controller."""
    try:
        with MultiEngineClient(record.furl_files.get("mec", "")) as mec:
            mec.kill(controller=True)
    except (KernelError, ValueError, OSError) as error:
        raise LauncherError(
            f"The cluster {record.name!r} is run by process {record.pid} on {record.host}: log in there and stop "
            f"it. Its controller does not answer ({error}). If that machine, or its last start, is no more: "
            f"ipcluster stop --forget {record.name}"
        ) from error
    print(f"Told the controller of the cluster {record.name!r} to stop, which runs on {record.host}.")
    return 0


def _forget(record: ClusterRecord) -> int:
    """Delete a record whose process cannot do it."""
    if record.is_alive():
        raise LauncherError(f"The cluster {record.name!r} runs: stop it with ipcluster stop {record.name}")
    records.forget(record.name, record.pid)
    defaultfurls.release(record.name)
    print(f"The record of the cluster {record.name!r} on {record.host} is deleted.")
    for job in record.jobs[-1:]:
        print(f"Its job may still be in the queue: {' '.join(batch_system(record.batch).cancel(job))}")
    return 0


def _clean_up(record: ClusterRecord) -> int:
    """Clean up after a process that was killed, and may have left jobs behind."""
    if record.ssh:
        records.forget(record.name, record.pid)
        raise LauncherError(
            f"The process here that reached the cluster {record.name!r} had ended without a word; its record is "
            f"deleted. The cluster itself may go on: ssh {record.ssh} ipcluster stop {record.far_name}"
        )
    queue = Queue(batch_system(record.batch))
    for job in record.jobs[-1:]:
        status = queue.status(job)
        if status.state is not JobState.ENDED or not status.outcome:  # also one that is unknown (any more, or yet)
            queue.cancel(job)
            print(f"Cancelled job {job}, which the cluster {record.name!r} had left behind.")
    records.forget(record.name, record.pid)
    defaultfurls.release(record.name)
    print(f"The process of the cluster {record.name!r} had ended without a word; its record is deleted.")
    return 0


# --- logs ----------------------------------------------------------------------------------------------------


def _logs(parsed: argparse.Namespace) -> int:
    record = records.find(parsed.name)
    files = log_files(record)
    if not files and not parsed.follow:
        raise LauncherError(f"The cluster {record.name!r} has no log files in {record.log_dir} yet")
    for path in files:
        print(f"==> {path} <==")
        for line in tail(path, parsed.lines) if parsed.lines else []:
            print(line)
    if parsed.follow:
        _follow_files(record, files)
    return 0


def _follow_files(record: ClusterRecord, files: Sequence[Path]) -> None:
    """Print what is written from now on, also to new files, until the cluster ends."""
    grown = GrowingFiles(files)
    shown = files[-1] if files else None
    last = False
    sys.stdout.flush()  # what was printed so far may wait in a pipe
    while True:
        for path in log_files(record):
            text = grown.read(path)
            if not text:
                continue
            if path != shown:
                print(f"\n==> {path} <==")
                shown = path
            sys.stdout.write(text)
            sys.stdout.flush()
        if last:
            return
        last = record.is_alive() is False  # check once more, for its last lines
        time.sleep(LOOK)
        record = records.load(record.name) or record


def _follow(parsed: argparse.Namespace) -> int:
    """Print events of a detached cluster as lines of JSON, for the local end of ssh."""
    record = records.find(parsed.name)
    seen, last, line = 0, False, ""
    try:
        lines = open(record.events or os.devnull, encoding="utf-8", errors="replace")  # noqa: SIM115
    except OSError as error:
        raise LauncherError(f"What the cluster {record.name!r} tells cannot be read: {error}") from error
    with lines:
        while True:
            line = ("" if line.endswith("\n") else line) + lines.readline()
            if line.endswith("\n"):
                event = _event(line)
                seen += event is not None
                if event is not None and seen > parsed.skip:
                    print(line, end="", flush=True)
                if event is not None and event.get("state") == "over":
                    return 0
            elif last:
                return 1
            else:
                last = record.is_alive() is False
                time.sleep(LOOK)


def _event(line: str) -> dict[str, Any] | None:
    """Parse a line of JSON; None for an incomplete one, as from a full disk."""
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        return event if isinstance(event, dict) else None
    return None


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "list": _list,
    "status": _status,
    "stop": _stop,
    "logs": _logs,
    "follow": _follow,
}
_PURPOSES: Final[Mapping[str, str]] = {
    "list": "Show the clusters that run.",
    "status": "Say which engines of a cluster are there, how its job is, and how much time is left.",
    "stop": "Stop a cluster: its engines, controller and job.",
    "logs": "Show the ends of all log files of a cluster.",
    "follow": "Show what a detached cluster tells, as lines of JSON, until it ends.",
}
