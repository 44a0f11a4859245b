"""Records of running clusters, by which ``ipcluster`` commands find them.

A cluster is run by one ``ipcluster`` process. It writes ``clusters/NAME.json`` in ``$IPYTHONDIR`` when it starts,
which reserves the name, updates it on changes (such as a new job), and deletes it at the end. Other commands only
read it. A record can outlive its process (``kill -9``, a power cut), so it has the start time of the process:
process ids are reused. The folder may be shared by several machines; processes of other machines cannot be
checked.

Engines that are added to a cluster have records too, named ``NAME+2`` and so on, so that their jobs are known.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ipmpi.errors import FurlError, LauncherError, SecurityError
from ipmpi.furl import CLUSTER_NAME, GRANTS, NAME_RULE, cluster_furl_file, ipython_dir, read_private, write_private
from ipmpi.launch.cluster.launchfurl import PREFIX
from ipmpi.launch.processes.machine import can_see, identity
from ipmpi.launch.processes.process import birth
from ipmpi.limits import KIB
from ipmpi.locks import locked

DEFAULT_NAME: Final = "default"
ROLES: Final[Mapping[str, str]] = {
    "engine": "engine",
    "mec": "multiengine",
    "tc": "task",
    "monitor": "monitor",
}
"""Roles of furls, and their names in options of ``ipcontroller``."""

BEING_WRITTEN: Final = 10.0
"""Seconds for which an invalid file may still be being written, where files cannot be locked."""


@dataclass
class ClusterRecord:
    """One cluster.

    Attributes:
        name: its name.
        kind: ``local``, ``ssh``, or a batch system.
        n: number of requested engines.
        host: host name of the process ``pid``.
        machine: identity of that machine, see :func:`ipmpi.launch.processes.machine.identity`.
        pid: process id of the ``ipcluster`` process that runs it; 0 if everything is inside a job.
        born: start time of that process, in the kernel's ticks; 0 for none.
        started: Unix time.
        run: a unique part of the names of its log files.
        unnamed: the user gave no name, so it may be the default cluster.
        log_dir: folder of the log files.
        log: the file with the output of a detached ``ipcluster``, else "".
        events: the same as lines of JSON.
        controller: the controller's process id; 0 if it is not on this machine.
        furl_files: role (``engine``, ``mec``, ``tc``, ``monitor``) to path.
        journal: the controller's journal, or "".
        keeps_furls: the furls stay valid for the next start (fixed ports), so the files are kept.
        batch: name of the batch system, if engines are in jobs.
        jobs: job ids, newest last.
        job_name: its name in the queue.
        ssh: the host of the cluster, if it is reached through ssh.
        far_name: its name there.
        left_behind: its job could not be ended, so the record is kept.
        up: Unix time since when all engines are registered, or None.
    """

    name: str
    kind: str
    n: int
    host: str = field(default_factory=platform.node)
    machine: str = field(default_factory=identity)
    pid: Annotated[int, msgspec.Meta(ge=0)] = field(default_factory=os.getpid)  # kill() takes negative for groups
    born: int = 0
    started: float = field(default_factory=time.time)
    run: str = ""
    unnamed: bool = False
    log_dir: str = ""
    log: str = ""
    events: str = ""
    controller: int = 0
    furl_files: dict[str, str] = field(default_factory=dict)
    keeps_furls: bool = False
    journal: str = ""
    batch: str = ""
    jobs: list[str] = field(default_factory=list)
    job_name: str = ""
    ssh: str = ""
    far_name: str = ""
    left_behind: bool = False
    up: float | None = None

    def __post_init__(self) -> None:
        if not self.born and self.pid == os.getpid():
            self.born = birth(self.pid)
        if not self.run:
            self.run = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(self.started))}-{self.pid}"

    @property
    def is_here(self) -> bool:
        """Whether its process, if it has one, is visible from here."""
        return can_see(self.machine, self.host) is True

    @property
    def cluster(self) -> str:
        """The name of the cluster: its own, or that to which its engines were added."""
        return self.name.partition("+")[0]

    @property
    def is_addition(self) -> bool:
        """Whether it is the record of engines that were added to a cluster."""
        return "+" in self.name

    def is_alive(self) -> bool | None:
        """Whether its process runs; None if that is not visible from here."""
        seen = can_see(self.machine, self.host)
        if not self.pid or seen is None:
            return None
        return seen and self.born != 0 and birth(self.pid) == self.born


def records_dir() -> Path:
    """Return the folder of records."""
    return ipython_dir() / "clusters"


def check_name(name: str, *, new: bool = False) -> str:
    """Return the name, if it is valid; ``new``: for a new cluster.

    Raises:
        LauncherError: it is invalid.
    """
    if CLUSTER_NAME.fullmatch(name) is None or (new and "+" in name):
        raise LauncherError(f"{name!r} cannot be the name of a cluster: {NAME_RULE}")
    return name


def furl_files(name: str) -> dict[str, Path]:
    """Return the furl files of a cluster by role."""
    return {role: cluster_furl_file(role, name).absolute() for role in ROLES}


def default_journal(name: str) -> Path:
    """Return the place of a cluster's journal if none is given."""
    return furl_files(name)["mec"].parent / "controller.journal"


def log_folder(name: str) -> Path:
    """Return the default folder of a cluster's log files."""
    return (ipython_dir() / "log" / name).absolute()


def claim(wanted: str, make: Callable[[str], ClusterRecord]) -> ClusterRecord:
    """Reserve a name for a new cluster, and write its record.

    Clusters that start at the same time get different names, also on different machines with one home folder.

    Args:
        wanted: the name that the user gave; ``""`` for ``default``, or if that is taken ``default-2`` and so on;
            ``NAME+`` for engines that are added to ``NAME``.
        make: makes the record of a cluster with this name.

    Raises:
        LauncherError: a running cluster has this name, or the record cannot be written.
    """
    try:
        records_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(records_dir()):
            name = free_name(wanted)
            while not _create(records_dir() / f"{name}.json"):
                if wanted and not wanted.endswith("+"):
                    raise LauncherError(f"A cluster {wanted!r} is just being started. Take another --name")
                name = free_name(wanted, also_taken=name)
    except OSError as error:
        raise LauncherError(f"The record of the cluster could not be kept in {records_dir()}: {error}") from error
    try:
        record = make(name)
        save(record)
    except BaseException:
        (records_dir() / f"{name}.json").unlink(missing_ok=True)
        raise
    return record


def _create(path: Path) -> bool:
    """Create the file; return False if it exists, as a record or a file that may become one."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return True
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if load(path.stem) is None and time.time() - status.st_mtime > BEING_WRITTEN:
                path.unlink()  # left behind by a power cut, or by another release
                return _create(path)
        return False


def save(record: ClusterRecord) -> None:
    """Write a record, atomically.

    Raises:
        LauncherError: it cannot be written.
    """
    data = json.dumps(dataclasses.asdict(record), indent=1).encode() + b"\n"
    try:
        write_private(records_dir() / f"{check_name(record.name)}.json", data)
    except (FurlError, SecurityError) as error:
        raise LauncherError(f"The record of the cluster could not be kept: {error}") from error


def load(name: str) -> ClusterRecord | None:
    """Return the record of a cluster, or None if there is no readable one."""
    try:
        data = read_private(records_dir() / f"{check_name(name)}.json", 64 * KIB)
        record = msgspec.json.decode(data, type=ClusterRecord)
    except (OSError, FurlError, SecurityError, msgspec.DecodeError, RecursionError):
        return None
    return record if record.name == name else None


def forget(name: str, pid: int) -> None:
    """Delete the record of a cluster and its furl files, unless another process has taken the name meanwhile."""
    record = load(name)
    if record is None or record.pid != pid:
        return
    if not record.is_addition and not record.keeps_furls:
        own = {str(path) for path in furl_files(name).values()}
        for path in own & set(record.furl_files.values()):
            Path(path).unlink(missing_ok=True)
        folder = furl_files(name)["mec"].parent
        for left in furl_files(name)["engine"].parent.glob(f"{PREFIX}*.furl"):  # of a process that was killed
            left.unlink(missing_ok=True)
        for side in ("client", "engine"):
            (folder / f"ipcontroller-{side}.pem").unlink(missing_ok=True)
        (folder / GRANTS).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
    (records_dir() / f"{name}.json").unlink(missing_ok=True)


def living() -> list[ClusterRecord]:
    """Return the records of all clusters that run, or may run, and of additions to them, oldest first.

    Records of dead processes are deleted, unless their jobs may still be in the queue.
    """
    found = []
    for path in records_dir().glob("*.json"):
        record = load(path.stem) if CLUSTER_NAME.fullmatch(path.stem) else None
        if record is None:
            continue
        if record.is_alive() is False and not record.jobs:
            forget(record.name, record.pid)
        else:
            found.append(record)
    return sorted(found, key=lambda record: record.started)


def clusters() -> list[ClusterRecord]:
    """As :func:`living`, without additions."""
    return [record for record in living() if not record.is_addition]


def additions(name: str) -> list[ClusterRecord]:
    """Return the records of engines that were added to a cluster, and run."""
    return [record for record in living() if record.is_addition and record.cluster == name]


def find(name: str = "") -> ClusterRecord:
    """Return the cluster of that name, or the only one.

    Raises:
        LauncherError: there is none, or there are several.
    """
    there = clusters()
    if name:
        chosen = [record for record in living() if record.name == check_name(name)]
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


def free_name(wanted: str, also_taken: str = "") -> str:
    """Return a name for a new record, see :func:`claim`.

    Raises:
        LauncherError: a running cluster has the requested name.
    """
    taken = {record.name: record for record in living()}
    if not wanted or wanted.endswith("+"):
        base, sign = (wanted[:-1], "+") if wanted else (DEFAULT_NAME, "-")
        candidates = [*([] if wanted else [base]), *(f"{base}{sign}{k}" for k in range(2, len(taken) + 4))]
        seen = candidates.index(also_taken) + 1 if also_taken in candidates else 0
        # Others may have taken the last of these a moment ago.
        candidates += [f"{base}{sign}{k}" for k in range(len(taken) + 4, len(taken) + 5 + seen)]
        free = [name for name in candidates[seen:] if name not in taken]
        if not free:
            raise LauncherError(f"No name is free in {records_dir()}; give one with --name")
        return free[0]
    if check_name(wanted, new=True) in taken:
        other = taken[wanted]
        raise LauncherError(
            f"A cluster {wanted!r} is running already (on {other.host}, process {other.pid}). "
            f"Take another --name, or stop it with: ipcluster stop {wanted}"
        )
    return wanted
