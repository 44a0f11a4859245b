"""Watching other processes of this machine that are not our children: whether they run, and how they ended.

A pidfd becomes readable when its process ends, and cannot refer to a reused process id. Kernels without pidfds
leave the process id only. For the start time of a process see :func:`ipmpi.processid.birth`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import struct
from pathlib import Path
from typing import Final, NamedTuple

from ...exits import how_it_ended

_PIDFD_OPEN: Final = 434
"""Number of the system call, the same on all architectures in use."""
_PIDFD_GET_INFO: Final = 0xC040FF0B
_PIDFD_INFO_EXIT: Final = 1 << 3
_PIDFD_INFO: Final = struct.Struct("=2Q11Ii")
"""``struct pidfd_info`` of the kernel; its first field is the mask, its last the exit status."""

_EXIT_STATUS: Final = 49
"""Index of the field, after the name, in /proc/PID/stat."""

_LAUNCHERS: Final = frozenset({
    *("mpirun", "mpiexec", "orterun", "orted", "prterun", "prted", "prte", "mpiexec.hydra", "mpiexec.gforker"),
    *("hydra_pmi_proxy", "pmi_proxy", "mpispawn", "slurmstepd", "flux-shell", "palsd"),
})  # fmt: skip
"""Names of processes that start ranks, as in /proc: at most 15 characters."""

_SAME_RANK: Final = (
    *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMIX_NAMESPACE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"),
    *("PMI_FD", "PMI_JOBID", "HYDI_CONTROL_FD", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "PALS_RANKID", "PALS_APID"),
    *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    *("FLUX_JOB_ID", "FLUX_TASK_RANK"),
)
_PROC: Final = Path("/proc")


class RankDescriptors(NamedTuple):
    """Descriptors of a rank: its pidfd, and the agent's end of its lifeline."""

    pidfd: int | None
    lifeline: int


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor that becomes readable when this process ends; None if the kernel has no pidfds.

    Raises:
        ProcessLookupError: there is no such process.
        OSError: too many open files.
    """
    try:
        return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else _pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM, errno.EACCES):  # EPERM: a container's filter
            return None
        raise


def _pidfd_open(pid: int) -> int:
    """As ``os.pidfd_open``, for Pythons that were built on older systems, such as conda's."""
    import ctypes

    found = int(ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_OPEN, pid, 0))  # close-on-exec by itself
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


def send_signal(pidfd: int | None, pid: int, signum: int) -> bool:
    """Send a signal to a process; False if it has ended.

    Raises:
        PermissionError: it belongs to another user.
    """
    try:
        if pidfd is not None and hasattr(signal, "pidfd_send_signal"):
            try:
                signal.pidfd_send_signal(pidfd, signum)
                return True
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def exit_status(pid: int, pidfd: int | None = None) -> int | None:
    """Return the exit status of a process of our user, as of ``os.waitpid``; None if it is unknown.

    It is read from /proc until the parent has waited, which launchers do at once; later from a ``pidfd`` that was
    opened before, on kernels from 6.15 on.
    """
    status = _of_zombie(pid)
    return _after_all(pidfd) if status is None and pidfd is not None else status


def _of_zombie(pid: int) -> int | None:
    fields = _stat(_PROC, pid)[1]
    with contextlib.suppress(IndexError, ValueError):
        if fields[0] in "ZX":
            return int(fields[_EXIT_STATUS])
    return None


def _after_all(pidfd: int) -> int | None:
    info = bytearray(_PIDFD_INFO.size)
    _PIDFD_INFO.pack_into(info, 0, _PIDFD_INFO_EXIT, *[0] * 13)
    with contextlib.suppress(OSError):
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info, True)
        told, *_, status = _PIDFD_INFO.unpack(info)
        if told & _PIDFD_INFO_EXIT:
            return int(status)
    return None


def describe_status(status: int | None) -> str:
    """Describe an exit status: ``killed by SIGSEGV (core dumped)``, ``exit code 3``."""
    if status is None:
        return "exit status unknown"
    return how_it_ended(os.waitstatus_to_exitcode(status)) + " (core dumped)" * os.WCOREDUMP(status)


def parent_launcher(pid: int, proc: Path = _PROC) -> int:
    """Return the launcher of this rank: its parent, or the parent of the scripts and tools between the two.

    Those were started as the rank, so they have the same variables. Without a launcher, it is the parent.

    Returns:
        A process id; 0 if it is not visible, for instance outside of a container.
    """
    own = _rank_in(proc, pid)
    above = _parent(proc, pid)
    while own and above and _stat(proc, above)[0] not in _LAUNCHERS and _rank_in(proc, above) == own:
        above = _parent(proc, above)
    return above


def _parent(proc: Path, pid: int) -> int:
    try:
        return int(_stat(proc, pid)[1][1])
    except (IndexError, ValueError):
        return 0


def _stat(proc: Path, pid: int) -> tuple[str, list[str]]:
    """Return the name and the other fields; empty for a process that has ended or is hidden."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return "", []
    head, _, rest = text.rpartition(")")
    return head.partition("(")[2], rest.split()


def _rank_in(proc: Path, pid: int) -> dict[bytes, bytes]:
    """Return the launcher's variables in the environment of a process; empty if it is another user's."""
    try:
        entries = (proc / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (entry.partition(b"=") for entry in entries)
    return {name: value for name, _, value in pairs if name.decode(errors="replace") in _SAME_RANK}
