"""Facts as plain records (no I/O)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ipmpi.furl import Furl
from ipmpi.launch.processes.mpi import Flavour


class FolderFacts(NamedTuple):
    """A folder of ipmpi. ``kind``: folder, missing, link or other; ``error``: why it cannot be written to."""

    path: str
    kind: str
    mode: int = 0
    owner: int = 0
    error: str = ""


@dataclass(frozen=True)
class FurlFileFacts:
    """A furl file.

    ``kind``: file, missing, link, folder or other; ``error``: why its text is not a furl of its role.
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
    """Soft limits of a process; None is unlimited or unknown."""

    files: int | None = None
    files_hard: int | None = None
    locked: int | None = None
    processes: int | None = None
    core: int | None = None


class Scratch(NamedTuple):
    """The folder of temporary files. ``shared``: free bytes of shared memory, None if unknown."""

    folder: str
    free: int | None = None
    error: str = ""
    shared: int | None = None


class Versions(NamedTuple):
    """Versions in one process; '' for a missing package."""

    python: str = ""
    ipmpi: str = ""
    mpi4py: str = ""
    numpy: str = ""
    cloudpickle: str = ""


class Clock(NamedTuple):
    """A reading of another clock, and of ours before the request and after the reply."""

    who: str
    before: float
    reading: float
    after: float


class Machine(NamedTuple):
    """The machine of a process, here or of an engine."""

    host: str
    cores: int
    """Cores that this process may run on."""
    all_cores: int
    """Cores of the machine."""
    threads: str
    """OMP_NUM_THREADS."""
    limits: Limits
    scratch: Scratch
    fast_network: str = ""
    """A network card that needs locked memory, such as InfiniBand."""


@dataclass(frozen=True)
class EngineFacts:
    """The facts that an engine has reported."""

    id: int
    machine: Machine
    versions: Versions
    python: str
    """Path of its interpreter."""
    clock: Clock
    token: str
    """The text that it read in the client's file: '' if it found none."""
    folder: str
    """Its ~/.ipython."""
    library: str = ""
    """MPI.Get_library_version(), if it has joined a communicator."""
    unwritable: Mapping[str, str] = field(default_factory=dict)
    """The log folder or current folder, if it cannot write to it, and why."""
    thread_level: str = ""


class Launcher(NamedTuple):
    """A launcher: the words of its command, and its MPI (a ``Flavour`` of launch.mpi, or srun)."""

    words: tuple[str, ...]
    flavour: Flavour | Literal["srun"]
    chosen: bool = False
    """Whether the user named it."""


@dataclass(frozen=True)
class RankFacts:
    """The facts that one rank has reported before its end.

    Attributes:
        launched: the result of :func:`ipmpi.environment.mpienv.detect`, as a dict; None for no known launcher.
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
    """The facts of a check in which two or more ranks were started.

    Attributes:
        code: exit code of the launcher; None if it had to be ended.
        outlived: whether rank 0 ran well after the last rank was killed; None if that was not tried.
        raised: the MPI error of rank 0 about the dead rank; 'waits' if rank 0 had to wait.
        output: the last lines of output.
        not_started: why the launcher could not be started.
        transport: Open MPI's transport between ranks: ``ob1``, ``ucx``, or ``cm`` with its lower layer, as
            ``cm/ofi``; ``""`` if unknown.
        machines: number of machines of the job, if known; 0 outside of a job.
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
