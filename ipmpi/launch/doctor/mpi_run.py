"""Starting a few ranks, and collecting their facts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.allocation import in_allocation, machines, without_rank
from ipmpi.launch.cluster.local import failure_by_chance
from ipmpi.launch.processes.mpi import MpiCommand, find_mpi, flavour_of, mpi_command
from ipmpi.launch.processes.process import session

from .facts import Launcher, MpiCheck, RankFacts
from .mpi_probe import MARK

PROBE_MODULE: Final = "ipmpi.launch.doctor.mpi_probe"
RANKS: Final = 2
TIMEOUT: Final = 60.0
"""Seconds: imports by many ranks at once are slow on a shared file system."""
_POLITE: Final = 3.0


def find_launcher(chosen: str) -> Launcher | None:
    """Return the launcher that the user named, perhaps with options, or the one that ipcluster would use.

    Raises:
        LauncherError: the named one cannot be run.
    """
    if not chosen:
        found = find_mpi()
        return None if found is None else Launcher((found.executable,), found.flavour)
    try:
        words = shlex.split(chosen)
    except ValueError as error:
        raise LauncherError(f"--launcher {chosen}: {error}") from None
    executable = shutil.which(os.path.expanduser(words[0])) if words else None
    if executable is None:
        raise LauncherError(f"--launcher {chosen}: there is no such program")
    by_slurm = os.path.basename(executable) == "srun"
    return Launcher((executable, *words[1:]), "srun" if by_slurm else flavour_of(executable), chosen=True)


def mpi_check_command(launcher: Launcher, python: str, environ: Mapping[str, str], root: bool) -> MpiCommand:
    """Return the command that starts the ranks, with the options of ipcluster or of the user."""
    program = [python, "-m", PROBE_MODULE, "--die"]
    if launcher.flavour == "srun":
        # Else Slurm may be set up to end all ranks when one dies, or a minute after the first.
        options = ["--kill-on-bad-exit=0", "--wait=0", "-n", str(RANKS)]
        return MpiCommand([*launcher.words, *options, *program], {})
    if len(launcher.words) > 1:
        allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} if root else {}
        return MpiCommand([*launcher.words, "-n", str(RANKS), *program], allowed)
    return mpi_command(
        RANKS, launcher=launcher.words[0], program=program, flavour=launcher.flavour, root=root,
        single_host=machines(environ) == 1,
    )  # fmt: skip


def run_mpi_check(
    launcher: Launcher,
    environ: Mapping[str, str],
    python: str = sys.executable,
    timeout: float = TIMEOUT,
) -> MpiCheck:
    """Start two ranks, of which one dies, and return the facts.

    A launcher with a transient failure is started again, as by ipcluster.
    """
    check = _run_once(launcher, environ, python, timeout)
    again = not check.ranks and failure_by_chance(check.output)
    return _run_once(launcher, environ, python, timeout) if again else check


def _run_once(launcher: Launcher, environ: Mapping[str, str], python: str, timeout: float) -> MpiCheck:
    environ = without_rank(environ)
    command = mpi_check_command(launcher, python, environ, os.geteuid() == 0)
    nodes = machines(environ) if in_allocation(environ) else 0
    started = time.time()
    try:
        process = subprocess.Popen(
            command.argv,
            env={**command.environ, **_TELL_TRANSPORT, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return MpiCheck(launcher, RANKS, python, not_started=error.strerror or str(error), machines=nodes)
    code: int | None = None
    try:
        output, _ = process.communicate(timeout=timeout)
        code = process.returncode
    except subprocess.TimeoutExpired:
        _end(process)
        output, _ = process.communicate()
    except BaseException:
        _end(process)
        raise
    told, said = parse_told(output.decode(errors="replace"))
    transport, said = parse_transport(said)
    ranks, outlived, raised = understand(told)
    # The time after that was for the test of a rank's death.
    ready = max((float(facts.get("at", 0)) for facts in told if "size" in facts), default=time.time())
    return MpiCheck(
        launcher, RANKS, python, code, max(0.0, ready - started), ranks, outlived, raised, tuple(said[-15:]),
        transport=transport, machines=nodes,
    )  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a launcher by SIGTERM, as a killed srun keeps its allocation; then kill it and its ranks."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_POLITE)
    for member in [process.pid, *(found.pid for found in session(process.pid) if found.pid != process.pid)]:
        with contextlib.suppress(OSError):
            os.kill(member, signal.SIGKILL)


def parse_told(output: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the facts of the ranks, and the other lines of output."""
    told: list[dict[str, Any]] = []
    said: list[str] = []
    for line in output.splitlines():
        before, mark, rest = line.partition(MARK)
        if not mark:
            said += [line.strip()[:300]] if line.strip() else []
            continue
        with contextlib.suppress(ValueError):
            facts = json.loads(rest)
            if isinstance(facts, dict) and isinstance(facts.get("pid"), int):
                told.append(facts)
        said += [before.strip()] if before.strip() else []
    return told, said


_TELL_TRANSPORT: Final = {"OMPI_MCA_pml_base_verbose": "10", "OMPI_MCA_mtl_base_verbose": "10"}
"""Makes Open MPI print its choice; there is no other way to find it out."""

_VERBOSE: Final = re.compile(r"\[[^\]\s]+:\d+\] (mca:|select|check:|\S*_component|close:|open:)")


def parse_transport(said: Sequence[str]) -> tuple[str, list[str]]:
    """Return Open MPI's transport between ranks, from its output, and the other lines."""
    text = "\n".join(line for line in said if _VERBOSE.match(line))
    chosen = re.search(r"\bselected (\w+) best priority", text)
    below = re.search(r"\(\s*mtl\) Selected component \[(\w+)\]", text)
    transport = chosen[1] if chosen is not None else ""
    if transport == "cm" and below is not None:
        transport += f"/{below[1]}"
    return transport, [line for line in said if not _VERBOSE.match(line)]


def understand(told: Sequence[Mapping[str, Any]]) -> tuple[tuple[RankFacts, ...], bool | None, str]:
    """Return the ranks, whether rank 0 survived the other (None: not tried), and its MPI error."""
    ranks: dict[tuple[str, int], dict[str, Any]] = {}
    ends: dict[str, Any] = {}
    for facts in told:
        rank = ranks.setdefault((str(facts.get("host", "")), facts["pid"]), {})
        rank.update({name: value for name, value in facts.items() if name in RankFacts.__dataclass_fields__})
        ends.update({name: value for name, value in facts.items() if name in ("outlived", "raised")})
    found = tuple(RankFacts(**rank) for rank in ranks.values())
    tried = sum(1 for rank in found if rank.size > 1) > 1
    return found, bool(ends.get("outlived")) if tried else None, str(ends.get("raised", ""))
