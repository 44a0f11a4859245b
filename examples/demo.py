"""Start a real cluster, do real work on it, check every number, stop it again.

    $ python examples/demo.py -n 4
    $ python examples/demo.py -n 4 --mpi=mpi4py     # what this program does not know goes on to ipcluster
    $ python examples/demo.py --connect             # on the cluster that is running already

The cluster gets a folder of its own, so it does not meet any other cluster of yours. The exit status is 0 if every
check passed, and 1 if one failed or anything was raised.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, perf_counter
from types import ModuleType
from typing import Any, NamedTuple

import heat
import helloworld
import multienginemap
import options
import psum
import taskmap
import wordcount
from screen import Screen

CHECKS: dict[str, tuple[ModuleType, ...]] = {
    "main": (heat, options, wordcount),
    "all": (helloworld, taskmap, multienginemap, psum, heat, options, wordcount),
}
START_SECONDS, STOP_SECONDS, ALL_SECONDS = 30.0, 15.0, 120
ROOT = Path(__file__).resolve().parent.parent


class StartError(Exception):
    """The cluster did not start, or did not stop; the text shows what it printed."""


class TooLong(BaseException):
    """The whole demonstration is over its time; not an Exception, so that it ends more than one check."""


class Row(NamedTuple):
    """One line of the summary."""

    check: str
    seconds: float
    figure: str
    passed: bool


class Cluster:
    """The program ``ipcluster`` as a child process, with its own IPYTHONDIR."""

    def __init__(self, command: list[str], folder: str) -> None:
        # PYTHONPATH: the demonstration also runs from a source tree that nobody has installed.
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        environment = os.environ | {"IPYTHONDIR": folder, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # A session of its own: Ctrl-C at the terminal comes to this program only, which then stops the cluster.
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.said.append(line)
                self._lines.put(line)
        self._lines.put(None)

    def wait_until_running(self, seconds: float = START_SECONDS) -> None:
        """Return when the cluster says it is up.

        Raises:
            StartError: it ended, or did not say so in time.
        """
        deadline = monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - monotonic()))
            except queue.Empty:
                raise StartError(self.story(f"did not say 'up and running' within {seconds:.0f} s")) from None
            if line is None:
                raise StartError(self.story(f"ended before it was up, with exit status {self._process.wait()}"))
            if "up and running" in line:
                return

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Press Ctrl-C, so to speak, and wait for the end.

        Raises:
            StartError: it was still there after that time (and was killed), or ended with an error.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            # The group is the session that was made for it above, so this ends nothing else.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise StartError(
                self.story(f"did not stop within {seconds:.0f} s after Ctrl-C and was killed")
            ) from None
        self._reader.join(1.0)  # the last lines, for the story below
        if status not in (0, -signal.SIGINT, 128 + signal.SIGINT):
            raise StartError(self.story(f"ended with exit status {status}"))

    def clear_away(self) -> None:
        """Stop it after something else went wrong, which is what the user should read about."""
        with suppress(StartError):
            self.stop()

    def story(self, what: str) -> str:
        """Return a sentence about the cluster, followed by all that it printed."""
        said = "".join("    " + line for line in self.said) or "    (nothing)\n"
        return f"the cluster {what}. It printed:\n{said.rstrip()}"


def connect(folder: str | None, expected: int | None, screen: Screen) -> tuple[Any, Any]:
    """Return both clients, after a look at the engines.

    Raises:
        StartError: there are other engines than asked for.
    """
    from ipmpi import client

    screen.typed("from ipmpi import client")
    screen.typed("mec = client.MultiEngineClient(); tc = client.TaskClient()")
    files = [
        str(Path(folder, "security", f"ipcontroller-{role}.furl")) if folder else "" for role in ("mec", "tc")
    ]
    mec, tc = client.MultiEngineClient(files[0]), client.TaskClient(files[1])
    screen.typed("mec.get_ids()")
    ids = mec.get_ids()
    screen(repr(ids))
    if not ids or (expected is not None and len(ids) != expected):
        raise StartError(f"{expected or 'some'} engines were expected, and the engines there are {ids}")
    return mec, tc


def run_checks(checks: tuple[ModuleType, ...], mec: Any, tc: Any, screen: Screen) -> list[Row]:
    """Run the examples one after the other; one that raises is a failed check, and the next one still runs."""
    rows = []
    for check in checks:
        screen.heading(f"{check.__name__}: {(check.__doc__ or '').splitlines()[0]}")
        started = perf_counter()
        screen.figure = ""
        try:
            passed = check.main(mec, tc, screen)
        except Exception as error:
            screen(traceback.format_exc().replace("\n", "\n  "))
            screen.figure, passed = (
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                False,
            )
        rows.append(Row(check.__name__, perf_counter() - started, screen.figure, passed))
    return rows


def summary(rows: list[Row], screen: Screen) -> None:
    """Print the table of all checks."""
    screen.heading("Summary")
    widest = max(len("check"), *(len(row.check) for row in rows))
    figures = max(len("figure"), *(len(row.figure) for row in rows))
    screen(f"{'check':{widest}}  seconds  {'figure':{figures}}  outcome")
    for row in rows:
        verdict = screen.verdict(row.passed)
        screen(f"{row.check:{widest}}  {row.seconds:7.2f}  {row.figure:{figures}}  {verdict}")


def with_own_cluster(engines: int, extra: list[str], checks: tuple[ModuleType, ...], screen: Screen) -> list[Row]:
    """Start a cluster, run the checks, stop the cluster; starting and stopping are checks as well."""
    with tempfile.TemporaryDirectory(prefix="ipmpi-demo-") as folder:
        screen.heading("The cluster")
        screen(screen.paint("\033[1m", f"$ ipcluster {' '.join(['-n', str(engines), *extra])}"))
        started = perf_counter()
        cluster = Cluster([sys.executable, "-m", "ipmpi.cli.ipcluster", "-n", str(engines), *extra], folder)
        try:
            cluster.wait_until_running()
            try:
                mec, tc = connect(folder, engines, screen)
            except Exception as error:
                raise StartError(cluster.story(f"is up, but {type(error).__name__}: {error}")) from error
            rows = [Row("start", perf_counter() - started, f"{engines} engines up, both clients connected", True)]
            rows += run_checks(checks, mec, tc, screen)
            mec.close()
            tc.close()
        except BaseException as reason:
            if isinstance(reason, TooLong):
                screen(cluster.story("was working for too long"))
            cluster.clear_away()
            raise
        started = perf_counter()
        screen.heading("Ctrl-C: stopping the cluster")
        cluster.stop()
        return [*rows, Row("stop", perf_counter() - started, "the cluster ended cleanly", True)]


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of this program, and the ones meant for ipcluster."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], epilog="Other options go to ipcluster.", allow_abbrev=False
    )
    parser.add_argument("-n", "--num", type=int, default=4, metavar="N", help="how many engines (4)")
    parser.add_argument("--connect", action="store_true", help="use the cluster that is running already")
    parser.add_argument("--all", action="store_true", help="run the small examples, too")
    chosen, extra = parser.parse_known_args(arguments)
    if chosen.num < 1:
        parser.error("-n must be at least 1")
    if chosen.connect and extra:
        parser.error(f"with --connect there is no ipcluster to pass {' '.join(extra)} to")
    return chosen, extra


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TooLong in the main thread when the body takes longer, so that no wait can last for ever."""

    def ring(*_: object) -> None:
        raise TooLong(f"the demonstration was not done after {seconds} s")

    before, left = signal.signal(signal.SIGALRM, ring), signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(left)
        signal.signal(signal.SIGALRM, before)


def run(arguments: list[str] | None = None) -> int:
    """Run the demonstration and return the exit status."""
    chosen, extra = parse(arguments)
    checks = CHECKS["all" if chosen.all else "main"]
    screen = Screen()
    started = perf_counter()
    try:
        with time_limit(ALL_SECONDS):
            if chosen.connect:
                rows = run_checks(checks, *connect(None, None, screen), screen)
            else:
                rows = with_own_cluster(chosen.num, extra, checks, screen)
    except (KeyboardInterrupt, TooLong) as error:
        screen(f"{screen.verdict(False)}: {str(error) or 'stopped by Ctrl-C'}")
        return 1
    except Exception as error:
        if not isinstance(error, StartError):
            traceback.print_exc()
        screen(f"{screen.verdict(False)}: {error}")
        return 1
    summary(rows, screen)
    passed = all(row.passed for row in rows)
    number = sum(row.passed for row in rows)
    screen(f"{screen.verdict(passed)}: {number} of {len(rows)} checks, {perf_counter() - started:.1f} s in all")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.path.append(str(ROOT))
    sys.exit(run())
