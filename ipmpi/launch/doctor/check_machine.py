"""Judge what the system allows a process: limits, temporary files, clocks (layer L4, no I/O)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .diagnostics import Diagnostic, note, ok, problem, size, warning
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


def check_limits(who: str, machine: Machine) -> list[Diagnostic]:
    """``ulimit``: open files, locked memory, processes, core files."""
    limits = machine.limits
    found = [*_files(who, machine)]
    if machine.fast_network and limits.locked is not None and limits.locked < LOCKED_WANTED:
        text = f"{who} may lock {size(limits.locked)} of memory, too little for {machine.fast_network}."
        fix = (
            "ulimit -l unlimited in the job script before the launcher; if that is refused, ask the administrators"
        )
        found.append(warning(LIMITS, "ulimit-locked", text, fix))
    if limits.processes is not None and limits.processes < PROCESSES_WANTED:
        text = f"{who} may have {limits.processes} processes and threads (ulimit -u)."
        fix = "ulimit -u 4096, or fewer threads for each rank: export OMP_NUM_THREADS=1"
        found.append(warning(LIMITS, "ulimit-processes", text, fix))
    if limits.core is None or limits.core > 0:
        most = "of any size" if limits.core is None else f"of up to {size(limits.core)}"
        text = f"{who} may write core files {most}: a crash of many ranks fills the disk with their memory."
        found.append(note(LIMITS, "ulimit-core", text, "ulimit -c 0, unless you want to debug"))
    if not found:
        found = [ok(LIMITS, "ulimit", f"{who}: open files, processes and core files are as they should be.")]
    return found


def _files(who: str, machine: Machine) -> list[Diagnostic]:
    files, hard = machine.limits.files, machine.limits.files_hard
    if files is None or files >= FILES_WANTED:
        return []
    text = f"{who} may have {files} open files (ulimit -n)."
    possible = hard is None or hard > files
    fix = f"ulimit -n {min(hard or 4096, 4096)} before it is started" if possible else "Ask the administrators."
    if files < FILES_NEEDED:
        return [problem(LIMITS, "ulimit-files", f"{text} A controller or node leader needs more.", fix)]
    return [warning(LIMITS, "ulimit-files", f"{text} That is little for many engines or files of your own.", fix)]


def check_scratch(who: str, machine: Machine) -> list[Diagnostic]:
    """TMPDIR: long enough names for sockets, and room."""
    scratch = machine.scratch
    if scratch.error:
        text = f"{who} cannot write in {scratch.folder} (TMPDIR): {scratch.error}."
        return [problem(SCRATCH, "tmpdir", text, "export TMPDIR=/tmp, before controller and engines start")]
    found = []
    length = len(scratch.folder.encode())
    if length + NAME_ROOM > SOCKET_PATH:
        text = (
            f"TMPDIR of {who} has {length} characters ({scratch.folder}): names of Unix sockets below it would be "
            f"longer than the {SOCKET_PATH} that are possible."
        )
        fix = "export TMPDIR=/tmp (ipengine needs no such names, but MPI libraries and your own programs may)"
        found.append(warning(SCRATCH, "tmpdir-length", text, fix))
    if scratch.free is not None and scratch.free < SPACE_WANTED:
        text = f"{who} has {size(scratch.free)} left in {scratch.folder} (TMPDIR)."
        found.append(warning(SCRATCH, "tmpdir-space", text, "Remove what is old there, or export TMPDIR=FOLDER"))
    if scratch.shared is not None and scratch.shared < SHARED_WANTED:
        text = f"{who} has {size(scratch.shared)} left in /dev/shm, by which MPI moves data inside a node."
        fix = "Remove what former jobs left there (ls -l /dev/shm); in a container: --shm-size=1g"
        found.append(warning(SCRATCH, "shared-memory", text, fix))
    if not found:
        room = "" if scratch.free is None else f", with {size(scratch.free)} left"
        found = [ok(SCRATCH, "tmpdir", f"{who} uses {scratch.folder}{room}.")]
    return found


def skew(clock: Clock) -> float:
    """By how many seconds at least this clock is ahead of ours (negative: behind)."""
    if clock.reading > clock.after:
        return clock.reading - clock.after
    return min(0.0, clock.reading - clock.before)


def check_clocks(clocks: Sequence[Clock]) -> list[Diagnostic]:
    """Controller and engines against this machine."""
    if not clocks:
        return []
    wrong = [(clock.who, skew(clock)) for clock in clocks if abs(skew(clock)) >= SKEW]
    if not wrong:
        names = ", ".join(clock.who for clock in clocks)
        return [ok(CLOCKS, "clock", f"Clocks agree: {names}, and this machine.")]
    fix = (
        "Look at both with `date -u`; on the one that is wrong, switch on NTP (timedatectl set-ntp true), or tell "
        "the administrators."
    )
    return [warning(CLOCKS, "clock", _wrong_clock(who, seconds), fix) for who, seconds in wrong]


def _wrong_clock(who: str, seconds: float) -> str:
    way = "ahead of" if seconds > 0 else "behind"
    return (
        f"The clock of {who} is {abs(seconds):.0f} s {way} this machine's: times in logs cannot be compared, and "
        "a new certificate may look as if it were of the future."
    )
