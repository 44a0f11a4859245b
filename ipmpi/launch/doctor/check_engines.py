"""Compare engines with the client and with each other (no I/O)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from ipmpi.ranges import engines_named

from .check_machine import LIMITS, check_limits, check_scratch
from .diagnostics import Diagnostic, Level, Table, always, first, note, ok, problem, warning
from .facts import Clock, EngineFacts, Machine, Versions

VERSIONS: Final = "Versions"
THREADS: Final = "Threads and cores"
FILES: Final = "Shared files"
ENGINES: Final = "Engines"


def _grouped(engines: Iterable[EngineFacts], key: Callable[[EngineFacts], str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for engine in engines:
        groups.setdefault(key(engine), []).append(engine.id)
    return groups


# --- versions ----------------------------------------------------------------------------------------------


_HAVE: Final = "{who} {have} {title} {theirs}, this client has {shown}."
_CHECK: Final = "version-{package}"
_SAME_RELEASE: Final = (
    "Use one release everywhere: pip install 'ipmpi=={ours}', and start controller and engines again."
)
_PICKLING: Final = ("numpy", "cloudpickle")

_VERSION_CHECKS: Final[Table] = (
    (lambda f: f.theirs == f.ours or f.package == "mpi4py", None),
    (lambda f: not f.theirs and f.package in _PICKLING, problem(
        VERSIONS, _CHECK, "{who} {have} no {title}: {lost} cannot be sent there.",
        "pip install {package} in the environment of the engines")),
    (lambda f: not f.theirs, None),
    (lambda f: f.package == "python" and _part(f.ours, 2) != _part(f.theirs, 2), problem(
        VERSIONS, _CHECK, f"{_HAVE} Functions that are defined in a session travel as bytecode, which differs "
            f"from one "
        "Python to the next.", "Use Python {our_minor} for the engines, or {their_minor} here. Source text works "
        "meanwhile: execute, run, StringTask.")),
    (lambda f: f.package == "ipmpi", warning(VERSIONS, _CHECK, _HAVE, _SAME_RELEASE)),
    (lambda f: f.package in _PICKLING and _part(f.ours, 1) != _part(f.theirs, 1), warning(
        VERSIONS, _CHECK, f"{_HAVE} What one pickles, the other may be unable to load.",
        "Use the same major version on both sides: pip install '{package}=={our_major}.*'")),
    (always, note(VERSIONS, _CHECK, _HAVE)),
)  # fmt: skip


def check_versions(client: Versions, controller: str, engines: Sequence[EngineFacts]) -> list[Diagnostic]:
    """Compare Python and packages of engines with the client's, and the controller's release ("": unknown)."""
    found: list[Diagnostic] = []
    if controller != client.ipmpi:
        text = f"The controller has ipmpi {controller or 'of an older release'}, this client has {client.ipmpi}."
        found.append(warning(VERSIONS, "version-ipmpi", text, _SAME_RELEASE.format(ours=client.ipmpi)))
    for package, ours in client._asdict().items():
        for theirs, ids in _grouped(engines, lambda engine, p=package: getattr(engine.versions, p)).items():  # type: ignore[misc]
            found += first(
                _VERSION_CHECKS, package=package, title=_title(package), ours=ours, theirs=theirs,
                shown=ours or "none", who=_who(ids), have="has" if len(ids) == 1 else "have",
                lost="arrays" if package == "numpy" else "functions",
                our_major=_part(ours, 1), our_minor=_part(ours, 2), their_minor=_part(theirs, 2),
            )  # fmt: skip
    if engines and not found:
        same = ", ".join(f"{_title(name)} {value}" for name, value in client._asdict().items() if value)
        found = [ok(VERSIONS, "version", f"Client, controller and engines agree: {same}.")]
    return found


def _title(package: str) -> str:
    return "Python" if package == "python" else package


def _part(version: str, count: int) -> str:
    return ".".join(version.split(".")[:count])


# --- threads -----------------------------------------------------------------------------------------------


_THREADS: Final = "{host}: {ranks_text} on {cores_text}, OMP_NUM_THREADS is {told}"
_THREAD_CHECKS: Final[Table] = (
    (lambda f: f.wanted > f.cores and f.wanted > f.ranks, warning(
        THREADS, "threads", f"{_THREADS}: numerical libraries may start {{wanted}} threads there.",
        "export OMP_NUM_THREADS={fitting} before the engines start")),
    (lambda f: f.ranks > f.cores, note(
        THREADS, "threads", f"{_THREADS}: more engines than cores.",
        "Fewer engines for each node, if they compute at the same time.")),
    (lambda f: f.wanted * 2 <= f.cores and f.told != "unset", note(
        THREADS, "threads", f"{_THREADS}: {{wanted}} of the {{cores}} cores are used.",
        "If your libraries use threads: export OMP_NUM_THREADS={fitting}")),
    (always, ok(THREADS, "threads", f"{_THREADS}.")),
)  # fmt: skip


def check_threads(engines: Sequence[EngineFacts]) -> list[Diagnostic]:
    """Compare OMP_NUM_THREADS with the cores of each rank."""
    hosts: dict[str, list[Machine]] = {}
    for engine in engines:
        hosts.setdefault(engine.machine.host, []).append(engine.machine)
    found: dict[Level, Diagnostic] = {}
    for host, here in hosts.items():
        ranks, cores = len(here), max(machine.all_cores for machine in here)
        (said,) = first(
            _THREAD_CHECKS, host=host, ranks=ranks, cores=cores, wanted=sum(map(threads_of, here)),
            fitting=max(1, cores // ranks),
            told=" or ".join(sorted({machine.threads or "unset" for machine in here})),
            ranks_text=_count(ranks, "engine"), cores_text=_count(cores, "core"),
        )  # fmt: skip
        found.setdefault(said.level, said)  # a thousand equal nodes are one diagnostic
    return list(found.values())


def clocks_by_host(engines: Sequence[EngineFacts]) -> list[Clock]:
    """Return one clock for each machine: that of the engine with the fastest reply, the most exact one."""
    best: dict[str, Clock] = {}
    for engine in engines:
        host, clock = engine.machine.host, engine.clock
        known = best.get(host)
        if known is None or clock.after - clock.before < known.after - known.before:
            best[host] = clock
    return list(best.values())


def check_own_threads(machine: Machine) -> list[Diagnostic]:
    """Check the threads of engines that will be started from here."""
    if machine.threads or machine.all_cores == 1:
        return []
    text = f"OMP_NUM_THREADS is not set here: each engine may start up to {_count(machine.cores, 'thread')}."
    fix = "With one engine for each core: export OMP_NUM_THREADS=1 (our job scripts set it)"
    return [note(THREADS, "threads", text, fix)]


def threads_of(machine: Machine) -> int:
    """Return how many threads an OpenMP library starts in such a process."""
    first = machine.threads.split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) else machine.cores


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


# --- files, MPI, and who answers -----------------------------------------------------------------------------


def check_shared_files(token: str, folder: str, engines: Sequence[EngineFacts]) -> list[Diagnostic]:
    """Check whether engines share the client's folder of ipmpi.

    Args:
        token: the text that the client wrote to a file there; '' if it could not.
        folder: the client's ``~/.ipython``.
        engines: the engines that replied.
    """
    if not engines or not token:
        return []
    without = [engine for engine in engines if engine.token != token]
    if not without:
        return [ok(FILES, "shared-files", f"Engines and this client share {folder}.")]
    ids = [engine.id for engine in without]
    elsewhere = sorted({engine.folder for engine in without if engine.folder != folder})
    who = _who(ids)
    text = f"{who} {'does' if len(ids) == 1 else 'do'} not see {folder} of this machine"
    text += f" (there: {', '.join(elsewhere)})." if elsewhere else "."
    fix = (
        "Nothing, if engines run on another system than this client: send data by push, not by file name. Engines "
        "that start there need their own copy of ipcontroller-engine.furl (mode 600)."
    )
    return [note(FILES, "shared-files", text, fix)]


def check_writing(engines: Sequence[EngineFacts]) -> list[Diagnostic]:
    """Check whether engines can write to the log folder, and to their current folder."""
    folders: dict[tuple[str, str], list[int]] = {}
    for engine in engines:
        for place in engine.unwritable.items():
            folders.setdefault(place, []).append(engine.id)
    if not folders:
        where = "their folder of log files, and in the one in which they run"
        return [ok(FILES, "writable", f"Engines can write in {where}.")] if engines else []
    fix = (
        "Compute nodes of some sites have home folders read-only: export IPYTHONDIR=/scratch/$USER/ipython for "
        "controller, engines and clients alike, or give ipcluster --logdir DIR; submit jobs from such a folder."
    )
    return [
        warning(FILES, "writable", f"{_who(ids)} cannot write in {folder}: {why}.", fix)
        for (folder, why), ids in folders.items()
    ]


def check_engine_machines(engines: Sequence[EngineFacts]) -> list[Diagnostic]:
    """Check limits and temporary files of engines; equal diagnostics are merged."""
    placeholder = "\0"
    found: dict[tuple[str, Level], tuple[Diagnostic, list[EngineFacts]]] = {}
    for engine in engines:
        for diagnostic in check_limits(placeholder, engine.machine) + check_scratch(placeholder, engine.machine):
            if diagnostic.level is not Level.OK:
                found.setdefault((diagnostic.check, diagnostic.level), (diagnostic, []))[1].append(engine)
    if engines and not found:
        who = _who([engine.id for engine in engines])
        return [ok(LIMITS, "engine-limits", f"{who}: limits and temporary files are as they should be.")]
    return [
        diagnostic._replace(text=_first_upper(diagnostic.text.replace(placeholder, _on_hosts(those))))
        for diagnostic, those in found.values()
    ]


def _on_hosts(engines: Sequence[EngineFacts]) -> str:
    hosts = list(dict.fromkeys(engine.machine.host for engine in engines))
    more = f" and {len(hosts) - 3} more hosts" if len(hosts) > 3 else ""
    ids = [engine.id for engine in engines]
    each = "each of " if len(ids) > 1 else ""
    return f"{each}{engines_named(ids)} on {', '.join(hosts[:3])}{more}"


def _who(ids: Sequence[int]) -> str:
    return _first_upper(engines_named(ids))


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def check_libraries(engines: Sequence[EngineFacts]) -> list[Diagnostic]:
    """Check MPI library and thread level of the engines that have joined a communicator."""
    joined = [engine for engine in engines if engine.library]
    found: list[Diagnostic] = []
    for library, ids in _grouped(joined, lambda engine: engine.library).items():
        found.append(ok(ENGINES, "engines-mpi", f"{_who(ids)}: {library}."))
    low = [engine.id for engine in joined if engine.thread_level not in ("", "multiple")]
    if low:
        text = f"{_who(low)}: MPI gives less than MPI_THREAD_MULTIPLE."
        found.append(note(ENGINES, "thread-level", text, THREAD_LEVEL_FIX))
    if len({engine.library for engine in joined}) > 1:
        fix = "Two sets with MPI libraries of their own are fine; within one set it would be a mistake."
        found.append(note(ENGINES, "engines-mpi-differ", "Engines use different MPI libraries.", fix))
    return found


THREAD_LEVEL_FIX: Final = (
    "ipmpi needs no more; it matters to code that calls MPI in several threads. To get the full level, "
    "unset MPI4PY_RC_THREAD_LEVEL and MPI4PY_RC_THREADS; on Cray: export MPICH_MAX_THREAD_SAFETY=multiple"
)


def check_presence(
    registered: Sequence[int], answered: Sequence[int], silent: Mapping[int, str]
) -> list[Diagnostic]:
    """Check which engines are registered, and which were too busy to reply.

    Args:
        registered: ids of all engines.
        answered: ids of those that have replied.
        silent: ids of the others, and what each runs ('' if unknown).
    """
    if not registered:
        fix = "Start some: ipcluster engines -n 4, or a job script; `ipcluster explain` says what a job waits for"
        return [note(ENGINES, "engines", "A controller runs, and no engine is registered.", fix)]
    found = []
    if answered:
        found.append(ok(ENGINES, "engines", f"{_count(len(registered), 'engine')} registered, "
                        f"{len(answered)} answered."))  # fmt: skip
    works: dict[str, list[int]] = {}
    for engine, work in silent.items():
        works.setdefault(work, []).append(engine)
    for work, ids in works.items():
        doing = f"busy with {work}" if work else "busy, or cannot be reached"
        text = f"{_who(ids)} did not answer in time: {doing}. Nothing is known about it."
        fix = "Ask again later, or wait longer: ipcluster doctor --timeout 60"
        found.append(note(ENGINES, "engines-busy", text, fix))
    return found
