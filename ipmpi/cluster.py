"""Starting clusters from Python: ``ipmpi.Cluster`` runs the command ``ipcluster``."""

from __future__ import annotations

import logging
import math
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from ipmpi import limits
from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.client.session import given
from ipmpi.errors import LauncherError
from ipmpi.furl import ipython_dir
from ipmpi.launch.batch.registry import batch_systems
from ipmpi.launch.cluster.follow import Followed
from ipmpi.launch.processes.process import tail

log = logging.getLogger("ipmpi")

STOPPING: Final = 60.0
"""Seconds in which a cluster has to end by itself. Cancelling a job may take a batch system most of them."""

INSISTING: Final = 15.0
"""Additional seconds after SIGTERM, upon which ``ipcluster`` ends without waiting for anything."""

OTHER_COMMANDS: Final = frozenset(
    {
        "list",
        "status",
        "stop",
        "restart",
        "engines",
        "logs",
        "where",
        "share",
        "revoke",
        "rotate",
        "admit",
        "debug",
        "explain",
        "doctor",
        "pack",
        "completion",
        "relay",
        "follow",
        "kernel",
        "tasks",
    }
)
"""Subcommands of ``ipcluster`` that do not start a cluster."""

_KINDS: Final = ("local", "mpiexec", "mpirun", "ssh")


class Cluster:
    """A controller and its engines, which run until :meth:`stop` or the end of this process.

    >>> with ipmpi.Cluster('slurm', n=64, time='2:00:00') as cluster:   # doctest: +SKIP
    ...     mec = cluster.multiengine()
    ...     mec.execute('print(id)')

    The constructor starts it and returns at once. The engines of a batch job may start much later: :meth:`wait`,
    :meth:`multiengine` and :meth:`task` wait for them. Progress, such as why a job is pending, is printed. Use it
    in a ``with`` statement, or call :meth:`stop`.

    Thread-safety: all methods may be called from any thread, and the attributes may be read from any thread.

    Args:
        kind: ``'local'``, ``'mpiexec'``, ``'mpirun'``, ``'ssh'``, or a batch system such as ``'slurm'`` or
            ``'pbs'``.
        n: the number of engines; None for the default of ``ipcluster``.
        ssh: ``'user@login'``: start the cluster on that machine, through ssh.
        echo: a function that is called with each progress message; None for no output.
        options: options of ``ipcluster KIND``, with ``_`` for ``-``. True gives an option without a value, a list
            one that is repeated: ``Cluster('slurm', n=8, gpus=4, prologue=['module load python'])``.
            ``journal='none'`` for no journal, or its file.

    Attributes:
        state: ``'starting'``, ``'submitted'``, ``'up'`` or ``'over'``.
        name: the cluster's name for ``ipcluster`` commands; ``""`` until it is known.
        jobs: the ids of the batch jobs that were submitted, a list of str.

    Raises:
        TypeError, ValueError: an argument is invalid.
        LauncherError: ``ipcluster`` cannot be run. Later failures are raised by :meth:`wait`, :meth:`multiengine`
            and :meth:`task`, with the messages of ``ipcluster``.
    """

    def __init__(
        self,
        kind: str = "local",
        n: int | None = None,
        *,
        ssh: str = "",
        echo: Callable[[str], object] | None = print,
        **options: object,
    ) -> None:
        words = command_line(kind, n, ssh, options)
        if echo is not None:
            given.function(echo, "echo")
        self.state = "starting"
        self.name = ""
        self.jobs: list[str] = []
        self._echo = echo
        self._furl_files: dict[str, str] = {}
        self._complaints: list[str] = []
        self._clients: list[MultiEngineClient | TaskClient] = []
        self._news = threading.Condition()
        self._log = ipython_dir() / "log" / f"ipcluster-python-{time.time_ns()}.log"
        self._followed = Followed(words, self._log, terminal=bool(ssh))
        self._reader = threading.Thread(target=self._read, name="ipmpi-cluster", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id of ``ipcluster`` on this machine."""
        return self._followed.process.pid

    def __repr__(self) -> str:
        return f"<Cluster {self.name or '?'}: {self.state}>"

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all engines are registered.

        Args:
            timeout: seconds to wait at most; None for no limit, for example while a batch job is pending.

        Raises:
            LauncherError: the cluster could not be started, or has ended.
            TimeoutError: the engines were not registered within ``timeout`` seconds; the start continues.
        """
        timeout = given.waiting_time(timeout)
        with self._news:
            if not self._news.wait_for(lambda: self.state in ("up", "over"), timeout):
                raise TimeoutError(f"the cluster is not up after {timeout:g} s, but {self.state}")
            if self.state == "over":
                raise LauncherError("\n".join(self._complaints) or "The cluster has ended.")

    def multiengine(self) -> MultiEngineClient:
        """Wait for the engines, and return a new client for them; :meth:`stop` closes it.

        Raises:
            LauncherError: the cluster could not be started, or has ended.
        """
        self.wait()
        mec = MultiEngineClient(self._furl_files.get("mec", ""))
        self._clients.append(mec)
        return mec

    def task(self) -> TaskClient:
        """Wait for the engines, and return a new client for tasks; :meth:`stop` closes it.

        Raises:
            LauncherError: the cluster could not be started, or has ended.
        """
        self.wait()
        tc = TaskClient(self._furl_files.get("tc", ""))
        self._clients.append(tc)
        return tc

    def stop(self) -> None:
        """End the engines, the controller and the batch job, and close the clients; waits for it.

        It can be called repeatedly. In a forked process it does nothing.

        Raises:
            LauncherError: they did not end in time.
        """
        if not self._followed.is_own:
            return
        for client in self._clients:
            client.close()
        self._clients.clear()
        self._followed.let_go()
        process = self._followed.process
        try:
            process.wait(STOPPING)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(INSISTING)
            except subprocess.TimeoutExpired:
                raise LauncherError(
                    f"The cluster {self.name!r} has not ended within {STOPPING + INSISTING:g} s; its process is "
                    f"{process.pid}. What it does: ipcluster logs {self.name}"
                ) from None
        self._reader.join(INSISTING)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except Exception:
            if value is None:
                raise
            log.exception("the cluster could not be stopped")  # the exception of the with block is more important

    def _read(self) -> None:
        for told in self._followed.news():
            with self._news:
                self._understand(told)
                self._news.notify_all()
        code = self._followed.process.wait()
        with self._news:
            self.state = "over"
            if code and not self._complaints:  # for example after an invalid option
                self._complaints = tail(self._log) or [f"ipcluster ended with exit code {code}"]
            self._news.notify_all()
        self._followed.close()

    def _understand(self, told: dict[str, Any]) -> None:
        if "complain" in told:
            self._complaints.append(told["complain"])
        text = str(told.get("say", ""))
        if self._echo is not None and text.startswith(("ipcluster: ", "Submitted ")):
            try:
                self._echo(text.removeprefix("ipcluster: "))
            except Exception:  # the caller's function failed; the events still have to be read
                log.exception("echo= of ipmpi.Cluster has failed")
        if told.get("reason") and told["reason"] not in self._complaints:
            self._complaints.append(told["reason"])
        self.state = told.get("state", self.state)
        self.name = told.get("name", self.name)
        if "job" in told:
            self.jobs.append(str(told["job"]))
        self._furl_files.update(told.get("furl_files", {}))


def command_line(kind: str, n: int | None, ssh: str, options: dict[str, object]) -> list[str]:
    """Return the command-line arguments for ``ipcluster``.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """
    if not isinstance(kind, str) or not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", kind) or kind in OTHER_COMMANDS:
        raise ValueError(f"kind must be one of {', '.join([*_KINDS, *batch_systems()])}: {given.shown(kind)}")
    number = None if n is None else given.whole_number(n, "n, the number of engines,", 1, limits.MAX_ENGINES)
    words = [kind, *(["-n", str(number)] if number is not None else [])]
    for name, value in {"ssh": ssh, **options}.items():
        option = f"--{name.rstrip('_').replace('_', '-')}"
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            if one is True:
                words.append(option)
            elif one is not None and one is not False:  # 0 is a value
                word = _word(name, one)
                words += [f"{option}={word}"] if word else []
    return words


def _word(name: str, value: object) -> str:
    """Return an option's value as a command-line argument."""
    if isinstance(value, os.PathLike):
        text = os.fsdecode(value)
    elif isinstance(value, str):
        text = value
    elif hasattr(value, "__float__") and not hasattr(value, "__len__"):
        if not math.isfinite(given.number(value, name)):
            raise ValueError(f"{name} must be a finite number: {given.shown(value)}")
        text = str(value)
    else:
        raise TypeError(f"{name} must be a str, a number, a path, True, or a list of these: {given.shown(value)}")
    if "\0" in given.text(text, name, limits.LINE):
        raise ValueError(f"{name} has a NUL character, which a command line cannot contain: {given.shown(text)}")
    return text
