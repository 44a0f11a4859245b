"""Start the measurement of other systems, each in processes of its own, with a limit of time."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from ipmpi.bench.figures import Figure
from ipmpi.errors import LauncherError
from ipmpi.launch.batch.allocation import machines
from ipmpi.launch.processes.mpi import mpi_command
from ipmpi.launch.processes.process import tail

from .processes import with_mark

SYSTEM_MODULE: Final = "benchmarks.systems"
PACKAGES: Final = {"mpi4py.futures": "mpi4py", "dask.distributed": "distributed", "ipyparallel": "ipyparallel"}
"""Names of other systems, and the package that has to be installed."""
LIMIT: Final = 90.0
MARK: Final = "IPMPI_BENCHMARK"
"""Variable in the environment of all that such a system starts: some of it leaves the session and the group."""


class BaselineFailed(Exception):
    """Another system could not be measured."""


def installed() -> list[str]:
    """Those that this Python has."""
    return [name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is not None]


def measure(name: str, parts: list[str], engines: int, size: int, repeat: int) -> list[Figure]:
    """The figures of one of them.

    Raises:
        BaselineFailed: it is not installed as it has to be, failed, or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="ipmpi-benchmark-") as folder:
        answer, output = Path(folder, "figures.json"), Path(folder, "output")
        arguments = [SYSTEM_MODULE, name, "-n", str(engines), "--size", str(size)]
        arguments += ["--repeat", str(repeat), "--json", str(answer), *parts]
        argv, extra = _command(name, engines, arguments)
        above = str(Path(__file__).parents[1])
        environ = {**extra, **os.environ, "IPYTHONDIR": folder, MARK: folder}
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [above, os.environ.get("PYTHONPATH", "")]))
        code = _run(argv, environ, output)
        try:
            found = json.loads(answer.read_text())
        except (OSError, ValueError):
            how = f"was given up after {LIMIT:g} s" if code is None else f"ended with exit code {code}"
            raise BaselineFailed(
                "\n".join([f"{name} {how}.", *(f"    {line}" for line in tail(output, 6))])
            ) from None
    return [Figure(**{**each, "system": name}) for each in found]


def _command(name: str, engines: int, arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    if name != "mpi4py.futures":
        return [sys.executable, "-m", *arguments], {}
    program = [sys.executable, "-m", "mpi4py.futures", "-m", *arguments]
    single_host = machines(os.environ) == 1
    try:  # one rank more: the first one is the client
        return mpi_command(engines + 1, program=program, root=os.geteuid() == 0, single_host=single_host)
    except LauncherError as error:
        raise BaselineFailed(f"{name}: {error}") from error


def _run(argv: list[str], environ: dict[str, str], output: Path) -> int | None:
    """The exit code; None if it had to be ended."""
    with output.open("wb") as stream:
        process = subprocess.Popen(
            argv, env=environ, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        return process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            process.terminate()  # mpiexec ends its ranks then
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        for folder in with_mark(f"{MARK}={environ[MARK]}"):
            with contextlib.suppress(OSError):  # it may end in this moment
                os.kill(int(folder.name), signal.SIGKILL)
        process.wait()
