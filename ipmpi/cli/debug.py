"""``ipcluster debug``: connects an editor on this machine, such as VS Code, to a rank."""

from __future__ import annotations

import argparse
import json
import queue
from collections.abc import Sequence
from typing import Any, Final

from ipmpi import limits
from ipmpi.cli import argtypes
from ipmpi.cli.reporter import Reporter
from ipmpi.client import MultiEngineClient
from ipmpi.client.session.connecting import connect
from ipmpi.client.session.debugrelay import DebugRelay, Happened, News
from ipmpi.client.session.session import Session
from ipmpi.errors import ConnectionError, KernelError, LauncherError
from ipmpi.launch.cluster import records

AGAIN: Final = 30.0
"""Seconds after which it is said again where an engine is to which debugpy could not be attached yet."""

READY: Final = """\
An editor can connect to port {port} of 127.0.0.1. In VS Code, .vscode/launch.json:

{launch}

Then "Run and Debug", and Ctrl-C here when you are done: breakpoints are removed, and the rank goes on."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argtypes.Parser(
        prog="ipcluster debug",
        description="Connect an editor on this machine, such as VS Code, to debugpy in a rank: breakpoints, "
        "stepping and variables, also in what runs there now. Nothing listens on the rank's machine. Other ranks "
        "go on, and wait where they need this one. One editor at a time; when it disconnects, the rank goes on.",
    )
    p.add_cluster_name()
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("--rank", type=argtypes.count_or_none, metavar="RANK", help="the engine of this MPI rank")
    which.add_argument("--engine", type=argtypes.count_or_none, metavar="ID", help="the engine with this id")
    p.add_argument(
        "--port", type=argtypes.port, default=0, metavar="PORT",
        help="of this machine, for the editor (by default one that is free)",
    )  # fmt: skip
    return p


def main(words: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    parsed = parser().parse_args(words)
    record = records.find(parsed.name)
    session = connect(record.furl_files.get("mec", ""), "mec")
    try:
        mec = MultiEngineClient(session=session)
        engine = engine_of(mec.cluster_info()["engines"], parsed.rank, parsed.engine)
        return _Debugging(mec, session, engine, parsed.port).run()
    finally:
        session.close()


def engine_of(engines: Sequence[dict[str, Any]], rank: int | None, wanted: int | None) -> int:
    """Return the id of the engine that is meant.

    Raises:
        LauncherError: there is none, or several have this rank.
    """
    if wanted is not None:
        found = [each["id"] for each in engines if each["id"] == wanted]
        what = f"engine {wanted}"
    else:
        found = [each["id"] for each in engines if each["rank"] == rank]
        what = f"engine of rank {rank}"
    if not found:
        raise LauncherError(f"there is no {what}; `ipcluster status` shows which engines there are")
    if len(found) > 1:
        ids = ", ".join(map(str, found))
        raise LauncherError(
            f"engines {ids} all have rank {rank}, in different sets: name one by its id, as in --engine {found[0]}"
        )
    return int(found[0])


def launch_json(port: int, engine: int, folder: str) -> str:
    """Return what VS Code needs to connect, for a launch.json."""
    configuration: dict[str, Any] = {
        "name": f"ipmpi: engine {engine}",
        "type": "debugpy",
        "request": "attach",
        "connect": {"host": "127.0.0.1", "port": port},
        "justMyCode": True,
        "pathMappings": [{"localRoot": "${workspaceFolder}", "remoteRoot": folder or "."}],
    }
    return json.dumps({"version": "0.2.0", "configurations": [configuration]}, indent=4)


class _Debugging:
    """One run of the command."""

    def __init__(self, mec: MultiEngineClient, session: Session, engine: int, port: int) -> None:
        self._mec = mec
        self._engine = engine
        self._port = port
        self._reporter = Reporter()
        self._relay = DebugRelay(session, engine)
        self._patience: float | None = None
        """Seconds until it is said where the engine is; None while nothing is waited for."""

    def run(self) -> int:
        """Run until Ctrl-C; return the exit code."""
        try:
            self._relay.try_out()
            folder = ""
            while True:
                news = self._next()
                if news.what is Happened.ATTACHED:
                    folder = news.words
                elif news.what is Happened.DETACHED:
                    break
                elif news.what is not Happened.WANTED:
                    self._reporter.complain(news.words)
                    return 1
            port = self._relay.listen(self._port)
            self._reporter.say(READY.format(port=port, launch=launch_json(port, self._engine, folder)))
            while True:
                self._tell(self._next())
        except KeyboardInterrupt:
            return 0
        finally:
            self._relay.close()

    def _next(self) -> News:
        while True:
            try:
                news = self._relay.news.get(timeout=self._patience)
            except queue.Empty:
                self._patience = AGAIN
                self._reporter.say(self._where())
            else:
                self._patience = limits.DEBUG_ATTACHES if news.what is Happened.WANTED else None
                return news

    def _tell(self, news: News) -> None:
        if news.what is Happened.ATTACHED:
            self._reporter.say(f"Engine {self._engine} is attached.")
        elif news.what is Happened.DETACHED:
            self._reporter.say(f"The editor has disconnected, and engine {self._engine} goes on.")
        elif news.what is Happened.OVER:
            raise ConnectionError(news.words)
        elif news.what is not Happened.WANTED:
            self._reporter.complain(news.words)

    def _where(self) -> str:
        """Say why debugpy is not attached yet."""
        try:
            place = self._mec.where(self._engine).text()
        except KernelError as error:
            place = str(error)
        return (
            f"Engine {self._engine} is in code that is not Python's, such as a call of MPI, and can be stopped "
            f"only when that returns:\n{place}\nThis waits for it; Ctrl-C gives up. In engines started with "
            "--comm polled, waits for other ranks can be stopped in. To end the call: mec.interrupt(), and "
            "mec.restart() if that does not help."
        )
