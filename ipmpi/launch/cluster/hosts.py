"""Engines on other machines, each started by ssh.

Each host runs ``ipcluster engines --furl-file -``. The furl is sent as a line of standard input, since command
lines are public. When ssh ends, the remote standard input is closed, and the engines end.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ipmpi.errors import LauncherError
from ipmpi.furl import load
from ipmpi.launch.cluster.local import Processes
from ipmpi.launch.processes.process import ChildProcess
from ipmpi.limits import MAX_ENGINES
from ipmpi.transport.ssh.sshprocess import ssh_command

_HOST: Final = re.compile(r"(?:[\w.-]+@)?[\w][\w.-]*")
_AS_PYTHON: Final = "engines = {'host1': 2, 'host2': 4}"


@dataclass(frozen=True)
class HostOptions:
    """The engines of each host.

    Attributes:
        hosts: number of engines by ssh destination.
        log_dir: folder of log files, on this machine.
        run: a unique part of their names.
        engine_furl_file: the engines' furl, on this machine.
        mpi: ``auto``, ``mpi4py`` or ``none``; with MPI the engines of each host are a set.
        remote: the shell command for ipcluster there.
        timeout: seconds in which all have to be registered.
        arguments: further arguments of ``ipcluster engines``.
    """

    hosts: Mapping[str, int]
    log_dir: Path
    run: str
    engine_furl_file: Path
    mpi: str = "auto"
    remote: str = "ipcluster"
    timeout: float = 60.0
    arguments: tuple[str, ...] = ()


class HostEngines(Processes):
    """Engines on other machines."""

    def __init__(self, options: HostOptions) -> None:
        super().__init__(sum(options.hosts.values()), options.log_dir, options.run, waits=True)
        self.options = options

    def check(self) -> None:
        """Do nothing: problems of ssh show when it is started."""

    def start(self, why: str = "") -> None:  # noqa: ARG002 - these are started once
        """Start one ssh for each host."""
        furl = str(load(self.options.engine_furl_file, "engine")).encode()
        for host, count in self.options.hosts.items():
            argv = engines_argv(self.options, host, count, os.environ)
            try:
                child = ChildProcess.start(f"ssh {host}", argv, self.output, os.environ, first_line=furl)
            except OSError as error:
                raise LauncherError(f"{argv[0]} could not be started: {error}") from error
            self.started.append(child)

    def said(self) -> list[str]:
        """Return lines with hosts and process ids."""
        pids = [child.pid for child in self.started]
        where = ", ".join(f"{count} on {host}" for host, count in self.options.hosts.items())
        return [f"Starting engines:    {where}; PIDs of ssh: {pids}"]


def engines_argv(options: HostOptions, host: str, count: int, environ: Mapping[str, str]) -> list[str]:
    """Return the command line for one host."""
    # There is no terminal for a password prompt.
    quiet = ["-T", "-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ServerAliveInterval=15"]
    far = f"{options.remote} engines -n {count} --furl-file - --mpi {options.mpi} --timeout {options.timeout:g}"
    return ssh_command(environ, quiet, host, " ".join([far, *map(shlex.quote, options.arguments)]))


def read_hosts(text: str) -> dict[str, int]:
    """Parse hosts from the command line: ``h1:2,user@h2``.

    Raises:
        LauncherError: the syntax is wrong.
    """
    hosts: dict[str, int] = {}
    for part in text.split(","):
        host, _, number = part.strip().partition(":")
        _add(hosts, host, number or "1")
    return hosts


def read_clusterfile(path: Path) -> dict[str, int]:
    """Read hosts from a file: TOML, or Python assignments as for the original, which are parsed, never run.

    Raises:
        LauncherError: it cannot be read or parsed.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LauncherError(f"{path} cannot be read: {error}") from error
    told = _of_python(text)
    if told is None:
        told = _of_toml(path, text)
    engines = told.get("engines")
    if not isinstance(engines, dict) or not engines:
        raise LauncherError(f"{path} names no engines. It should have, for example: {_AS_PYTHON}")
    hosts: dict[str, int] = {}
    for host, number in engines.items():
        _add(hosts, str(host), str(number))
    return hosts


def _add(hosts: dict[str, int], host: str, number: str) -> None:
    if not _HOST.fullmatch(host):
        raise LauncherError(f"{host!r} is no name of a host; write HOST:ENGINES,HOST:ENGINES, as in h1:2,me@h2:4")
    if not number.isdigit() or not 1 <= int(number) <= MAX_ENGINES:
        raise LauncherError(f"{number!r} is not a number of engines for {host} (1 to {MAX_ENGINES})")
    if host in hosts:
        raise LauncherError(f"{host} is there twice; name it once, with all its engines")
    hosts[host] = int(number)


def _of_python(text: str) -> dict[str, Any] | None:
    """Return the assigned literals; None if it is not Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    if any(isinstance(node, ast.Expr) and isinstance(node.value, ast.List) for node in tree.body):
        return None  # the head of a table: this is TOML
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except (ValueError, SyntaxError, TypeError):
                continue  # not a literal
    return found


def _of_toml(path: Path, text: str) -> dict[str, Any]:
    if sys.version_info < (3, 11):
        raise LauncherError(f"{path} is TOML, which needs Python 3.11. This works too: {_AS_PYTHON}")
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LauncherError(f"{path} is neither TOML nor Python: {error}. For example: {_AS_PYTHON}") from error
