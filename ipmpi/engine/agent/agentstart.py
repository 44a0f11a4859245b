"""How a rank starts the agent process of its node, detached from the launcher.

It is forked before MPI is loaded and never loads it. Launchers wait for the ends of the pipes that they gave their
ranks, so none of these may stay open; they kill by process group, so it gets a session of its own; and the
variables that describe the rank are removed from its environment.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import gc
import itertools
import logging
import os
import signal
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, NoReturn

from ...environment.mpienv import rank_variables
from ...errors import LauncherError
from .watch import parent_launcher

log = logging.getLogger("ipengine")

PROCESS_NAME: Final = "ipmpi-agent"
"""The name that ps and top show, at most 15 characters."""

_OF_LAUNCHERS: Final = (
    *("PMI", "OMPI_", "OPAL_", "MPI_", "MPIR", "MPISPAWN_", "MV2_", "I_MPI_", "PRTE", "HYDI", "HYDRA", "PALS_"),
    *("FLUX_", "SLURM_"),
)
_OF_JOBS: Final = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_END_TIME")
"""Variables that describe the job, not the rank."""

_IGNORED: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)
"""Signals for ranks: interrupts, the end of a terminal, warnings of hydra and batch systems."""
_MOST_DESCRIPTORS: Final = 65_536
"""Highest descriptor to close where /proc does not list the open ones."""


def start_agent(listener_fd: int, main: Callable[[int], int], keep: Sequence[int] = ()) -> None:
    """Run ``main`` in a process that is neither our child nor in our session, without our files.

    Call it in the main thread, before there are others and before MPI is loaded. Standard input and output of the
    new process are ``/dev/null``, so ``main`` logs to a descriptor in ``keep`` or opens files itself. It must not
    close Python objects that own other files of this rank: their descriptors may have been reused.

    Args:
        listener_fd: the socket on which ``main`` listens; stays open there.
        main: called with the number of that descriptor in the new process, returns its exit code. It may set
            signal handlers: SIGINT, SIGHUP, SIGPIPE, SIGUSR1 and SIGUSR2 are ignored, others have their defaults.
        keep: further descriptors that stay open, from 3 on.

    Raises:
        LauncherError: the process cannot be created.
    """
    launcher = parent_launcher(os.getpid())
    # Blocked, since a signal would run this rank's handlers in the new process.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        child = os.fork()
        if not child:
            _leave_and_fork(listener_fd, main, keep, launcher)
    except OSError as error:
        raise _cannot_start(error.errno or 0) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except ChildProcessError:  # our parent ignores SIGCHLD, and so do we
        return
    if code:
        raise _cannot_start(code)


def _cannot_start(number: int) -> LauncherError:
    why = os.strerror(number) if number > 0 else f"killed by signal {-number}"
    return LauncherError(
        f"the agent process of this node cannot be started: {why}. See how many processes you may have "
        "(ulimit -u), and how much memory the job has"
    )


def _leave_and_fork(listener_fd: int, main: Callable[[int], int], keep: Sequence[int], launcher: int) -> NoReturn:
    """The intermediate process: leads the new session in place of the agent, and exits at once."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
    except OSError as error:
        os._exit(error.errno or 1)
    except BaseException:
        os._exit(1)
    _run(listener_fd, main, keep, launcher)


def _run(listener_fd: int, main: Callable[[int], int], keep: Sequence[int], launcher: int) -> NoReturn:
    """The agent process. It neither returns into the rank's code nor runs its exit handlers."""
    code = 1
    try:
        gc.freeze()  # finalizers of the rank's objects would close our descriptors
        listener_fd = _leave_files(listener_fd, keep)
        become_agent(launcher)
        code = int(main(listener_fd)) & 0xFF
    except BaseException:
        log.exception("the agent process failed; please report this")
    finally:
        os._exit(code)


def _leave_files(listener_fd: int, keep: Sequence[int]) -> int:
    if listener_fd < 3:  # this rank was started without standard files
        listener_fd = fcntl.fcntl(listener_fd, fcntl.F_DUPFD_CLOEXEC, 3)
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for standard in range(3):
        os.dup2(nowhere, standard)
    _close_all_but({0, 1, 2, listener_fd, *keep})
    return listener_fd


def _close_all_but(kept: Collection[int]) -> None:
    try:
        found = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        most = os.sysconf("SC_OPEN_MAX")
        end = min(most, _MOST_DESCRIPTORS) if most > 0 else _MOST_DESCRIPTORS
        edges = [-1, *sorted(number for number in kept if number < end), end]
        for before, after in itertools.pairwise(edges):
            if before + 1 < after:  # closerange(0, 0) closes everything
                os.closerange(before + 1, after)
        return
    for number in found:
        if number not in kept:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself
                os.close(number)


def become_agent(launcher: int) -> None:
    """Make this process, a program of its own, what :func:`start_agent` makes of a forked one.

    Args:
        launcher: the process that has started the ranks, whose cores it may use; 0 if there is none.
    """
    _reset_signals()
    _leave_environment()
    _use_cores_of(launcher)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(PROCESS_NAME, encoding="ascii")
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _reset_signals() -> None:
    faulthandler.disable()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):  # SIGKILL, SIGSTOP, those of the C library
            signal.signal(number, signal.SIG_IGN if number in _IGNORED else signal.SIG_DFL)


def _leave_environment() -> None:
    gone = set(rank_variables(os.environ))
    gone.update(name for name in os.environ if name.startswith(_OF_LAUNCHERS) and name not in _OF_JOBS)
    for name in gone:
        os.environ.pop(name, None)


def _use_cores_of(launcher: int) -> None:
    """Allow this process the cores of the launcher, since a computing rank keeps its own core busy.

    Not all cores, so that a limit that the user set for the launch holds.
    """
    with contextlib.suppress(OSError):
        if launcher:
            os.sched_setaffinity(0, os.sched_getaffinity(0) | os.sched_getaffinity(launcher))
