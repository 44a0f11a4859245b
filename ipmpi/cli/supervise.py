"""The main loop of all kinds of clusters, from start to end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ipmpi.cli.reporter import Reporter
from ipmpi.errors import KernelError, LauncherError
from ipmpi.launch.cluster import defaultfurls, records
from ipmpi.launch.cluster.cluster import ClusterRun
from ipmpi.launch.cluster.effects import (
    AskQueue,
    Cause,
    Effect,
    LogLine,
    StartController,
    Started,
    StartEngines,
    Stopped,
)
from ipmpi.launch.cluster.happenings import ControllerReady, EnginesWait, Happening, NotSubmitted, Submitted
from ipmpi.launch.cluster.lifecycle import Lifecycle, Plan
from ipmpi.launch.cluster.records import ClusterRecord

UP_AND_RUNNING: Final = """
Your cluster is up and running.

For interactive use, you can make a MultiEngineClient with:

from ipmpi import client
mec = client.MultiEngineClient({furl})

You can then cleanly stop the cluster from IPython using:

mec.kill(controller=True)

You can also hit Ctrl-C to stop it, or use from the cmd line:

{stop}
"""


@dataclass
class Supervisor:
    """Starts a cluster, follows it, and ends it.

    Attributes:
        cluster: the processes.
        plan: the requested cluster.
        reporter: the reporter.
        record: the record for other commands.
        furl: arguments of ``MultiEngineClient``, as source text.
        adds: whether these engines are added to a cluster that is run by another process.
        log_files: returns lines about the log files.
    """

    cluster: ClusterRun
    plan: Plan
    reporter: Reporter
    record: ClusterRecord
    furl: str = ""
    adds: bool = False
    log_files: Callable[[ClusterRecord], list[str]] = lambda _record: []

    def run(self) -> int:
        """Run the cluster; return the exit code."""
        self._life = Lifecycle(self.plan, time.monotonic())
        try:
            return self._run()
        except Exception as error:
            # End everything that was started, above all a job without a record.
            known = isinstance(error, KernelError)
            text = str(error) if known else f"{type(error).__name__}: {error}. Please report this"
            self.reporter.complain(text)
            self._stop(polite=False)
            self.reporter.report(state="over", code=1, reason=text)
            if not known:
                raise
            return 1
        finally:
            self.cluster.close()

    def _stop(self, *, polite: bool) -> list[str]:
        problems = self.cluster.stop(polite=polite)
        for problem in problems:
            self.reporter.complain(f"ERROR: {problem}")
        if self.cluster.left_behind and self.record.jobs:
            self.record.left_behind = True  # `ipcluster stop` tries again
            self.reporter.complain(f"To try again: ipcluster stop {self.record.name}")
            self._save()
        return problems

    def _save(self) -> None:
        try:
            records.save(self.record)
        except LauncherError as error:
            self.reporter.say(f"ipcluster: {error}")  # a full disk must not end a running cluster

    def _run(self) -> int:
        cluster = self.cluster
        if cluster.controller is None:
            self._life.controller_ready = True
        cluster.start()
        self._note_controller()
        if not (cluster.engines.waits or self.plan.batch):
            self._announce()
        while True:
            happenings = cluster.wait(self._life.deadline(), starting=self.record.up is None)
            now = time.monotonic()
            effects = [effect for happening in happenings for effect in self._meaning(happening, now)]
            for effect in [*effects, *self._life.tick(now)]:
                over = self._act(effect)
                if over is not None:
                    return self._finish(over)

    def _note_controller(self) -> None:
        """The controller's process was started."""
        process = self.cluster.controller_process
        if process is not None:
            self.record.controller = process.pid
            self.reporter.say(f"Starting controller: Controller PID: {process.pid}")
        self._save()

    def _meaning(self, happening: Happening, now: float) -> list[Effect]:
        if isinstance(happening, ControllerReady) and not self.adds:
            self.record.furl_files.update(
                {role: path for role, path in happening.furl_files.items() if role in records.ROLES}
            )
            self._save()
            self._publish()
        if isinstance(happening, Submitted):
            self._announce()
            return []
        if isinstance(happening, EnginesWait):
            self.reporter.say(f"ipcluster: {happening.text}")
            return []
        if isinstance(happening, NotSubmitted) and not self.record.jobs:
            raise LauncherError(happening.why)  # the first attempt: the user can fix it
        return self._life.happened(happening, now)

    def _publish(self) -> None:
        if self.record.unnamed:
            try:
                defaultfurls.publish(self.record)
            except (KernelError, OSError) as error:
                name = f"MultiEngineClient(name={self.record.name!r})"
                self.reporter.say(f"ipcluster: {error}. Until that is mended, clients have to say {name}")

    def _act(self, effect: Effect) -> Stopped | None:
        """Carry out an effect; return it if it stops the cluster."""
        if isinstance(effect, Stopped):
            return effect
        if isinstance(effect, Started):
            self._say_that_it_is_up()
        elif isinstance(effect, LogLine):
            self._tell(effect.text)
        elif isinstance(effect, StartEngines):
            return self._start_engines(effect.text)
        elif isinstance(effect, StartController):
            self.reporter.say(f"ipcluster: {effect.text}")
            self.cluster.restart_controller()
            self._note_controller()
        else:
            assert isinstance(effect, AskQueue)
            self.cluster.engines.ask()
        return None

    def _tell(self, text: str) -> None:
        """Print a line and, once there may be clients, send it to them."""
        self.reporter.say(f"ipcluster: {text}")
        if self.record.up is not None:
            self.cluster.tell_clients(text)

    def _start_engines(self, why: str) -> Stopped | None:
        if why:
            self._tell(why)
        try:
            self.cluster.start_engines(why)
        except LauncherError as error:
            if not (why and self.plan.batch):
                raise
            return self._answer(NotSubmitted(str(error)))
        if not self.plan.batch:
            self._announce()
        return None

    def _answer(self, happening: Happening) -> Stopped | None:
        """Handle an event that an effect has caused."""
        for effect in self._life.happened(happening, time.monotonic()):
            over = self._act(effect)
            if over is not None:
                return over
        return None

    def _announce(self) -> None:
        """The engines were started."""
        job = self.cluster.engines.job
        if job:
            self._life.submitted(job, time.monotonic())
            self.record.jobs.append(job)
            self._save()  # before anything else: from now on others have to be able to find it
        for line in [*self.cluster.engines.said(), *self.log_files(self.record)]:
            self.reporter.say(line)
        if job:
            self.reporter.report(state="submitted", name=self.record.name, job=job, log=self.record.log)

    def _say_that_it_is_up(self) -> None:
        self.record.up = time.time()
        self._save()
        if self.adds:
            added = f"{self.plan.n} engine{'s were' if self.plan.n != 1 else ' was'} added"
            self.reporter.say(f"ipcluster: {added} to the cluster {self.record.cluster!r}.")
            return
        stop = f"ipcluster stop {self.record.name}" if self.record.log else f"kill -INT {os.getpid()}"
        self.reporter.say(UP_AND_RUNNING.format(furl=self.furl, stop=stop), only_here=True)
        self.reporter.report(
            state="up", name=self.record.name, furl_files=self.record.furl_files, log=self.record.log
        )

    def _finish(self, over: Stopped) -> int:
        """Print the reason, stop everything, and return the exit code."""
        cluster, reporter = self.cluster, self.reporter
        if over.blame is not Cause.NOBODY:
            reporter.complain(over.reason)
            logs = cluster.controller_logs() if over.blame is Cause.CONTROLLER else cluster.engines.logs()
            reporter.show_logs(logs, cluster.engines.log_dir)
            if over.blame is Cause.ENGINES and self.record.up is None:
                for hint in cluster.engines.hints():
                    reporter.complain(hint)
        elif over.reason:
            reporter.say(over.reason)
        if over.reason:
            cluster.tell_clients(over.reason, last=True)
        # Engines of a dead controller keep trying to reach it, and are not told to end.
        controller_tells = self.record.up is not None and over.blame is not Cause.CONTROLLER
        reporter.say("Stopping cluster.  Cleaning up...")
        for child in cluster.living():
            reporter.say(f"Stopping {child.title}, pid {child.pid}")
        problems = self._stop(polite=controller_tells)
        code = 1 if problems else over.code
        if not problems:
            reporter.say("OK: All processes cleaned up.")
        reporter.report(state="over", code=code, reason=over.reason)
        return code
