"""The state machine of a cluster (no I/O; the time is an argument).

A cluster is a controller and one launch of engines. The engines may be processes of this machine, of others by
ssh, or a job of a batch system; all have the same states::

                  submitted          the job runs           all engines are registered
    STARTING ------------> QUEUED ------------> STARTING ------------> RUNNING
                             ^ ^                    |                     |
                             | '--- back in the queue, or submitted again-'
                             |                      |                     |
                             '----------------------'                     v
         and from each of them, on an unexpected end or at the user's request:  OVER

Without a batch system there is no QUEUED. QUEUED has no deadline, as a job may wait for days. STARTING has one: it
begins with the processes, or when the job runs. RUNNING does not end with the first loss. When a client stops the
cluster, engines, launcher, job and controller end one after the other, in any order, so a loss is evaluated after
a grace period, when its reason is known: a request, the end of the walltime, or a failure. A job's engines are
lost before the batch system reports the reason; then it is asked.

All actions are effects: :class:`StartEngines` (also for a restart, or as a new job), :class:`AskQueue`,
:class:`Started` and :class:`LogLine` for the user, :class:`Stopped`. A controller that was killed is started again
in any state, by :mod:`~ipmpi.launch.cluster.controllerends`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ipmpi.exits import how_it_ended
from ipmpi.launch.batch.registry import JobState, JobStatus
from ipmpi.launch.cluster import happenings as h, patience
from ipmpi.launch.cluster.controllerends import ControllerEnds
from ipmpi.launch.cluster.effects import AskQueue, Cause, Effect, LogLine, Started, StartEngines, Stopped
from ipmpi.launch.cluster.happenings import Happening
from ipmpi.launch.cluster.jobends import ENDS, is_near_end, time_of_day
from ipmpi.launch.cluster.plan import Phase as Phase, Plan as Plan
from ipmpi.launch.processes.restarts import WITHOUT_ENGINES, Restarts


class Lifecycle:
    """Converts events of controller and engines to effects.

    Args:
        plan: the requested cluster.
        now: seconds of any monotonic clock.
    """

    def __init__(self, plan: Plan, now: float) -> None:
        self.plan = plan
        self.phase = Phase.STARTING
        self.controller_ready = False
        # A job may wait in the queue: the time for its engines begins when it runs.
        self._start_deadline = None if plan.batch and not plan.engines_wait else now + plan.timeout
        self._registered = 0
        self._own = plan.n  # expected engines of this launch
        self._others = 0  # engines that belong to other launches
        self._reported = plan.n
        self._was_up = False
        self._started_again = False
        self._missed = False  # engines of ours may come back
        self._resubmissions = plan.resubmit
        self._restarts = Restarts(plan.restarts)
        self._controller = ControllerEnds()
        self._tasks = 0  # unfinished tasks
        self._without_engines_until: float | None = None
        self._restarted = ""  # why the controller has ended ours, which are to be started again
        self._losses: list[str] = []
        self._failures: list[str] = []
        self._told = 0
        self._loss_deadline: float | None = None
        self._end_deadline: float | None = None
        self._end: tuple[int, Cause] = (1, Cause.ENGINES)
        self._may_go_on = False
        self._job_id = ""
        self._job: JobStatus | None = None
        self._job_runs_since: float | None = None
        self._ask_at: float | None = None
        self._ask_interval = patience.ASK_FIRST
        self._patience = self._patience_for_end = 0.0
        self._submit_at: float | None = None
        self._tries = 0
        self._unclear = False

    def deadline(self) -> float | None:
        """When to call :meth:`tick`, or None."""
        if self.phase is Phase.OVER:
            return None
        start = self._start_deadline if self.phase is Phase.STARTING else None
        times = (
            start, self._loss_deadline, self._end_deadline, self._ask_at, self._submit_at,
            self._without_engines_until, self._controller.due,
        )  # fmt: skip
        return min((time for time in times if time is not None), default=None)

    def happened(self, happening: Happening, now: float) -> list[Effect]:
        """Handle an event; return the effects."""
        return _MEANING[type(happening)](self, happening, now)

    def tick(self, now: float) -> list[Effect]:
        """Handle deadlines; return the effects."""
        if (again := self._controller.start(now)) is not None and self.phase is not Phase.OVER:
            return [again]
        if self.phase is Phase.STARTING and self._start_deadline is not None and now >= self._start_deadline:
            return self._timed_out(now)
        ending = self.phase is Phase.RUNNING or (self.phase is Phase.STARTING and self._was_up)
        if ending and self._end_deadline is not None and now >= self._end_deadline:
            return self._launch_ended(now)
        if self._without_engines_until is not None and now >= self._without_engines_until:
            return self._over(1, "All engines have ended, and no others came.", Cause.ENGINES)
        if self.phase is Phase.RUNNING and self._loss_deadline is not None and now >= self._loss_deadline:
            return self._report_loss(now)
        if self.phase is Phase.QUEUED and self._submit_at is not None and now >= self._submit_at:
            self._submit_at = None
            return [StartEngines("Submitting the job again.")]
        if self.phase is not Phase.OVER and self._ask_at is not None and now >= self._ask_at:
            longest = patience.ASK_RUNNING if self._all_there else patience.ASK_LONGEST
            self._ask_interval = min(self._ask_interval * patience.ASK_FACTOR, longest)
            self._ask_at = now + self._ask_interval
            return [AskQueue()]
        return []

    # --- controller and engines --------------------------------------------------------------------------

    def ready(self) -> list[Effect]:
        """The controller is ready."""
        if self.controller_ready:
            return []  # started again: engines come back by themselves
        self.controller_ready = True
        if self.plan.batch:
            self._start_deadline = None
        return [StartEngines()] if self.plan.engines_wait else []

    def engines(
        self, count: int, now: float, ordered: bool = False, tasks: int = 0, aborted: str = "", restarted: str = ""
    ) -> list[Effect]:
        """The controller reports what :class:`~ipmpi.launch.cluster.happenings.EngineCount` has."""
        self._registered = count
        self._tasks = tasks
        if self._without_engines_until is not None and count:
            self._without_engines_until = None
            self._others = self._reported = count
            return [LogLine(f"{count} engine{'s are' if count != 1 else ' is'} there again.")]
        if self.phase is Phase.RUNNING and (ordered or aborted) and not count:
            reason = aborted or "All engines were ended by a client."
            return self._over(int(bool(aborted)), reason, Cause.ENGINES if aborted else Cause.NOBODY)
        if self.phase is Phase.RUNNING and restarted and not count and not self.plan.batch:
            self._restarted = restarted
            if self._end_deadline is not None:  # their launcher has been faster
                return self._start_as_asked(restarted, now)
        if self._submit_at is not None:
            return []  # ours are not even in the queue
        if self.phase in (Phase.STARTING, Phase.QUEUED) and self._all_there:
            return self._up(now)
        if self.phase is Phase.RUNNING and self._missed and self._all_there:
            return self._up(now)
        if self.phase is Phase.RUNNING:
            self._others = max(self._others, count - self._own)
        self._reported = max(self._reported, min(count, self._own + self._others))
        if self.phase is Phase.RUNNING and self._end_deadline is not None and count <= self._others:
            self._end_deadline = min(self._end_deadline, now + patience.EXPLANATION_GRACE)
        if self.phase is not Phase.RUNNING or self._end_deadline is not None:
            return []
        if not count and not self._own:
            self._end_deadline = now + patience.EXPLANATION_GRACE
        elif count < self._reported and self._loss_deadline is None:
            self._loss_deadline = max(now + patience.EXPLANATION_GRACE, self._controller.returns_until)
            self._patience = now + patience.JOB_GRACE
            self._ask_soon(now)
        return []

    def controller_ended(self, code: int, now: float) -> list[Effect]:
        """The controller's process ended."""
        if not self.controller_ready:
            return self._over(1, f"The controller could not start ({how_it_ended(code)}).", Cause.CONTROLLER)
        if code == 0:
            return self._over(0, "The cluster was stopped by a client.", Cause.NOBODY)
        given_up = "" if self.phase is Phase.OVER else self._controller.ended(code, now)
        return self._over(1, given_up, Cause.CONTROLLER) if given_up else []

    def engines_ended(
        self, title: str, code: int, left: int, now: float, chance: str = "", asked: str = ""
    ) -> list[Effect]:
        """An engine process or a launcher has ended; ``left`` others still run.

        Args:
            title: its name in messages.
            code: its exit code.
            left: number of others that run.
            now: the time.
            chance: its output, if the failure is transient and no engine was registered yet.
            asked: why it is to be started again.
        """
        asked = asked or self._restarted
        if asked and self._was_up and self.phase is not Phase.OVER:
            return [] if left else self._start_as_asked(asked, now)
        if self.phase is Phase.STARTING and chance and not self._started_again:
            self._started_again = True
            return [StartEngines(f'{title} ended ({how_it_ended(code)}): "{chance}" It is started once more.')]
        if self.phase is Phase.STARTING and not self._was_up:
            story = "; ".join([f"{title} ended ({how_it_ended(code)})", *self._failures])
            return self._over(1, f"The engines could not start: {story}.", Cause.ENGINES)
        if self.phase in (Phase.RUNNING, Phase.STARTING):
            self._losses.append(f"{title} ended ({how_it_ended(code)})")
            if left == 0:
                self._loss_deadline = None
                self._end_deadline = now + patience.EXPLANATION_GRACE
                self._patience_for_end = now + patience.JOB_GRACE
            elif self._loss_deadline is None:
                self._loss_deadline = now + patience.EXPLANATION_GRACE
        return []

    def rank_failed(self, text: str) -> list[Effect]:
        """A rank ended before others; it is reported with the consequences."""
        self._failures.append(text)
        return []

    def rank_ended(self, pid: int) -> list[Effect]:
        """One of several ranks has ended, and the launcher has not ended the others."""
        if self.phase is not Phase.STARTING or self._was_up:
            return []  # the controller reports the loss of a registered engine
        which = f"one of the {self.plan.n} (process {pid}) ended before it was registered"
        return self._over(1, f"The engines could not start: {which}.", Cause.ENGINES)

    def stop_requested(self) -> list[Effect]:
        """The user has requested a stop."""
        return self._over(0, "", Cause.NOBODY)

    # --- the job -----------------------------------------------------------------------------------------

    def submitted(self, job: str, now: float) -> None:
        """The engines' job was submitted."""
        self._job_id = job
        self.phase = Phase.QUEUED
        self._tries = 0
        self._job = None
        self._job_runs_since = None
        self._ask_soon(now)

    def not_submitted(self, why: str, now: float) -> list[Effect]:
        """The batch system has refused a resubmitted job."""
        self._tries += 1
        if self._tries >= patience.SUBMIT_TRIES:
            return self._over(1, f"The job cannot be submitted again: {why}", Cause.NOBODY)
        self.phase = Phase.QUEUED
        self._ask_at = None
        self._submit_at = now + patience.SUBMIT_PAUSE
        return [LogLine(f"{why}. It is tried again in {patience.SUBMIT_PAUSE:g} s.")]

    def job(self, status: JobStatus, now: float) -> list[Effect]:
        """The batch system has replied about the job."""
        if status.id != self._job_id:
            return []  # about the previous job
        if status.state is JobState.UNKNOWN:
            return self.job_unclear(status.reason)
        before, self._job = self._job, status
        self._unclear = False
        if self.phase is not Phase.RUNNING and (before is None or before.state is not status.state):
            self._ask_interval = patience.ASK_FIRST
        meaning = _JOB.get((self.phase, status.state))
        return [] if meaning is None else meaning(self, status, before, now)

    def started_again(self, number: str, now: float) -> list[Effect]:
        """The job script has restarted engines that had all ended."""
        if self.phase not in (Phase.STARTING, Phase.RUNNING) or self._end_deadline is not None:
            return []
        story = self._story()
        causes = f" ({story})" if story else ""
        self._missed = True
        self._loss_deadline = None
        if self._registered <= self._others:  # other elements of an array may run
            self.phase = Phase.STARTING
            self._start_deadline = now + self.plan.timeout
            self._ask_soon(now)
        return [
            LogLine(f"Engines of job {self._job_id} have ended{causes}. The job starts them again ({number}).")
        ]

    def job_unclear(self, why: str) -> list[Effect]:
        """The batch system did not reply. It will be asked again."""
        first, self._unclear = not self._unclear, True
        text = f"What becomes of job {self._job_id} is not known now: {why or 'no answer'}"
        return [LogLine(text)] if first else []

    def _waits(self, status: JobStatus, before: JobStatus | None, _now: float) -> list[Effect]:
        if before is not None and before.state is JobState.PENDING and before.reason == status.reason:
            return []
        reason = f" ({status.reason})" if status.reason and status.reason.lower() != "none" else ""
        start = "" if status.start is None else f", expected to start at {time_of_day(status.start)}"
        return [LogLine(f"Job {status.id} waits in the queue{reason}{start}.")]

    def _runs(self, status: JobStatus, _before: JobStatus | None, now: float) -> list[Effect]:
        self.phase = Phase.STARTING
        self._job_runs_since = now
        self._start_deadline = now + self.plan.timeout
        where = f" on {status.nodes}" if status.nodes else ""
        return [LogLine(f"Job {status.id} runs{where}; its engines start.")]

    def _back_in_queue(self, status: JobStatus, _before: JobStatus | None, now: float) -> list[Effect]:
        self._to_queue(now)
        reason = f" ({status.reason})" if status.reason else ""
        return [LogLine(f"Job {status.id} is back in the queue{reason}. Tasks wait for it.")]

    def _ends_early(self, status: JobStatus, _before: JobStatus | None, _now: float) -> list[Effect]:
        _, how, blame = ENDS.get(status.outcome, ENDS["failed"])
        if status.outcome == "preempted" and self._resubmissions:
            return self._resubmitted(f"job {status.id} {how}")
        if self.phase is Phase.STARTING:
            blame = Cause.ENGINES
        reason = f" ({status.reason})" if status.reason else ""
        again = " again" if self._was_up else ""
        text = f"Job {status.id} {how}{reason}, before all {self.plan.n} engines were registered{again}."
        return self._over(1, text, blame)

    def _ends(self, status: JobStatus, _before: JobStatus | None, now: float) -> list[Effect]:
        if self._end_deadline is not None:
            return []
        code, how, blame = ENDS.get(status.outcome, ENDS["failed"])
        preempted = status.outcome == "preempted"
        ran = 0.0 if self._job_runs_since is None else now - self._job_runs_since
        at_walltime = not preempted and (
            status.outcome == "timeout" or is_near_end(status, self.plan.walltime, ran)
        )
        self._may_go_on = preempted or at_walltime
        if at_walltime:
            code, how, blame = ENDS["timeout"]
        reason = f" ({status.reason})" if status.reason and code else ""
        self._losses.append(f"job {status.id} {how}{reason}")
        self._end = (code, blame)
        self._loss_deadline = None
        # The batch system may know before the engines end, whose own messages are more precise.
        leaving = self._registered > self._others
        self._end_deadline = now + (patience.JOB_GRACE if leaving else patience.EXPLANATION_GRACE)
        return []

    # --- ends and beginnings -----------------------------------------------------------------------------

    @property
    def _all_there(self) -> bool:
        return self._registered >= self._own + self._others

    def _up(self, now: float) -> list[Effect]:
        self.phase = Phase.RUNNING
        self._missed = False
        self._loss_deadline = None
        self._restarts.up(now)
        self._reported = self._registered
        self._ask_interval = patience.ASK_RUNNING
        if self._job_runs_since is None:
            self._job_runs_since = now
        if self._was_up:
            return [LogLine(f"All {self.plan.n} engines are there again.")]
        self._was_up = True
        return [Started()]

    def _to_queue(self, now: float) -> None:
        self.phase = Phase.QUEUED
        self._others = max(0, self._registered - self.plan.n)
        self._loss_deadline = self._end_deadline = self._job_runs_since = None
        self._ask_soon(now)

    def _ask_soon(self, now: float) -> None:
        if self._job_id:
            self._ask_interval = patience.ASK_FIRST
            self._ask_at = now + patience.ASK_FIRST / 2

    def _timed_out(self, now: float) -> list[Effect]:
        self._start_deadline = None
        if not self.controller_ready:
            reason = f"The controller was not ready after {self.plan.timeout:g} s."
            return self._over(1, reason, Cause.CONTROLLER)
        reason = (
            f"Only {self._registered} of {self.plan.n} engines were registered after {self.plan.timeout:g} s. "
        )
        if (self.plan.batch or self._was_up) and self._registered > self._others:
            # The job may have waited in the queue for a day: keep it with fewer ranks.
            return [LogLine(reason + "They can be used, and those that come later too."), *self._up(now)]
        hint = "If that is a matter of time (a slow file system), wait longer with --timeout SECONDS."
        return self._over(1, reason + hint, Cause.ENGINES)

    def _report_loss(self, now: float) -> list[Effect]:
        self._loss_deadline = None
        if self._registered >= self._reported:
            return []  # it came back, or the controller still keeps its session
        if self._job_id and self._registered <= self._others and now < self._patience:
            self._loss_deadline = now + patience.EXPLANATION_GRACE  # the batch system will report the reason
            return []
        story = self._story()
        causes = f" ({story})" if story else ""
        self._missed = bool(self._job_id) and self._registered <= self._others
        self._reported = self._registered
        rest = " The others keep working." if self._registered else ""
        return [LogLine(f"{self._registered} of {self._own + self._others} engines are left{causes}.{rest}")]

    def _story(self) -> str:
        """Return what was lost since the last report, and why."""
        told = [*self._losses[self._told :], *self._failures]
        self._told = len(self._losses)
        self._failures.clear()
        return "; ".join(told)

    def _launch_ended(self, now: float) -> list[Effect]:
        """All processes of the launch, or its job, have ended, not by a client's request."""
        if self.plan.restarts and self._own and self._registered > self._others and now < self._patience_for_end:
            self._end_deadline = now + patience.EXPLANATION_GRACE / 4  # the controller has not noticed yet
            return []
        self._end_deadline = None
        story = self._story()
        if self._may_go_on and self._resubmissions:
            return self._resubmitted(story)
        if self._others and self._registered and self._own:
            # Ours may still be registered, while the controller keeps their session.
            self._others = self._reported = max(self._registered - self._own, 1)
            self._own = 0
            self._job_id, self._ask_at = "", None  # no more questions about it
            return [LogLine(f"The engines that were started here have ended: {story}. Others keep working.")]
        story = story or "the last of them"
        code, blame = self._end
        if self.plan.restarts and code:
            effects = self._go_on(story, now)
            if effects:
                return effects
        return self._over(code, f"All engines have ended: {story or 'the last of them'}.", blame)

    def _go_on(self, story: str, now: float) -> list[Effect]:
        """No engine is left: restart them, or let tasks wait for others; return [] if neither applies."""
        number = "" if self.plan.batch or not self._own else self._restarts.take(now)
        if number:
            return self._start_again(f"All engines have ended: {story}. They are started again ({number}).", now)
        if not self._tasks:
            return []
        self._own = self._others = self._reported = 0
        self._job_id, self._ask_at = "", None
        self._without_engines_until = now + WITHOUT_ENGINES
        tasks = f"{self._tasks} task{'s wait' if self._tasks != 1 else ' waits'} for others"
        how = f"`ipcluster engines` starts some, within {WITHOUT_ENGINES / 60:.0f} minutes"
        return [LogLine(f"All engines have ended: {story}. {tasks}: {how}.")]

    def _start_as_asked(self, why: str, now: float) -> list[Effect]:
        """Restart them for a reason that does not count among the restarts after failures."""
        self._restarted = ""
        self._story()  # it is this one
        return self._start_again(f"{why[0].upper()}{why[1:]}. The engines have ended, and are started again.", now)

    def _start_again(self, text: str, now: float) -> list[Effect]:
        self.phase, self._start_deadline = Phase.STARTING, now + self.plan.timeout
        self._loss_deadline = self._end_deadline = None
        return [StartEngines(text)]

    def _resubmitted(self, story: str) -> list[Effect]:
        self._may_go_on = False
        self._job_id, self._ask_at, self._end_deadline = "", None, None  # later replies about it are ignored
        self._resubmissions -= 1
        self._others = max(0, self._registered - self.plan.n)
        number = f" ({self.plan.resubmit - self._resubmissions} of {self.plan.resubmit})"
        which = number if self.plan.resubmit < 1000 else ""
        return [StartEngines(f"{story[0].upper()}{story[1:]}. Submitting it again{which}; tasks wait for it.")]

    def _over(self, code: int, reason: str, blame: Cause) -> list[Effect]:
        if self.phase is Phase.OVER:
            return []
        self.phase = Phase.OVER
        return [Stopped(code, reason, blame)]


_JobMeaning = Callable[[Lifecycle, JobStatus, "JobStatus | None", float], "list[Effect]"]
_JOB: Final[Mapping[tuple[Phase, JobState], _JobMeaning]] = {
    (Phase.QUEUED, JobState.PENDING): Lifecycle._waits,
    (Phase.QUEUED, JobState.RUNNING): Lifecycle._runs,
    (Phase.QUEUED, JobState.ENDED): Lifecycle._ends_early,
    (Phase.STARTING, JobState.PENDING): Lifecycle._back_in_queue,
    (Phase.STARTING, JobState.ENDED): Lifecycle._ends_early,
    (Phase.RUNNING, JobState.PENDING): Lifecycle._back_in_queue,
    (Phase.RUNNING, JobState.ENDED): Lifecycle._ends,
}
"""Handlers of changes of the job's state; other pairs of states have no effect."""

_MEANING: Final[Mapping[type, Callable[[Lifecycle, Any, float], list[Effect]]]] = {
    h.ControllerReady: lambda life, _what, _now: life.ready(),
    h.EngineCount: lambda life, what, now: life.engines(
        what.registered, now, what.ordered, what.tasks, what.aborted, what.restarted
    ),
    h.ControllerEnded: lambda life, what, now: life.controller_ended(what.code, now),
    h.EnginesEnded: lambda life, what, now: life.engines_ended(
        what.title, what.code, what.left, now, what.chance, what.asked
    ),
    h.RankEnded: lambda life, what, _now: life.rank_ended(what.pid),
    h.RankFailed: lambda life, what, _now: life.rank_failed(what.text),
    h.JobNews: lambda life, what, now: life.job(what.status, now),
    h.JobUnclear: lambda life, what, _now: life.job_unclear(what.why),
    h.StartedAgain: lambda life, what, now: life.started_again(what.number, now),
    h.NotSubmitted: lambda life, what, now: life.not_submitted(what.why, now),
    h.StopRequest: lambda life, _what, _now: life.stop_requested(),
}
