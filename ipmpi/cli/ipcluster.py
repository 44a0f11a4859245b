"""``ipcluster``: finds the module of a sub-command and runs it.

Each sub-command is in a module with ``parser()`` and ``main(words)``; in one that serves several, both take the
command's name first. They are loaded by name, so that ``ipcluster list`` does not load what only ``ipcluster
slurm`` needs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ipmpi.errors import KernelError, LauncherError
from ipmpi.launch.batch.registry import batch_systems


class Command(NamedTuple):
    """A sub-command: its module, its purpose, and whether the module has others."""

    module: str
    purpose: str
    shared: bool = False


COMMANDS: Final[Mapping[str, Command]] = {
    "local": Command("local", "engines on this machine, as ranks of one MPI job (also without this word)", True),
    "mpiexec": Command("local", "the same", True),
    "mpirun": Command("local", "the same", True),
    "ssh": Command("ssh", "engines on other machines, through ssh"),
    "list": Command("manage", "the clusters that run", True),
    "status": Command("manage", "engines, jobs and time left of a cluster", True),
    "stop": Command("manage", "stop a cluster", True),
    "restart": Command("restart", "a new controller for a cluster; engines and clients go on"),
    "engines": Command("engines", "add engines to a running cluster"),
    "logs": Command("manage", "what a cluster's processes wrote", True),
    "share": Command("sharing", "a furl for a colleague, which ends by itself", True),
    "revoke": Command("sharing", "end furls that were shared", True),
    "rotate": Command("sharing", "new secrets in all furl files", True),
    "admit": Command("sharing", "engines that wait to be admitted", True),
    "where": Command("where", "in which line each engine is, also of engines that hang"),
    "debug": Command("debug", "an editor such as VS Code connected to a rank, for breakpoints and variables"),
    "explain": Command("explain", "why a job waits, which ranks are missing, what failed"),
    "tasks": Command("tasks", "tasks of clients that are gone: list, show, cancel them, fetch their results"),
    "kernel": Command("kernel", "a kernel for JupyterLab and VS Code whose cells run on all ranks"),
    "completion": Command("completion", "command lines completed by the Tab key, in bash, zsh and tcsh"),
    "pack": Command("pack", "the environment in one file, from which jobs copy it to their nodes"),
    "doctor": Command("doctor", "check MPI, network, files and limits, before and after the start"),
}
"""Batch systems are commands too, see :func:`commands`."""

HIDDEN: Final[Mapping[str, Command]] = {
    "relay": Command("relay", "the far end of an ssh session"),
    "follow": Command("manage", "what a detached cluster tells, for the near end", True),
}


def commands() -> dict[str, Command]:
    """All sub-commands, batch systems of plug-ins included."""
    batch = {
        name: Command("batch", f"a controller here, and engines in a job of {system.title}", True)
        for name, system in batch_systems().items()
    }
    local = {name: command for name, command in COMMANDS.items() if command.module == "local"}
    return {**local, **batch, **COMMANDS}


def function_of(command: str, function: str) -> Callable[..., Any]:
    """A function of a sub-command's module.

    Raises:
        LauncherError: there is no such command, or its module is missing.
    """
    found = HIDDEN.get(command) or COMMANDS.get(command) or commands().get(command)
    if found is None:
        raise LauncherError(f"{command[:80]!r} is no command. There are: {', '.join(commands())}")
    name = f"ipmpi.cli.{found.module}"
    try:
        called: Callable[..., Any] = getattr(importlib.import_module(name), function)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise LauncherError(f"'ipcluster {command}' is not in this build of ipmpi") from None
    return functools.partial(called, command) if found.shared else called


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The sub-command and its arguments: ``-n 4`` alone means ``local``."""
    if not words or words[0].startswith("-"):
        return "local", list(words)
    return words[0], list(words[1:])


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The command line of each sub-command that is in this build."""
    found = {}
    for command in commands():
        with contextlib.suppress(LauncherError, AttributeError):
            found[command] = function_of(command, "parser")()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``ipcluster``; returns its exit code."""
    if sys.platform == "win32":
        return _complain("ipcluster runs on Linux and macOS. On Windows, use it inside WSL.")
    words = sys.argv[1:] if arguments is None else list(arguments)
    command, rest = split(words)
    try:
        if words[:1] in (["-h"], ["--help"]):
            print(_overview())
        code: int = function_of(command, "main")(rest)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # `ipcluster logs | head`: the reader has ended. Keep Python from flushing again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KernelError as error:
        return _complain(str(error))


def _overview() -> str:
    lines = [f"  {name:10s} {command.purpose}" for name, command in commands().items()]
    return "\n".join(
        ["usage: ipcluster [COMMAND] [options]", "", *lines, "", "ipcluster COMMAND --help tells more.", ""]
    )


def _complain(text: str) -> int:
    print(f"ipcluster: {text}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
