"""What the events in the life of a cluster mean whose engines are a job."""

from __future__ import annotations

import random

import pytest

from ipmpi.launch.batch.registry import JobState, JobStatus
from ipmpi.launch.cluster.effects import AskQueue, Cause, Effect, LogLine, Started, StartEngines, Stopped
from ipmpi.launch.cluster.happenings import (
    ControllerReady,
    EngineCount,
    JobNews,
    JobUnclear,
    NotSubmitted,
    RankFailed,
    StartedAgain,
)
from ipmpi.launch.cluster.lifecycle import Lifecycle, Phase, Plan
from ipmpi.launch.cluster.patience import (
    ASK_LONGEST,
    ASK_RUNNING,
    EXPLANATION_GRACE,
    JOB_GRACE,
    SUBMIT_PAUSE,
    SUBMIT_TRIES,
)

DAY = 86400.0


def status(state: JobState, id: str = "12", **more: object) -> JobStatus:
    return JobStatus(id, state, state.name, **more)  # type: ignore[arg-type]


class Story:
    """A life cycle, and its clock."""

    def __init__(self, n: int = 4, **plan: object) -> None:
        self.now = 0.0
        self.life = Lifecycle(Plan(n, 60, engines_wait=True, batch=True, **plan), self.now)  # type: ignore[arg-type]

    def submitted(self, id: str = "12") -> Story:
        assert self.life.happened(ControllerReady({}), self.now) == [StartEngines()]
        self.life.submitted(id, self.now)
        return self

    def running(self) -> Story:
        self.submitted()
        self.job(JobState.RUNNING, start=self.now)
        assert self.count(4) == [Started()]
        return self

    def job(self, state: JobState, id: str = "12", **more: object) -> list[Effect]:
        return self.life.happened(JobNews(status(state, id, **more)), self.now)

    def count(self, n: int, ordered: bool = False) -> list[Effect]:
        return self.life.happened(EngineCount(n, ordered), self.now)

    def wait(self, seconds: float) -> list[Effect]:
        """Everything that time alone brings, but for questions to the batch system."""
        end, effects = self.now + seconds, []
        while (deadline := self.life.deadline()) is not None and deadline <= end:
            self.now = deadline
            effects += self.life.tick(self.now)
        self.now = end
        return [effect for effect in effects if not isinstance(effect, AskQueue)]

    def questions(self, seconds: float) -> int:
        end, count = self.now + seconds, 0
        while (deadline := self.life.deadline()) is not None and deadline <= end:
            self.now = deadline
            count += self.life.tick(self.now).count(AskQueue())
        self.now = end
        return count


def test_a_job_may_wait_for_days() -> None:
    story = Story().submitted()
    assert story.wait(3 * DAY) == []
    assert story.life.phase is Phase.QUEUED
    story.job(JobState.RUNNING)
    assert story.life.phase is Phase.STARTING
    assert story.count(4) == [Started()]


def test_the_reason_is_said_when_it_changes() -> None:
    story = Story().submitted()
    assert story.job(JobState.PENDING, reason="Priority") == [LogLine("Job 12 waits in the queue (Priority).")]
    assert story.job(JobState.PENDING, reason="Priority") == []
    (note,) = story.job(JobState.PENDING, reason="Resources", start=2_000_000_000.0)
    assert isinstance(note, LogLine)
    assert note.text.startswith("Job 12 waits in the queue (Resources), expected to start at 2033-05-1")
    assert story.job(JobState.RUNNING, nodes="n[1-3]") == [LogLine("Job 12 runs on n[1-3]; its engines start.")]


def test_the_batch_system_is_asked_seldom() -> None:
    story = Story().submitted()
    assert 5 <= story.questions(60) <= 8
    assert story.questions(3600) <= 3600 / ASK_LONGEST + 1
    story.job(JobState.RUNNING)
    story.count(4)
    story.questions(ASK_RUNNING)
    assert story.questions(3600) <= 3600 / ASK_RUNNING + 1


def test_a_lost_engine_is_asked_about_at_once() -> None:
    story = Story().running()
    story.questions(1000)
    story.count(0)
    assert story.questions(2) == 1


def test_engines_of_a_job_that_has_ended_may_say_why_they_go() -> None:
    story = Story().running()
    assert story.job(JobState.ENDED, outcome="cancelled") == []
    assert story.wait(JOB_GRACE / 2) == [], "Slurm knows before its nodes do"
    assert story.count(0) == []
    (over,) = story.wait(EXPLANATION_GRACE)
    assert over == Stopped(0, "All engines have ended: job 12 was cancelled.", Cause.NOBODY)


def test_engines_that_stay_after_their_job_are_not_waited_for_for_ever() -> None:
    story = Story().running()
    story.job(JobState.ENDED, outcome="cancelled")
    assert [type(effect) for effect in story.wait(JOB_GRACE)] == [Stopped]


def test_engines_may_be_there_before_the_batch_system_knows() -> None:
    story = Story().submitted()
    assert story.count(4) == [Started()]
    assert story.job(JobState.RUNNING) == []


@pytest.mark.parametrize(
    ("outcome", "words", "code"),
    [
        ("cancelled", "job 12 was cancelled", 0),
        ("completed", "job 12 has ended", 0),
        ("timeout", "job 12 ended at its walltime", 0),
        ("preempted", "job 12 was preempted by a job that goes first", 0),
        ("failed", "job 12 failed (OutOfMemory)", 1),
        ("node-failure", "job 12 lost a node (OutOfMemory)", 1),
        ("", "job 12 has ended (OutOfMemory)", 1),
    ],
)
def test_the_end_of_a_job_is_told_once_with_its_reason(outcome: str, words: str, code: int) -> None:
    story = Story().running()
    assert story.count(2) == []
    assert story.count(0) == []
    assert story.wait(5) == []
    assert story.job(JobState.ENDED, outcome=outcome, reason="OutOfMemory") == []
    assert story.job(JobState.ENDED, outcome=outcome, reason="OutOfMemory") == []
    (over,) = story.wait(EXPLANATION_GRACE)
    assert over == Stopped(code, f"All engines have ended: {words}.", Cause.ENGINES if code else Cause.NOBODY)


def test_engines_that_are_gone_while_the_job_goes_on_are_told_after_all() -> None:
    story = Story().running()
    story.count(0)
    assert story.wait(JOB_GRACE + 5) == [LogLine("0 of 4 engines are left.")]
    assert story.wait(1000) == []


def test_a_client_that_stops_everything_is_no_failure_of_the_job() -> None:
    story = Story().running()
    story.count(0)
    story.job(JobState.ENDED, outcome="failed")
    assert story.life.controller_ended(0, 10) == [Stopped(0, "The cluster was stopped by a client.", Cause.NOBODY)]


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.RUNNING])
def test_a_job_that_ends_before_its_engines_are_there(state: JobState) -> None:
    story = Story().submitted()
    story.job(state)
    text = "Job 12 failed (NonZeroExitCode), before all 4 engines were registered."
    assert story.job(JobState.ENDED, outcome="failed", reason="NonZeroExitCode") == [
        Stopped(1, text, Cause.ENGINES)
    ]


def test_a_job_that_is_cancelled_in_the_queue_needs_no_logs() -> None:
    story = Story().submitted()
    text = "Job 12 was cancelled, before all 4 engines were registered."
    assert story.job(JobState.ENDED, outcome="cancelled") == [Stopped(1, text, Cause.NOBODY)]


def test_at_its_walltime_a_job_is_submitted_again() -> None:
    story = Story(walltime=3600.0, resubmit=2).running()
    story.wait(3590)
    story.count(0)
    story.job(JobState.ENDED, outcome="timeout")
    (again,) = story.wait(EXPLANATION_GRACE)
    text = "Job 12 ended at its walltime. Submitting it again (1 of 2); tasks wait for it."
    assert again == StartEngines(text)
    story.life.submitted("13", story.now)
    assert story.job(JobState.ENDED, "12", outcome="timeout") == []  # an answer about the one before
    assert story.wait(DAY) == []
    story.job(JobState.RUNNING, "13", start=story.now)
    assert story.count(4) == [LogLine("All 4 engines are there again.")]
    story.count(0)
    story.job(JobState.ENDED, "13", outcome="timeout")
    (again,) = story.wait(EXPLANATION_GRACE)
    assert isinstance(again, StartEngines)
    story.life.submitted("14", story.now)
    story.count(4)
    story.count(0)
    story.job(JobState.ENDED, "14", outcome="timeout")
    assert story.wait(EXPLANATION_GRACE) == [
        Stopped(0, "All engines have ended: job 14 ended at its walltime.", Cause.NOBODY)
    ]


def test_an_old_answer_about_the_last_job_does_not_end_the_next_one() -> None:
    story = Story(walltime=3600.0, resubmit=1).running()
    story.wait(3590)
    story.count(0)
    story.job(JobState.ENDED, outcome="timeout")
    (again,) = story.wait(EXPLANATION_GRACE)
    assert isinstance(again, StartEngines)
    story.job(JobState.ENDED, outcome="timeout")
    story.life.submitted("13", story.now)
    story.job(JobState.RUNNING, "13")
    assert story.count(4) == [LogLine("All 4 engines are there again.")]
    assert not [effect for effect in story.wait(60) if isinstance(effect, Stopped)]


@pytest.mark.parametrize(("ran", "again"), [(3500.0, True), (1800.0, False)])
def test_a_job_that_ended_just_before_its_walltime_ended_because_of_it(ran: float, again: bool) -> None:
    """Engines that were warned may have left in good order."""
    story = Story(walltime=3600.0, resubmit=1).running()
    story.count(0)
    story.job(JobState.ENDED, outcome="completed", start=1000.0, end=1000.0 + ran)
    (effect,) = story.wait(EXPLANATION_GRACE)
    assert isinstance(effect, StartEngines) == again


def test_a_preempted_job_is_submitted_again_without_any_walltime() -> None:
    story = Story(resubmit=1).running()
    story.count(0)
    story.job(JobState.ENDED, outcome="preempted")
    (again,) = story.wait(EXPLANATION_GRACE)
    text = "Job 12 was preempted by a job that goes first. Submitting it again (1 of 1); tasks wait for it."
    assert again == StartEngines(text)


def test_a_job_that_is_preempted_while_its_engines_start_is_submitted_again() -> None:
    story = Story(resubmit=1).submitted()
    story.job(JobState.RUNNING, start=story.now)
    (again,) = story.job(JobState.ENDED, outcome="preempted")
    assert isinstance(again, StartEngines)
    story.life.submitted("13", story.now)
    story.job(JobState.RUNNING, "13", start=story.now)
    (over,) = story.job(JobState.ENDED, "13", outcome="preempted")
    assert isinstance(over, Stopped)


def test_a_cancelled_job_is_not_submitted_again() -> None:
    story = Story(walltime=3600.0, resubmit=1).running()
    story.wait(3590)
    story.count(0)
    story.job(JobState.ENDED, outcome="cancelled")
    assert isinstance(story.wait(EXPLANATION_GRACE)[0], Stopped)


def test_a_job_that_the_batch_system_starts_again_is_waited_for() -> None:
    story = Story().running()
    story.count(0)
    note = LogLine("Job 12 is back in the queue (BeginTime). Tasks wait for it.")
    assert story.job(JobState.PENDING, reason="BeginTime") == [note]
    assert story.wait(DAY) == []
    story.job(JobState.RUNNING)
    assert story.count(4) == [LogLine("All 4 engines are there again.")]


def test_a_few_missing_engines_do_not_give_the_job_back() -> None:
    story = Story().submitted()
    story.job(JobState.RUNNING)
    story.count(3)
    note, started = story.wait(60)
    text = "Only 3 of 4 engines were registered after 60 s. They can be used, and those that come later too."
    assert (note, started) == (LogLine(text), Started())
    assert story.count(4) == []
    assert story.wait(1000) == []


def test_no_engine_at_all_gives_it_back() -> None:
    story = Story().submitted()
    story.job(JobState.RUNNING)
    (over,) = story.wait(60)
    assert isinstance(over, Stopped)
    assert over.reason.startswith("Only 0 of 4 engines were registered after 60 s.")


def test_engines_of_others_go_on_without_ours() -> None:
    story = Story().running()
    story.count(6)
    story.count(2)
    story.job(JobState.ENDED, outcome="cancelled")
    assert story.wait(1) == []
    story.count(6)  # the controller may notice late
    text = "The engines that were started here have ended: job 12 was cancelled. Others keep working."
    assert story.wait(5) == [LogLine(text)]
    assert story.count(2) == []
    assert story.wait(100) == []
    story.count(0)
    assert story.wait(5) == [Stopped(0, "All engines have ended: the last of them.", Cause.NOBODY)]


def test_a_batch_system_that_does_not_answer_is_mentioned_once() -> None:
    story = Story().submitted()
    note = LogLine("What becomes of job 12 is not known now: squeue: timed out")
    assert story.life.happened(JobUnclear("squeue: timed out"), 1) == [note]
    assert story.job(JobState.UNKNOWN, reason="squeue: timed out") == []
    story.job(JobState.PENDING)
    assert story.job(JobState.UNKNOWN, reason="squeue: timed out") == [note]
    assert story.life.phase is Phase.QUEUED


def test_a_job_that_is_not_taken_again_is_tried_for_a_while() -> None:
    story = Story(walltime=3600.0, resubmit=1).running()
    story.count(0)
    story.job(JobState.ENDED, outcome="timeout")
    story.wait(EXPLANATION_GRACE)
    for _ in range(SUBMIT_TRIES - 1):
        note = LogLine("sbatch: Socket timed out. It is tried again in 60 s.")
        assert story.life.happened(NotSubmitted("sbatch: Socket timed out"), story.now) == [note]
        assert story.wait(SUBMIT_PAUSE) == [StartEngines("Submitting the job again.")]
    reason = "The job cannot be submitted again: sbatch: Socket timed out"
    assert story.life.happened(NotSubmitted("sbatch: Socket timed out"), story.now) == [
        Stopped(1, reason, Cause.NOBODY)
    ]


def test_nobody_asks_about_our_job_when_others_go_on_without_it() -> None:
    story = Story(walltime=3600.0).running()
    story.count(6)
    story.count(2)
    story.job(JobState.ENDED, outcome="timeout")
    assert len(story.wait(5)) == 1  # ours have ended, others keep working
    assert story.questions(1000) == 0
    assert story.job(JobState.ENDED, outcome="timeout") == []
    story.count(2)
    story.count(1)
    assert story.wait(5) == [LogLine("1 of 2 engines are left. The others keep working.")]
    assert story.questions(1000) == 0
    assert story.life.phase is Phase.RUNNING


def test_engines_of_others_do_not_keep_a_job_from_being_submitted_again() -> None:
    story = Story(walltime=3600.0, resubmit=1).running()
    story.count(0)
    story.job(JobState.ENDED, outcome="timeout")
    story.wait(EXPLANATION_GRACE)
    story.life.happened(NotSubmitted("sbatch: Socket timed out"), story.now)
    assert story.count(4) == []  # `ipcluster engines -n 4`, meanwhile
    assert story.wait(SUBMIT_PAUSE) == [StartEngines("Submitting the job again.")]


class Chance:
    """A batch system, engines and time that do whatever they like."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        resubmit = self.random.choice([0, 1, 3])
        self.story = Story(walltime=self.random.choice([None, 600.0]), resubmit=resubmit)
        self.jobs = 0
        self.act(self.story.life.happened(ControllerReady({}), 0.0))

    def act(self, effects: list[Effect]) -> None:
        """Do what is asked for, or fail to."""
        story = self.story
        for effect in effects:
            if isinstance(effect, StartEngines) and self.jobs and self.random.random() < 0.3:
                self.act(story.life.happened(NotSubmitted("busy"), story.now))
            elif isinstance(effect, StartEngines):
                self.jobs += 1
                story.life.submitted(str(self.jobs), story.now)
            elif isinstance(effect, AskQueue):
                outcome = self.random.choice(["timeout", "completed", "cancelled", "failed", "node-failure", ""])
                self.act(story.job(self.random.choice(list(JobState)), str(self.jobs), outcome=outcome))

    def step(self) -> bool:
        """Let something happen, or time pass; whether the clock has moved."""
        story, before = self.story, self.story.now
        deadline = story.life.deadline()
        if deadline is None or self.random.random() < 0.4:
            story.now += self.random.random() * 3
            self.act(story.count(self.random.randrange(9)))
        else:
            story.now = max(story.now, deadline)
        self.act(story.life.tick(story.now))
        return story.now > before


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_something_leads_on_and_nothing_spins(seed: int) -> None:
    chance = Chance(seed)
    life, still = chance.story.life, 0
    for _ in range(200):
        if life.phase is Phase.OVER:
            break
        assert life.phase is Phase.RUNNING or life.deadline() is not None
        still = 0 if chance.step() else still + 1
        assert still < 6


# --- The script of a job starts its engines again ---------------------------------------------------------


def again(story: Story, number: str = "1 of 3") -> list[Effect]:
    return story.life.happened(StartedAgain(number), story.now)


def test_a_job_that_starts_its_engines_again_is_waited_for() -> None:
    story = Story(restarts=3).running()
    story.life.happened(RankFailed("rank 2 (pid 7 on n1) was killed by SIGKILL"), story.now)
    assert story.count(3) == story.count(0) == []
    ended = "Engines of job 12 have ended (rank 2 (pid 7 on n1) was killed by SIGKILL). "
    assert again(story) == [LogLine(ended + "The job starts them again (1 of 3).")]
    assert story.life.phase is Phase.STARTING
    assert story.job(JobState.RUNNING) == story.count(2) == story.wait(50) == []
    assert story.count(4) == [LogLine("All 4 engines are there again.")]
    assert story.life.phase is Phase.RUNNING
    assert story.wait(1000) == []


def test_a_new_start_may_be_known_before_the_controller_has_lost_the_engines() -> None:
    story = Story(restarts=3).running()
    assert again(story) == [LogLine("Engines of job 12 have ended. The job starts them again (1 of 3).")]
    assert story.count(0) == story.wait(5) == []
    assert story.count(4) == [LogLine("All 4 engines are there again.")]
    assert story.wait(1000) == []


def test_engines_that_come_again_are_told_also_if_the_note_of_the_script_cannot_be_read() -> None:
    story = Story(restarts=3).running()
    story.count(0)
    assert story.wait(JOB_GRACE + 5) == [LogLine("0 of 4 engines are left.")]
    assert story.count(4) == [LogLine("All 4 engines are there again.")]


def test_a_new_start_that_brings_no_engines_has_a_deadline() -> None:
    story = Story(restarts=3).running()
    story.count(0)
    again(story)
    (over,) = story.wait(100)
    assert isinstance(over, Stopped)
    assert over.reason.startswith("Only 0 of 4 engines were registered after 60 s.")


def test_a_job_that_fails_at_its_new_start() -> None:
    story = Story(restarts=3).running()
    story.count(0)
    again(story)
    text = "Job 12 failed, before all 4 engines were registered again."
    assert story.job(JobState.ENDED, outcome="failed") == [Stopped(1, text, Cause.ENGINES)]


def test_one_of_several_sets_of_a_job_is_started_again() -> None:
    story = Story(restarts=3).running()
    story.life.engines(6, story.now)  # two of somebody else
    story.life.engines(4, story.now)
    (note,) = again(story)
    assert isinstance(note, LogLine)
    assert story.life.phase is Phase.RUNNING, "the others work"
    assert story.count(6) == [LogLine("All 4 engines are there again.")]


@pytest.mark.parametrize(("tasks", "outcome"), [(3, "failed"), (0, "failed"), (3, "cancelled")])
def test_tasks_of_a_job_that_has_failed_wait_for_other_engines(tasks: int, outcome: str) -> None:
    story = Story(restarts=3).running()
    story.life.happened(EngineCount(0, False, tasks), story.now)
    story.job(JobState.ENDED, outcome=outcome)
    (effect,) = story.wait(EXPLANATION_GRACE + 1)
    if tasks and outcome == "failed":
        assert isinstance(effect, LogLine)
        assert effect.text.startswith("All engines have ended: job 12 failed. 3 tasks wait for others:")
        assert story.count(2) == [LogLine("2 engines are there again.")]
    else:
        assert isinstance(effect, Stopped)
