"""Facts: what was seen, as plain records (no I/O)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ipmpi.furl import Furl
from ipmpi.launch.processes.mpi import Flavour


class FolderFacts(NamedTuple):
    """A folder of ipmpi. ``kind``: folder, missing, link or other; ``error``: why nothing can be written there."""

    path: str
    kind: str
    mode: int = 0
    owner: int = 0
    error: str = ""


@dataclass(frozen=True)
class FurlFileFacts:
    """A furl file.

    ``kind``: file, missing, link, folder or other; ``error``: why its text is no furl of its role.
    """

    path: str
    role: str
    kind: str
    mode: int = 0
    owner: int = 0
    names: int = 1
    furl: Furl | None = None
    error: str = ""


class Limits(NamedTuple):
    """What the system allows one process, soft limits; None is unlimited, or not known here."""

    files: int | None = None
    files_hard: int | None = None
    locked: int | None = None
    processes: int | None = None
    core: int | None = None


class Scratch(NamedTuple):
    """Where temporary files go. ``shared``: free bytes for memory that processes share, None if not known."""

    folder: str
    free: int | None = None
    error: str = ""
    shared: int | None = None


class Versions(NamedTuple):
    """Releases in one process; '' where a package is not there."""

    python: str = ""
    ipmpi: str = ""
    mpi4py: str = ""
    numpy: str = ""
    cloudpickle: str = ""


class Clock(NamedTuple):
    """A reading of somebody's clock, and ours before it was asked for and after the answer came."""

    who: str
    before: float
    reading: float
    after: float


class Machine(NamedTuple):
    """What one process, here or an engine, runs on."""

    host: str
    cores: int
    """Those that this process may run on."""
    all_cores: int
    """Those of the machine."""
    threads: str
    """OMP_NUM_THREADS."""
    limits: Limits
    scratch: Scratch
    fast_network: str = ""
    """A network card that needs locked memory, such as InfiniBand."""


@dataclass(frozen=True)
class EngineFacts:
    """What an engine said about itself."""

    id: int
    machine: Machine
    versions: Versions
    python: str
    """Path of its interpreter."""
    clock: Clock
    token: str
    """What it read in the file that the client wrote: '' if it found none."""
    folder: str
    """Its ~/.ipython."""
    library: str = ""
    """MPI.Get_library_version(), if it has joined a communicator."""
    unwritable: Mapping[str, str] = field(default_factory=dict)
    """Folders for log files, or in which it runs, where it can write nothing; and why."""
    thread_level: str = ""


class Launcher(NamedTuple):
    """What starts ranks: the words of its command, and whose it is (``Flavour`` of launch.mpi, or srun)."""

    words: tuple[str, ...]
    flavour: Flavour | Literal["srun"]
    chosen: bool = False
    """The user named it."""


@dataclass(frozen=True)
class RankFacts:
    """What one rank of a trial told, as far as it came.

    Attributes:
        launched: what :func:`ipmpi.environment.mpienv.detect` found, as a dict; None if it recognised no launcher.
        library: MPI.Get_library_version(); '' if mpi4py could not be imported, ``error`` says why.
        size: of COMM_WORLD; 0 if MPI_Init did not return.
    """

    pid: int
    host: str
    launched: dict[str, Any] | None = None
    library: str = ""
    library_file: str = ""
    size: int = 0
    rank: int = 0
    thread_level: str = ""
    error: str = ""


@dataclass(frozen=True)
class MpiCheck:
    """Two or more ranks that were started to see what happens.

    Attributes:
        code: exit code of the launcher; None if it had to be ended.
        outlived: whether rank 0 was still there well after the last rank was killed; None if that was not tried.
        raised: what MPI told rank 0 about the dead rank; 'waits' if it let rank 0 wait.
        output: the last lines that were printed.
        not_started: why it could not be tried at all.
        transport: by what Open MPI moves messages from one rank to another: ``ob1``, ``ucx``, or ``cm`` with what
            is below it, as ``cm/ofi``; ``""`` if it is not known.
        machines: of the job in which this was tried, as far as known; 0 outside of a job.
    """

    launcher: Launcher
    asked: int
    python: str
    code: int | None = None
    seconds: float = 0.0
    ranks: tuple[RankFacts, ...] = ()
    outlived: bool | None = None
    raised: str = ""
    output: tuple[str, ...] = field(default=())
    not_started: str = ""
    transport: str = ""
    machines: int | None = 0
