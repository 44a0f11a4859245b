"""Other processes of this machine, none of them our children: are they there, how did they end.

A pidfd becomes readable when its process ends, and is safe against process ids that are used again. Where the
kernel has none, or Python was built where it knew of none, there is the process id alone. When a process began is
:func:`ipmpi.processid.birth`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import struct
from pathlib import Path
from typing import Final

from ...exits import how_it_ended

_PIDFD_OPEN: Final = 434
"""Number of the system call, the same on all machines that Linux runs on today."""
_PIDFD_GET_INFO: Final = 0xC040FF0B
_PIDFD_INFO_EXIT: Final = 1 << 3
_PIDFD_INFO: Final = struct.Struct("=2Q11Ii")
"""``struct pidfd_info`` of the kernel; first its mask of what is told, last the exit status."""

_EXIT_STATUS: Final = 49
"""Of the fields after the name in /proc/PID/stat."""

_LAUNCHERS: Final = frozenset({
    *("mpirun", "mpiexec", "orterun", "orted", "prterun", "prted", "prte", "mpiexec.hydra", "mpiexec.gforker"),
    *("hydra_pmi_proxy", "pmi_proxy", "mpispawn", "slurmstepd", "flux-shell", "palsd"),
})  # fmt: skip
"""Names of processes that start ranks, as /proc has them: 15 characters."""

_SAME_RANK: Final = (
    *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMIX_NAMESPACE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"),
    *("PMI_FD", "PMI_JOBID", "HYDI_CONTROL_FD", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "PALS_RANKID", "PALS_APID"),
    *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    *("FLUX_JOB_ID", "FLUX_TASK_RANK"),
)
_PROC: Final = Path("/proc")


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when this process ends; None where the kernel has no such thing.

    Raises:
        ProcessLookupError: there is no such process.
        OSError: as many files are open as may be.
    """
    try:
        return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else _pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM, errno.EACCES):  # EPERM: a container's filter
            return None
        raise


def _pidfd_open(pid: int) -> int:
    """For a Python that was built on a system older than that call, as those of conda are."""
    import ctypes

    found = int(ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_OPEN, pid, 0))  # close-on-exec by itself
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


def send_signal(pidfd: int | None, pid: int, signum: int) -> bool:
    """Send a signal to a process; False if it has ended.

    Raises:
        PermissionError: it is another user's.
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
    """How a process of our user has ended, as ``os.waitpid`` tells its parent; None if that cannot be known.

    Until its parent has asked, which launchers do at once, /proc tells; after that the kernel, from 6.15 on, by
    a ``pidfd`` that was opened before.
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
    """Words for what :func:`exit_status` found: ``killed by SIGSEGV (core dumped)``, ``exit code 3``."""
    if status is None:
        return "exit status unknown"
    return how_it_ended(os.waitstatus_to_exitcode(status)) + " (core dumped)" * os.WCOREDUMP(status)


def parent_launcher(pid: int, proc: Path = _PROC) -> int:
    """The process that started this rank: its parent, or the parent of the scripts and tools between the two.

    What stands between a launcher and its rank was started as that rank, so it has the same variables. Where no
    launcher started this process, it is the parent.

    Returns:
        A process id; 0 if none can be seen from here, as in a container with process ids of its own.
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
    """Name and further fields; nothing of a process that has ended, or that the system hides."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return "", []
    head, _, rest = text.rpartition(")")
    return head.partition("(")[2], rest.split()


def _rank_in(proc: Path, pid: int) -> dict[bytes, bytes]:
    """What launchers had told this process when it began; nothing if it is another user's."""
    try:
        entries = (proc / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (entry.partition(b"=") for entry in entries)
    return {name: value for name, _, value in pairs if name.decode(errors="replace") in _SAME_RANK}
