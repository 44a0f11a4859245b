"""Check what the system allows a process: limits, temporary files, clocks (no I/O)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from .diagnostics import Diagnostic, Table, every, note, ok, problem, size, warning
from .facts import Clock, Machine

LIMITS: Final = "Limits"
SCRATCH: Final = "Temporary files"
CLOCKS: Final = "Clocks"

FILES_NEEDED: Final = 256
"""Open files: an engine has some dozens, the leader of a node one for each rank there."""
FILES_WANTED: Final = 1024
LOCKED_WANTED: Final = 64 << 20
"""Bytes: InfiniBand and its relatives lock what they send from."""
PROCESSES_WANTED: Final = 1024
"""Processes and threads of one user: libraries start one thread for each core, in each rank."""
SPACE_WANTED: Final = 64 << 20
SHARED_WANTED: Final = 64 << 20
SOCKET_PATH: Final = 108
"""Bytes of a Unix socket's name."""
NAME_ROOM: Final = 38
"""Of these, what MPI libraries and multiprocessing need below TMPDIR."""
SKEW: Final = 2.0
"""Seconds by which clocks may differ before times in logs mislead."""

_LIMIT_CHECKS: Final[Table] = (
    (lambda f: f.files < FILES_NEEDED, problem(
        LIMITS, "ulimit-files", "{who} may have {files} open files (ulimit -n). A controller or node leader needs "
        "more.", "{files_fix}")),
    (lambda f: FILES_NEEDED <= f.files < FILES_WANTED, warning(
        LIMITS, "ulimit-files", "{who} may have {files} open files (ulimit -n). That is little for many engines "
        "or files of your own.", "{files_fix}")),
    (lambda f: f.network and f.locked < LOCKED_WANTED, warning(
        LIMITS, "ulimit-locked", "{who} may lock {locked_size} of memory, too little for {network}.",
        "ulimit -l unlimited in the job script before the launcher; if that is refused, ask the administrators")),
    (lambda f: f.processes < PROCESSES_WANTED, warning(
        LIMITS, "ulimit-processes", "{who} may have {processes} processes and threads (ulimit -u).",
        "ulimit -u 4096, or fewer threads for each rank: export OMP_NUM_THREADS=1")),
    (lambda f: f.core > 0, note(
        LIMITS, "ulimit-core",
        "{who} may write core files {core_size}: a crash of many ranks fills the disk with their memory.",
        "ulimit -c 0, unless you want to debug")),
)  # fmt: skip

_SCRATCH_CHECKS: Final[Table] = (
    (lambda f: f.error, problem(
        SCRATCH, "tmpdir", "{who} cannot write in {folder} (TMPDIR): {error}.",
        "export TMPDIR=/tmp, before controller and engines start")),
    (lambda f: not f.error and f.length + NAME_ROOM > SOCKET_PATH, warning(
        SCRATCH, "tmpdir-length", "TMPDIR of {who} has {length} characters ({folder}): names of Unix sockets "
            "below it "
        f"would be longer than the {SOCKET_PATH} that are possible.",
        "export TMPDIR=/tmp (ipengine needs no such names, but MPI libraries and your own programs may)")),
    (lambda f: not f.error and f.free < SPACE_WANTED, warning(
        SCRATCH, "tmpdir-space", "{who} has {free_size} left in {folder} (TMPDIR).",
        "Remove what is old there, or export TMPDIR=FOLDER")),
    (lambda f: not f.error and f.shared < SHARED_WANTED, warning(
        SCRATCH, "shared-memory", "{who} has {shared_size} left in /dev/shm, by which MPI moves data inside a "
            "node.",
        "Remove what former jobs left there (ls -l /dev/shm); in a container: --shm-size=1g")),
)  # fmt: skip


def check_limits(who: str, machine: Machine) -> list[Diagnostic]:
    """Check ``ulimit``: open files, locked memory, processes, core files."""
    limits = {name: math.inf if most is None else most for name, most in machine.limits._asdict().items()}
    files, hard, core = machine.limits.files, machine.limits.files_hard, machine.limits.core
    possible = files is None or hard is None or hard > files
    return every(
        _LIMIT_CHECKS, **limits, who=who, network=machine.fast_network,
        files_fix=f"ulimit -n {min(hard or 4096, 4096)} before it is started" if possible else "Ask the "
            "administrators.",
        locked_size=size(machine.limits.locked or 0),
        core_size="of any size" if core is None else f"of up to {size(core)}",
    ) or [ok(LIMITS, "ulimit", f"{who}: open files, processes and core files are as they should be.")]  # fmt: skip


def check_scratch(who: str, machine: Machine) -> list[Diagnostic]:
    """Check TMPDIR: the length of its name, for sockets, and its free space."""
    folder, free, error, shared = machine.scratch
    room = "" if free is None else f", with {size(free)} left"
    return every(
        _SCRATCH_CHECKS, who=who, folder=folder, error=error, length=len(folder.encode()),
        free=math.inf if free is None else free, free_size=size(free or 0),
        shared=math.inf if shared is None else shared, shared_size=size(shared or 0),
    ) or [ok(SCRATCH, "tmpdir", f"{who} uses {folder}{room}.")]  # fmt: skip


def skew(clock: Clock) -> float:
    """Return by how many seconds at least this clock is ahead of ours (negative: behind)."""
    if clock.reading > clock.after:
        return clock.reading - clock.after
    return min(0.0, clock.reading - clock.before)


def check_clocks(clocks: Sequence[Clock]) -> list[Diagnostic]:
    """Compare the clocks of controller and engines with that of this machine."""
    wrong = [(clock.who, skew(clock)) for clock in clocks if abs(skew(clock)) >= SKEW]
    if clocks and not wrong:
        names = ", ".join(clock.who for clock in clocks)
        return [ok(CLOCKS, "clock", f"Clocks agree: {names}, and this machine.")]
    fix = (
        "Look at both with `date -u`; on the one that is wrong, switch on NTP (timedatectl set-ntp true), or tell "
        "the administrators."
    )
    return [
        warning(CLOCKS, "clock", f"The clock of {who} is {abs(seconds):.0f} s "
                f"{'ahead of' if seconds > 0 else 'behind'} this machine's: times in logs cannot be compared, "
                f"and a new "
                "certificate may look as if it were of the future.", fix)
        for who, seconds in wrong
    ]  # fmt: skip
