"""``ipcluster local``: a controller and its engines on this machine, with one command (layer L5)."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ipmpi.errors import KernelError, LauncherError
from ipmpi.furl import default_furl_file, ipython_dir
from ipmpi.launch.lifecycle import Blame, Effect, Lifecycle, Note, Over, StartAgain, Started
from ipmpi.launch.local import (
    ClusterOptions,
    ControllerEnded,
    ControllerReady,
    EngineCount,
    EnginesEnded,
    Happening,
    LocalCluster,
    RankEnded,
)
from ipmpi.launch.process import Signals, tail
from ipmpi.limits import MAX_ENGINES

LOG_LINES: Final = 15

UP_AND_RUNNING: Final = """
Your cluster is up and running.

For interactive use, you can make a MultiEngineClient with:

from ipmpi import client
mec = client.MultiEngineClient({furl})

You can then cleanly stop the cluster from IPython using:

mec.kill(controller=True)

You can also hit Ctrl-C to stop it, or use from the cmd line:

kill -INT {pid}
"""

_PASSED_ON: Final = (
    ("--client-ip", "IP", "address the controller listens on for clients"),
    ("--client-port", "N", "its port; with a fixed port, furls stay valid from one start to the next"),
    ("--client-location", "HOST", "address that clients use to reach the controller, written into their furls"),
    ("--engine-ip", "IP", "address the controller listens on for engines"),
    ("--engine-port", "N", "its port"),
    ("--engine-location", "HOST", "address that engines use to reach the controller"),
    ("--multiengine-furl-file", "FILE", "where to write the furl of MultiEngineClient"),
    ("--task-furl-file", "FILE", "where to write the furl of TaskClient"),
)
"""Options of ipcontroller that ipcluster takes and hands over: name, metavar, help."""


def main(command: str, words: Sequence[str]) -> int:
    """Run ``ipcluster local``; returns its exit code."""
    parsed = parser(command).parse_args(words)
    with Signals() as signals:
        cluster = LocalCluster(_options(parsed), signals)
        try:
            return _run(cluster, parsed.multiengine_furl_file or "")
        except KernelError as error:
            cluster.stop(polite=False)
            return _complain(str(error))
        finally:
            cluster.close()


def parser(command: str = "local") -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=f"ipcluster {command}",
        description="Start a controller and N engines on this machine, and stop them together. "
        "The engines are the ranks of one MPI job, unless --mpi none is given.",
    )
    p.add_argument(
        "kind",
        nargs="?",
        default="local",
        choices=["local", "mpiexec", "mpirun"],
        help="all three do the same: engines on this machine, started by mpiexec",
    )
    p.add_argument("-n", "--n", "--num", type=_engine_number, default=2, metavar="N", help="engines (2)")
    p.add_argument(
        "--mpi", choices=["auto", "mpi4py", "none"], default="auto", help="none: plain processes without MPI"
    )
    p.add_argument("--launcher", default="auto", metavar="PATH", help="the mpiexec to use")
    p.add_argument("--logdir", type=Path, default=None, metavar="DIR", help="log files (~/.ipython/log)")
    p.add_argument("--timeout", type=_seconds, default=60.0, metavar="SECONDS", help="for the start (60)")
    p.add_argument("--engine-furl-file", type=Path, default=None, metavar="FILE", help="the engines' furl")
    for name, metavar, text in _PASSED_ON:
        p.add_argument(name, metavar=metavar, default=None, help=text)
    return p


def _engine_number(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 1 <= int(text) <= MAX_ENGINES:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of engines (1 to {MAX_ENGINES})")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1e6:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds")


def _options(parsed: argparse.Namespace) -> ClusterOptions:
    passed: list[str] = []
    for name, _, _ in _PASSED_ON:
        value = getattr(parsed, name.lstrip("-").replace("-", "_"))
        if value is not None:
            passed += [name, str(value)]
    furl_file = parsed.engine_furl_file or default_furl_file("engine")
    return ClusterOptions(
        n=parsed.n,
        log_dir=(parsed.logdir or ipython_dir() / "log").expanduser().absolute(),
        engine_furl_file=furl_file.expanduser().absolute(),
        mpi=parsed.mpi,
        launcher=parsed.launcher,
        controller_args=tuple(passed),
        keeps_furl=(parsed.engine_port or "0") != "0",
        timeout=parsed.timeout,
    )


def _run(cluster: LocalCluster, mec_furl_file: str) -> int:
    """Start everything, live through it, and end everything."""
    lifecycle = Lifecycle(cluster.options.n, cluster.options.timeout, time.monotonic())
    running = False
    cluster.start()
    _say(f"Starting controller: Controller PID: {_pid(cluster)}")
    _announce_engines(cluster)
    while True:
        happenings = cluster.wait(lifecycle.deadline(), starting=not running)
        now = time.monotonic()
        effects = [effect for happening in happenings for effect in _interpret(cluster, lifecycle, happening, now)]
        for effect in [*effects, *lifecycle.tick(now)]:
            if isinstance(effect, Started):
                running = True
                _say(UP_AND_RUNNING.format(furl=repr(mec_furl_file) if mec_furl_file else "", pid=os.getpid()))
            elif isinstance(effect, Note):
                _say(f"ipcluster: {effect.text}")
            elif isinstance(effect, StartAgain):
                _say(f"ipcluster: {effect.text}")
                cluster.start_engines_again(effect.text)
                _announce_engines(cluster)
            else:
                return _finish(cluster, effect, running)


def _interpret(cluster: LocalCluster, lifecycle: Lifecycle, happening: Happening, now: float) -> list[Effect]:
    if isinstance(happening, ControllerReady):
        lifecycle.controller_ready = True
        if not cluster.engines:
            cluster.start_engines()
            _announce_engines(cluster)
        return []
    if isinstance(happening, EngineCount):
        return lifecycle.engines(happening.registered, now, happening.ordered)
    if isinstance(happening, ControllerEnded):
        return lifecycle.controller_ended(happening.code)
    if isinstance(happening, EnginesEnded):
        return lifecycle.engines_ended(happening.title, happening.code, happening.left, now, happening.chance)
    if isinstance(happening, RankEnded):
        return lifecycle.rank_ended(happening.pid)
    return lifecycle.stop_requested()


def _finish(cluster: LocalCluster, over: Over, running: bool) -> int:
    """Tell why, take everything down, and give the exit code."""
    failed = over.blame is not Blame.NOBODY
    if failed:
        _complain(over.reason)
        _show_logs(cluster, over.blame)
    elif over.reason:
        _say(over.reason)
    # Engines whose controller is dead keep trying to reach it: nobody will tell them to end.
    controller_tells = running and over.blame is not Blame.CONTROLLER
    _say("Stopping cluster.  Cleaning up...")
    for child in cluster.living():
        _say(f"Stopping {child.title}, pid {child.pid}")
    if not cluster.stop(polite=controller_tells):
        left = ", ".join(str(child.pid) for child in cluster.living())
        return _complain(f"ERROR: could not kill some processes, try to do it manually: {left}") or 1
    _say("OK: All processes cleaned up.")
    return over.code


def _announce_engines(cluster: LocalCluster) -> None:
    if not cluster.engines:
        return
    if cluster.options.mpi == "none":
        _say(f"Starting engines:    Engines PIDs:   {[child.pid for child in cluster.engines]}")
    else:
        launcher = cluster.engines[0]
        _say(f"Starting engines:    {cluster.options.n} ranks by {launcher.title}, PID: {launcher.pid}")
    files = (
        f"ipcluster-{os.getpid()}-*.log",
        f"ipcontroller{_pid(cluster)}.log",
        f"ipengine{_pid(cluster)}-*.log",
    )
    _say(f"Log files: {cluster.options.log_dir}/: {', '.join(files)}")


def _show_logs(cluster: LocalCluster, blame: Blame) -> None:
    shown = False
    for path in cluster.controller_logs() if blame is Blame.CONTROLLER else cluster.engine_logs():
        lines = tail(path, LOG_LINES)
        if lines:
            shown = True
            _complain(f"The last lines of {path}:", *(f"    {line}" for line in lines))
    if not shown:
        _complain(f"It has written nothing to its log files in {cluster.options.log_dir}.")


def _pid(cluster: LocalCluster) -> int:
    if cluster.controller is None:
        raise LauncherError("The controller has not been started.")
    return cluster.controller.pid


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # the terminal may be gone: SIGHUP is one way to stop
        print(text, flush=True)


def _complain(text: str, *more: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(f"ipcluster: {text}", *more, sep="\n", file=sys.stderr, flush=True)
    return 1
