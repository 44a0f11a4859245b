"""``ipcluster slurm --ssh user@login``: a remote cluster, with local furl files.

On the remote machine the same command runs with ``--detach``, so that the cluster does not depend on the ssh
session: when the session dies, or the laptop sleeps, the cluster continues, and a new session finds it again. The
local furl files have a port of this machine, whose connections are forwarded through the session. TLS is end to
end, so the certificate in the furl is that of the controller.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shlex
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from ipmpi.cli import argtypes, options
from ipmpi.cli.reporter import Reporter
from ipmpi.errors import ConnectionError, KernelError, LauncherError
from ipmpi.furl import Furl, save
from ipmpi.launch.cluster import defaultfurls, records
from ipmpi.launch.cluster.follow import STAY
from ipmpi.launch.cluster.records import ClusterRecord
from ipmpi.protocol.handshake import printable_lines
from ipmpi.transport.ssh.ssh import SshSession
from ipmpi.transport.ssh.sshprocess import split_destination

STOPPING: Final = 60.0
"""Seconds for the remote end to stop a cluster."""

PAUSE: Final = 1.0
"""Seconds before the remote end is asked for events again."""

COMPLAINTS: Final = 50
"""Number of last lines of a failed start to show."""

UP: Final = """
Your cluster on {ssh} is up and running.

For interactive use on this machine, you can make a MultiEngineClient with:

from ipmpi import client
mec = client.MultiEngineClient({mec})

This works as long as this command runs. {end}
"""

KEPT: Final = """
The cluster {far_name!r} goes on. To reach it from Python:

from ipmpi import client
mec = client.MultiEngineClient(name={far_name!r}, ssh={destination!r})

To stop it: {stop}
"""


class Event(msgspec.Struct, frozen=True):
    """A line of the remote end, see :class:`~ipmpi.cli.reporter.Reporter`; other fields are ignored."""

    say: str = ""
    complain: str = ""
    only_here: bool = False
    state: Literal["", "submitted", "up", "over"] = ""
    job: str = ""
    code: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    reason: str = ""


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the options about ssh."""
    group = p.add_argument_group("from another machine")
    group.add_argument(
        "--ssh", type=destination, default="", metavar="USER@HOST[:COMMAND]",
        help="do this on another machine, by ssh, and reach the cluster from here; COMMAND is what runs ipcluster "
        "there, such as venv/bin/ipcluster",
    )  # fmt: skip
    group.add_argument("--keep", action="store_true", help="leave that cluster running when this command ends")


def destination(text: str) -> str:
    """Parse the ssh destination, perhaps with the command for ipcluster there, for argparse."""
    split = argtypes.checked("destination", lambda given: split_destination(given, "x"))
    found = split(text) if text else ("x", "x")
    if re.fullmatch(r"(?:.*@)?(?:|-.*|:[^:]*)", found[0]):
        raise argparse.ArgumentTypeError(f"{text!r} names no machine: give it as 'user@host'")
    argtypes.command(found[1])
    return text


def main(command: str, words: Sequence[str], parsed: argparse.Namespace) -> int:
    """Run the local end; return its exit code."""
    if parsed.dry_run:
        with SshSession(parsed.ssh) as session:
            return session.run([command, *far_words(words)], lambda line: print(line, flush=True))
    name = parsed.name or f"from-{_plain(os.uname().nodename)}-{os.getpid()}"
    far = [command, *far_words(words), "--detach", "--name", name]
    with SshSession(parsed.ssh) as session, options.claimed(parsed, command, parsed.n) as record:
        record.ssh, record.far_name = session.destination, name
        near = RemoteCluster(session, record, options.reporter(parsed), far, keep=parsed.keep, given=parsed)
        return near.run(parsed.lifeline_fd)


def far_words(words: Sequence[str]) -> list[str]:
    """Return the command line without local options, and without a name, which is added later."""
    found, skip = [], False
    values = {"--ssh", "--status-fd", "--lifeline-fd", "--own-log", "--logdir", "--name"}
    for word in words:
        option = word.partition("=")[0]
        if skip:
            skip = False
        elif option in values:
            skip = "=" not in word
        elif option not in ("--keep", "--detach", "--wait-engines"):
            found.append(word)
    return found


@dataclass
class RemoteCluster:
    """A cluster at the remote end of an ssh session.

    Attributes:
        session: the session.
        record: the record for other commands of this machine.
        reporter: the reporter.
        far: the remote command line.
        keep: leave the cluster running at the end.
        given: the options.
    """

    session: SshSession
    record: ClusterRecord
    reporter: Reporter
    far: list[str]
    keep: bool
    given: argparse.Namespace
    _inbox: queue.SimpleQueue[dict[str, Any]] = field(default_factory=queue.SimpleQueue)
    _ports: dict[tuple[tuple[str, int], ...], tuple[str, int]] = field(default_factory=dict)
    _seen: int = 0
    _last_trouble: str = ""
    _is_started: threading.Event = field(default_factory=threading.Event)
    _may_run: bool = False

    def run(self, lifeline_fd: int | None) -> int:
        """Start it, follow it, and end it; return the exit code."""
        before = {
            number: signal.signal(number, lambda *_: self._inbox.put({"stop": True}))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        if lifeline_fd is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by our parent process
            _in_thread(lambda: self._watch_lifeline(lifeline_fd))
        records.save(self.record)
        _in_thread(self._start_and_follow)
        try:
            return self._live()
        except KernelError as error:
            reason = f"{error}. {self._stop_it()}" if self._may_run else str(error)
            self.reporter.report(state="over", code=1, reason=reason)
            return self.reporter.complain(reason)
        except Exception as error:
            # When this end has failed, the remote cluster and its jobs must not continue.
            self.reporter.complain(f"{type(error).__name__}: {error}. Please report this")
            self._end()
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # --- this thread -------------------------------------------------------------------------------------

    def _live(self) -> int:
        while True:
            news = self._inbox.get()
            if "stop" in news:
                return self._end()
            if "failed" in news:
                raise LauncherError(news["failed"])
            if "event" in news:
                self._show(news["event"])
                if news["event"].state == "over":
                    return self._over(news["event"].code, news["event"].reason)
            if "furls" in news:
                self._reach(news["furls"])

    def _show(self, event: Event) -> None:
        if event.say and not event.only_here:  # how to connect on the remote machine does not apply here
            self.reporter.say(event.say)
        if event.complain:
            self.reporter.complain(event.complain)
        if event.state == "submitted":
            self.record.jobs.append(event.job)
            records.save(self.record)
            self.reporter.report(state="submitted", name=self.record.name, job=event.job)

    def _over(self, code: int, reason: str) -> int:
        self.reporter.report(state="over", code=code, reason=reason)
        return code

    def _stop_it(self) -> str:
        return f"The cluster on {self.record.ssh} may go on; to stop it: {self._stop_command()}"

    def _stop_command(self) -> str:
        return f"ssh {self.record.ssh} {shlex.quote(f'{self.session.remote} stop {self.record.far_name}')}"

    def _reach(self, furls: dict[str, Furl]) -> None:
        """Write furl files for this machine."""
        for role, far in furls.items():
            save(Path(self.record.furl_files[role]), self._near_furl(far))
        self.record.furl_files = {role: self.record.furl_files[role] for role in furls}
        self.record.up = time.time()
        records.save(self.record)
        if self.record.unnamed:
            defaultfurls.publish(self.record)
        stop = "Ctrl-C leaves the cluster running." if self.keep else "Ctrl-C stops the cluster."
        there = f"On {self.record.ssh} it is called {self.record.far_name}."
        said = UP.format(ssh=self.record.ssh, mec=options.mec_arguments(self.given), end=f"{stop} {there}")
        self.reporter.say(said)
        self.reporter.report(state="up", name=self.record.name, furl_files=self.record.furl_files)

    def _near_furl(self, far: Furl) -> Furl:
        hints = tuple(far.hints)
        if hints not in self._ports:
            self._ports[hints] = self.session.forward(hints)
        return replace(far, hints=(self._ports[hints],))

    def _end(self) -> int:
        if not self._may_run:
            self.reporter.say(f"Nothing was started on {self.record.ssh}.")
            return self._over(1, "")
        if self.keep and self._is_started.is_set():
            name = self.record.far_name
            self.reporter.say(KEPT.format(destination=self.given.ssh, stop=self._stop_command(), far_name=name))
            return self._over(0, "")
        self.reporter.say(f"Stopping the cluster on {self.record.ssh}...")
        _in_thread(lambda: self._inbox.put({"stopped": self._stop_there()}))
        code = self._await_stop()
        if code:
            self.reporter.complain(f"It could not be stopped from here. {self._stop_it()}")
        return self._over(code, "")

    def _await_stop(self) -> int:
        deadline = time.monotonic() + STOPPING
        while True:
            try:
                news = self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return 1
            if "stopped" in news or "stop" in news:  # a second Ctrl-C: stop waiting
                return int(news.get("stopped", 1))

    # --- other threads -----------------------------------------------------------------------------------

    def _start_and_follow(self) -> None:
        try:
            self.session.open()
            lines: deque[str] = deque(maxlen=COMPLAINTS)
            self._may_run = True
            code = self.session.run(self.far, lines.append)
            self._is_started.set()
            if code:
                self._may_run = False
                text = "\n".join(lines).removeprefix("ipcluster: ") or f"exit code {code}"
                self._inbox.put({"failed": f"on {self.record.ssh}: {text}"})
                return
            while self._follow():
                pass
        except KernelError as error:
            self._inbox.put({"failed": str(error)})

    def _follow(self) -> bool:
        """Pass on events of the remote end; return True if ssh died and must be restarted for the rest."""
        try:
            code = self.session.run(["follow", self.record.far_name, "--skip", str(self._seen)], self._told)
        except ConnectionError as error:
            if str(error) != self._last_trouble:
                self._last_trouble = str(error)
                say = f"ipcluster: {error}; trying again. The cluster goes on meanwhile."
                self._inbox.put({"event": Event(say=say)})
            time.sleep(PAUSE)  # the session has its own pauses if ssh fails
            return True
        if code:
            self._may_run = False
            self._inbox.put({"failed": f"The cluster on {self.record.ssh} has ended without a word."})
        return False

    def _told(self, line: str) -> None:
        try:
            event = msgspec.json.decode(line, type=Event)
        except (msgspec.DecodeError, RecursionError):
            self._inbox.put({"event": Event(complain=line)})
            return
        words = {name: printable_lines(getattr(event, name)) for name in ("say", "complain", "job", "reason")}
        news: dict[str, Any] = {"event": msgspec.structs.replace(event, **words)}
        if event.state == "up":
            # If ssh dies now, the event is sent again by the next one.
            news["furls"] = {role: self.session.furl(role, self.record.far_name) for role in ("mec", "tc")}
        self._seen += 1
        self._inbox.put(news)

    def _stop_there(self) -> int:
        self._is_started.wait(STOPPING)  # before that it has no name
        try:
            return self.session.run(["stop", self.record.far_name])
        except KernelError:
            return 1

    def _watch_lifeline(self, descriptor: int) -> None:
        if os.read(descriptor, 4096) != STAY:
            self._inbox.put({"stop": True})


def _in_thread(call: Callable[[], None]) -> None:
    threading.Thread(target=call, daemon=True).start()


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "-" for c in text)[:32]
