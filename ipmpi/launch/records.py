"""Records of running clusters: what ``ipcluster`` commands know about each other (layer L4).

A cluster is run by one ``ipcluster`` process. It writes ``clusters/NAME.json`` in ``$IPYTHONDIR`` when it starts,
writes it again when there is news (a job, say), and deletes it at the end. Other commands only read it. A record
can outlive its process (``kill -9``, a power cut), so each has the process's time of birth: a process id alone
could be somebody else's by now. The folder may be shared by several machines; about a process of another one
nothing can be said from here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ipmpi.errors import FurlError, LauncherError, SecurityError
from ipmpi.furl import ipython_dir, read_private, security_dir, write_private
from ipmpi.launch.process import birth
from ipmpi.limits import KIB

DEFAULT_NAME: Final = "default"
ROLES: Final[Mapping[str, str]] = {
    "engine": "engine",
    "mec": "multiengine",
    "tc": "task",
    "monitor": "monitor",
}
"""Roles of furls, and what the options of ``ipcontroller`` call them."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass
class Record:
    """One cluster.

    Attributes:
        name: how the user calls it.
        kind: ``local``, ``ssh``, or a batch system.
        n: engines that were asked for.
        host: the machine of the process ``pid``.
        pid: of the ``ipcluster`` process that runs it; 0 if everything is inside a job.
        born: when that process began, in the kernel's ticks; 0 for none.
        started: unix time.
        log_dir: folder of the log files.
        log: the file with what a detached ``ipcluster`` says itself, else "".
        events: the same as lines of JSON.
        controller: the controller's process id; 0 if it is not on this machine.
        furl_files: role (``engine``, ``mec``, ``tc``, ``monitor``) to path.
        batch: name of the batch system, if engines are in jobs.
        jobs: job ids, newest last.
        job_name: what the queue shows.
        ssh: where the cluster really is, if it is reached through ssh.
        far_name: its name there.
        up: unix time since when all engines were there, or None.
    """

    name: str
    kind: str
    n: int
    host: str = field(default_factory=platform.node)
    pid: Annotated[int, msgspec.Meta(ge=0)] = field(default_factory=os.getpid)  # kill() takes others for groups
    born: int = 0
    started: float = field(default_factory=time.time)
    log_dir: str = ""
    log: str = ""
    events: str = ""
    controller: int = 0
    furl_files: dict[str, str] = field(default_factory=dict)
    batch: str = ""
    jobs: list[str] = field(default_factory=list)
    job_name: str = ""
    ssh: str = ""
    far_name: str = ""
    up: float | None = None

    def __post_init__(self) -> None:
        if not self.born and self.pid == os.getpid():
            self.born = birth(self.pid)

    @property
    def is_here(self) -> bool:
        """Whether its process, if it has one, is on this machine."""
        return self.host == platform.node()

    def is_alive(self) -> bool | None:
        """Whether its process runs; None if that cannot be seen from here."""
        if not self.pid or not self.is_here:
            return None
        return self.born != 0 and birth(self.pid) == self.born


def records_dir() -> Path:
    """Where records are."""
    return ipython_dir() / "clusters"


def check_name(name: str) -> str:
    """The name, if it can be one.

    Raises:
        LauncherError: it cannot.
    """
    if _NAME.fullmatch(name) is None:
        raise LauncherError(
            f"{name!r} cannot be the name of a cluster: take up to 64 letters, digits, '-', '_' and '.', "
            "with a letter or digit first"
        )
    return name


def furl_files(name: str) -> dict[str, Path]:
    """The furl files of a cluster that has a name of its own: role to path."""
    return {role: security_dir() / f"{name}-{role}.furl" for role in ROLES}


def save(record: Record) -> None:
    """Write a record, in one step.

    Raises:
        LauncherError: it cannot be written.
    """
    data = json.dumps(dataclasses.asdict(record), indent=1).encode() + b"\n"
    try:
        write_private(records_dir() / f"{check_name(record.name)}.json", data)
    except (FurlError, SecurityError) as error:
        raise LauncherError(f"The record of the cluster could not be kept: {error}") from error


def load(name: str) -> Record | None:
    """The record of a cluster, or None if there is none that can be read."""
    try:
        data = read_private(records_dir() / f"{check_name(name)}.json", 64 * KIB)
        record = msgspec.json.decode(data, type=Record)
    except (OSError, FurlError, SecurityError, msgspec.DecodeError, RecursionError):
        return None
    return record if record.name == name else None


def forget(name: str, pid: int) -> None:
    """Delete the record of a cluster, unless another process has taken the name meanwhile."""
    record = load(name)
    if record is not None and record.pid == pid:
        (records_dir() / f"{name}.json").unlink(missing_ok=True)


def living() -> list[Record]:
    """Records of all clusters that run, or may run, oldest first.

    Those of dead processes are deleted; but where there were jobs, these may still be in the queue.
    """
    found = []
    for path in records_dir().glob("*.json"):
        record = load(path.stem) if _NAME.fullmatch(path.stem) else None
        if record is None:
            continue
        if record.is_alive() is False and not record.jobs:
            forget(record.name, record.pid)
        else:
            found.append(record)
    return sorted(found, key=lambda record: record.started)


def find(name: str = "") -> Record:
    """The cluster of that name, or the only one.

    Raises:
        LauncherError: there is none, or which one is not clear.
    """
    there = living()
    if name:
        chosen = [record for record in there if record.name == check_name(name)]
    else:
        chosen = there if len(there) <= 1 else [record for record in there if record.name == DEFAULT_NAME]
    if chosen:
        return chosen[0]
    names = ", ".join(record.name for record in there)
    if not there:
        raise LauncherError(
            f"No cluster is known in {records_dir()}. Start one with: ipcluster -n 4 (see: ipcluster --help)"
        )
    if name:
        raise LauncherError(f"There is no cluster {name!r}. Those that are known: {names}")
    raise LauncherError(f"There are several clusters: {names}. Say which one is meant")


def free_name(wanted: str) -> str:
    """A name for a new cluster: the one that is wanted, or for those without one, ``default``.

    Raises:
        LauncherError: a running cluster has this name.
    """
    taken = {record.name: record for record in living()}
    if not wanted:
        numbers = range(2, len(taken) + 3)
        return next(n for n in [DEFAULT_NAME, *(f"{DEFAULT_NAME}-{k}" for k in numbers)] if n not in taken)
    if check_name(wanted) in taken:
        other = taken[wanted]
        raise LauncherError(
            f"A cluster {wanted!r} is running already (on {other.host}, process {other.pid}). "
            f"Take another --name, or stop it with: ipcluster stop {wanted}"
        )
    return wanted
