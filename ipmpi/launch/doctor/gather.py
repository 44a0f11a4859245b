"""Collecting facts about this machine, and parsing those of engines."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import secrets
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ipmpi.errors import KernelError
from ipmpi.furl import FILES, Furl, load

from . import engine_info as engine_info_source
from .check_mpi import parse_mpi_list
from .engine_info import engine_info
from .facts import Clock, EngineFacts, FolderFacts, FurlFileFacts, Limits, Machine, Scratch, Versions

MARK: Final = "ipmpi-engine-info "
SRUN_TIMEOUT: Final = 10.0

# --- files -------------------------------------------------------------------------------------------------


def look_at_folder(path: Path) -> FolderFacts:
    """Return the facts about a folder of ipmpi."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        there = next((parent for parent in path.parents if parent.exists()), Path("/"))
        error = "" if os.access(there, os.W_OK | os.X_OK) else f"nothing can be written in {there}"
        return FolderFacts(str(path), "missing", error=error)
    except OSError as error:
        return FolderFacts(str(path), "missing", error=error.strerror or str(error))
    kind = _kind(status.st_mode)
    error_text = ""
    if kind == "folder" and status.st_uid == os.geteuid():
        name = path / f".ipmpi-doctor-{secrets.token_hex(8)}"
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            name.unlink()
        except OSError as error:
            error_text = error.strerror or str(error)
    return FolderFacts(str(path), kind, stat.S_IMODE(status.st_mode), status.st_uid, error_text)


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "other"


def look_at_furl_file(path: Path, role: str) -> FurlFileFacts:
    """Return the facts about a furl file, without following links."""
    try:
        status = path.lstat()
    except OSError:
        return FurlFileFacts(str(path), role, "missing")
    furl: Furl | None = None
    error_text = ""
    try:
        furl = load(path, role)
    except KernelError as error:
        error_text = str(error).removeprefix(f"{path}: ")
    mode = stat.S_IMODE(status.st_mode)
    kind = _kind(status.st_mode)
    return FurlFileFacts(str(path), role, kind, mode, status.st_uid, status.st_nlink, furl, error_text)


def look_at_furl_files(folder: Path) -> list[FurlFileFacts]:
    """Return the facts about the furl file of each role."""
    return [look_at_furl_file(folder / name, role) for role, name in FILES.items()]


@contextlib.contextmanager
def token_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Write a random text to a file in ``folder``; yield its name and the text, both '' on failure."""
    name, token = f".ipmpi-doctor-{secrets.token_hex(8)}", secrets.token_hex(16)
    path = folder / name
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        yield "", ""
        return
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(token)
        yield name, token
    finally:
        path.unlink(missing_ok=True)


# --- processes ---------------------------------------------------------------------------------------------


def machine_of(told: Mapping[str, Any]) -> Machine:
    """Return the machine of an :func:`engine_info`."""
    return Machine(
        host=str(told["host"]),
        cores=int(told["cores"]),
        all_cores=int(told["all_cores"]),
        threads=str(told["threads"]),
        limits=Limits(**told["limits"]),
        scratch=Scratch(**told["scratch"]),
        fast_network=str(told["fast_network"]),
    )


def this_process() -> tuple[Machine, Versions]:
    """Return the facts about this process and its machine."""
    told = engine_info()
    return machine_of(told), Versions(**told["versions"])


def engine_info_command(token_file: str) -> str:
    """Return source text that prints an :func:`engine_info`, and defines no names."""
    source = inspect.getsource(engine_info_source)
    source += f"\nimport json\nprint({MARK!r} + json.dumps(engine_info({token_file!r})))\n"
    return f"# ipcluster doctor\nexec({source!r}, {{'__name__': 'ipmpi_doctor'}})"


def parse_engine_info(engine: int, printed: str, before: float, after: float) -> EngineFacts | None:
    """Parse the output of an engine; None if it is something else."""
    _, mark, rest = printed.partition(MARK)
    try:
        told = json.loads(rest.splitlines()[0]) if mark else {}
        return EngineFacts(
            id=engine,
            machine=machine_of(told),
            versions=Versions(**told["versions"]),
            python=str(told["python"]),
            clock=Clock(f"engine {engine} on {told['host']}", before, float(told["time"]), after),
            token=str(told["token"]),
            folder=str(told["folder"]),
            library=str(told["library"]),
            thread_level=str(told["thread_level"]),
            unwritable={str(folder): str(why) for folder, why in told.get("unwritable", {}).items()},
        )
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def srun_kinds(environ: Mapping[str, str]) -> tuple[list[str], str] | None:
    """Return the kinds in ``srun --mpi=list``, and its other output; None without an srun."""
    program = shutil.which("srun", path=environ.get("PATH"))
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "--mpi=list"],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SRUN_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [], f"no answer in {SRUN_TIMEOUT:g} s"
    except OSError as error:
        return [], error.strerror or str(error)
    text = done.stdout + done.stderr
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return parse_mpi_list(text), said[-1][:200] if said else ""
