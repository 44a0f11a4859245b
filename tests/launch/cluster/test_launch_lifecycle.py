"""What the events in the life of a cluster mean."""

from __future__ import annotations

import pytest

from ipmpi.launch.cluster.effects import Cause, LogLine, Started, StartEngines, Stopped
from ipmpi.launch.cluster.lifecycle import Lifecycle, Phase, Plan
from ipmpi.launch.cluster.patience import EXPLANATION_GRACE
from ipmpi.launch.processes.restarts import SETTLED, WITHOUT_ENGINES


def running(n: int = 4) -> Lifecycle:
    lifecycle = Lifecycle(Plan(n, 60), now=0)
    lifecycle.controller_ready = True
    assert lifecycle.engines(n, 1) == [Started()]
    return lifecycle


def test_up_only_when_all_engines_are_registered() -> None:
    lifecycle = Lifecycle(Plan(3, 60), now=100)
    assert lifecycle.deadline() == 160
    assert lifecycle.engines(1, 101) == []
    assert lifecycle.engines(2, 101) == []
    assert lifecycle.phase is Phase.STARTING
    assert lifecycle.engines(3, 101) == [Started()]
    assert lifecycle.deadline() is None


def test_the_timeout_says_how_far_it_got() -> None:
    lifecycle = Lifecycle(Plan(4, 60), now=0)
    lifecycle.controller_ready = True
    lifecycle.engines(3, 1)
    assert lifecycle.tick(59) == []
    (over,) = lifecycle.tick(60)
    assert isinstance(over, Stopped)
    assert over.reason.startswith("Only 3 of 4 engines were registered after 60 s.")
    assert (over.code, over.blame) == (1, Cause.ENGINES)


def test_the_timeout_blames_a_controller_that_never_was_ready() -> None:
    assert Lifecycle(Plan(4, 5), now=0).tick(6) == [
        Stopped(1, "The controller was not ready after 5 s.", Cause.CONTROLLER)
    ]


def test_a_client_that_stops_everything_is_no_failure() -> None:
    lifecycle = running()
    assert lifecycle.engines(2, 10) == []
    assert lifecycle.engines(0, 10) == []
    assert lifecycle.engines_ended("mpiexec", 0, 0, 10) == []
    assert lifecycle.controller_ended(0, 10) == [Stopped(0, "The cluster was stopped by a client.", Cause.NOBODY)]


def test_engines_that_ended_while_the_controller_lives_are_a_failure_after_a_grace() -> None:
    lifecycle = running()
    lifecycle.engines_ended("mpiexec", 137, 0, 10)
    assert lifecycle.deadline() == 10 + EXPLANATION_GRACE
    reason = "All engines have ended: mpiexec ended (exit code 137)."
    assert lifecycle.tick(10 + EXPLANATION_GRACE) == [Stopped(1, reason, Cause.ENGINES)]


def test_a_lost_engine_is_noted_once() -> None:
    lifecycle = running()
    lifecycle.engines(3, 10)
    text = "3 of 4 engines are left. The others keep working."
    assert lifecycle.tick(12) == [LogLine(text)]
    assert lifecycle.deadline() is None
    assert lifecycle.tick(20) == []


def test_an_engine_that_comes_back_in_time_is_not_mentioned() -> None:
    lifecycle = running()
    lifecycle.engines(3, 10)
    lifecycle.engines(4, 11)
    assert lifecycle.tick(12) == []


def test_the_cause_is_told_even_when_the_controller_notices_late() -> None:
    lifecycle = running()
    lifecycle.engines_ended("engine process 2", -9, 3, 10)
    assert lifecycle.tick(12) == []
    lifecycle.engines(3, 15)
    (note,) = lifecycle.tick(17)
    assert note == LogLine(
        "3 of 4 engines are left (engine process 2 ended (killed by SIGKILL)). The others keep working."
    )


def test_a_launcher_that_fails_by_chance_gets_one_more_try() -> None:
    lifecycle = Lifecycle(Plan(4, 60), now=0)
    (again,) = lifecycle.engines_ended("mpiexec", 1, 0, 1, chance="The listener failed.")
    assert again == StartEngines('mpiexec ended (exit code 1): "The listener failed." It is started once more.')
    (over,) = lifecycle.engines_ended("mpiexec", 1, 0, 2, chance="The listener failed.")
    assert over == Stopped(1, "The engines could not start: mpiexec ended (exit code 1).", Cause.ENGINES)


@pytest.mark.parametrize(("code", "words"), [(1, "exit code 1"), (-9, "killed by SIGKILL"), (0, "exit code 0")])
def test_a_controller_that_cannot_start(code: int, words: str) -> None:
    (over,) = Lifecycle(Plan(4, 60), now=0).controller_ended(code, 1)
    assert over == Stopped(1, f"The controller could not start ({words}).", Cause.CONTROLLER)


def test_one_rank_that_ends_while_starting_is_the_end() -> None:
    (over,) = Lifecycle(Plan(4, 60), now=0).rank_ended(77)
    assert isinstance(over, Stopped)
    assert "one of the 4 (process 77) ended before it was registered" in over.reason
    assert running().rank_ended(77) == []


def test_only_the_first_end_counts() -> None:
    lifecycle = running()
    assert lifecycle.stop_requested() == [Stopped(0, "", Cause.NOBODY)]
    assert lifecycle.controller_ended(1, 10) == []
    assert lifecycle.engines_ended("mpiexec", 1, 0, 5) == []
    assert lifecycle.deadline() is None


def test_engines_that_die_one_after_the_other_are_all_named_in_the_end() -> None:
    lifecycle = running(2)
    lifecycle.engines_ended("engine process 0", -9, 1, 10)
    lifecycle.engines_ended("engine process 1", -9, 0, 10.5)
    lifecycle.engines(0, 10.6)
    assert lifecycle.tick(12.1) == []
    assert lifecycle.deadline() == 10.5 + EXPLANATION_GRACE
    (over,) = lifecycle.tick(12.5)
    assert isinstance(over, Stopped)
    assert "engine process 0" in over.reason
    assert "engine process 1" in over.reason


def test_engines_that_a_client_ended_are_no_failure() -> None:
    lifecycle = Lifecycle(Plan(2, 60), now=0)
    lifecycle.engines(2, 1)
    (over,) = lifecycle.engines(0, 2, ordered=True)
    assert over.code == 0
    assert "ended by a client" in over.reason


def test_engines_that_end_by_themselves_are_one() -> None:
    lifecycle = Lifecycle(Plan(2, 60), now=0)
    lifecycle.engines(2, 1)
    assert lifecycle.engines(0, 2) == []


# --- engines that are started again --------------------------------------------------------------------------


def restarting(n: int = 2, restarts: int = 3) -> Lifecycle:
    lifecycle = Lifecycle(Plan(n, 60, restarts=restarts), now=0)
    lifecycle.controller_ready = True
    assert lifecycle.engines(n, 1) == [Started()]
    return lifecycle


def lose_all(lifecycle: Lifecycle, now: float, tasks: int = 0) -> list[object]:
    """The launcher ends, and the controller sees all engines go; what follows when it is sure."""
    assert lifecycle.engines_ended("mpiexec", 139, 0, now) == []
    assert lifecycle.engines(0, now, tasks=tasks) == []
    deadline = lifecycle.deadline()
    assert deadline is not None
    return list(lifecycle.tick(deadline))


def test_engines_that_have_all_ended_are_started_again_a_few_times() -> None:
    lifecycle = restarting()
    for number in (1, 2, 3):
        (start,) = lose_all(lifecycle, 10.0 * number)
        assert start == StartEngines(
            f"All engines have ended: mpiexec ended (exit code 139). They are started again ({number} of 3)."
        )
        assert lifecycle.engines(1, 10.0 * number + 3) == []
        assert lifecycle.engines(2, 10.0 * number + 3) == [LogLine("All 2 engines are there again.")]
    assert lose_all(lifecycle, 50) == [
        Stopped(1, "All engines have ended: mpiexec ended (exit code 139).", Cause.ENGINES)
    ]


def test_engines_that_have_lived_for_long_count_anew() -> None:
    lifecycle = restarting(restarts=1)
    assert isinstance(lose_all(lifecycle, 10)[0], StartEngines)
    lifecycle.engines(2, 15)
    assert isinstance(lose_all(lifecycle, 15 + SETTLED)[0], StartEngines)
    lifecycle.engines(2, 20 + SETTLED)
    assert isinstance(lose_all(lifecycle, 25 + SETTLED)[0], Stopped)


def test_they_wait_until_the_controller_has_seen_the_end_of_the_old_ones() -> None:
    lifecycle = restarting()
    lifecycle.engines_ended("mpiexec", 139, 0, 10)
    assert lifecycle.tick(12) == []
    assert lifecycle.tick(13) == []
    assert lifecycle.engines(0, 14) == []
    deadline = lifecycle.deadline()
    assert deadline is not None
    assert isinstance(lifecycle.tick(deadline)[0], StartEngines)


def test_engines_that_end_while_they_start_again_are_started_once_more() -> None:
    lifecycle = restarting()
    lose_all(lifecycle, 10)
    lifecycle.engines(1, 13)
    assert isinstance(lose_all(lifecycle, 14)[0], StartEngines)


def test_tasks_that_wait_keep_the_controller_for_a_while_when_no_engine_is_left() -> None:
    lifecycle = restarting(restarts=1)
    lose_all(lifecycle, 10)
    lifecycle.engines(2, 12)
    (note,) = lose_all(lifecycle, 20, tasks=600)
    assert isinstance(note, LogLine)
    assert "600 tasks wait for others: `ipcluster engines` starts some, within 10 minutes" in note.text
    assert lifecycle.engines(3, 30) == [LogLine("3 engines are there again.")]
    assert lifecycle.deadline() is None
    again = restarting(restarts=1)
    lose_all(again, 10)
    again.engines(2, 12)
    lose_all(again, 20, tasks=1)
    deadline = again.deadline()
    assert deadline == pytest.approx(20 + EXPLANATION_GRACE + WITHOUT_ENGINES)
    assert again.tick(deadline) == [Stopped(1, "All engines have ended, and no others came.", Cause.ENGINES)]


WHY = "a client has asked for a restart"
ASKED = "A client has asked for a restart. The engines have ended, and are started again."


@pytest.mark.parametrize("seen_first", [True, False])
def test_a_restart_that_a_client_has_asked_for_comes_at_once_and_is_not_counted(seen_first: bool) -> None:
    lifecycle = restarting(restarts=0)
    for now in (10.0, 20.0, 30.0):
        if seen_first:
            assert lifecycle.engines(0, now) == []
        assert lifecycle.engines_ended("mpiexec", 1, 0, now + 1, asked=WHY) == [StartEngines(ASKED)]
        if not seen_first:
            assert lifecycle.engines(0, now + 1) == []
        assert lifecycle.tick(now + 5) == []
        assert lifecycle.engines(2, now + 6) == [LogLine("All 2 engines are there again.")]
        assert lifecycle.tick(now + 9) == []


LOST = "engine 1 was lost: it was killed by SIGKILL (on_loss='restart')"
AFTER_LOSS = f"E{LOST[1:]}. The engines have ended, and are started again."


@pytest.mark.parametrize("seen_first", [True, False])
def test_a_restart_of_the_controllers_is_not_counted_also_if_the_launcher_is_faster(seen_first: bool) -> None:
    """As hydra is, which ends all ranks when one dies; nobody else has said then that it is asked for."""
    lifecycle = restarting(restarts=0)
    for now in (10.0, 20.0, 30.0):
        if seen_first:
            assert lifecycle.engines(0, now, restarted=LOST) == []
            assert lifecycle.engines_ended("mpiexec", 9, 0, now + 1) == [StartEngines(AFTER_LOSS)]
        else:
            assert lifecycle.engines_ended("mpiexec", 9, 0, now) == []
            lifecycle.rank_failed("rank 1 (pid 4711) ended with exit code 9")
            assert lifecycle.engines(0, now + 1, restarted=LOST) == [StartEngines(AFTER_LOSS)]
        assert lifecycle.tick(now + 5) == []
        assert lifecycle.engines(2, now + 6) == [LogLine("All 2 engines are there again.")]
        assert lifecycle.tick(now + 9) == []
    (over,) = lose_all(lifecycle, 40)
    assert over == Stopped(1, "All engines have ended: mpiexec ended (exit code 139).", Cause.ENGINES)


def test_the_end_of_a_launcher_is_no_failure_before_the_controller_has_noticed() -> None:
    lifecycle = restarting(restarts=1)
    lifecycle.engines_ended("mpiexec", 9, 0, 10)
    assert lifecycle.tick(10 + EXPLANATION_GRACE) == []
    assert lifecycle.engines(0, 13, restarted=LOST) == [StartEngines(AFTER_LOSS)]
    lifecycle.engines(2, 15)
    assert "(1 of 1)" in str(lose_all(lifecycle, 20)), "none was counted"


def test_a_restart_waits_for_the_last_of_several_processes() -> None:
    lifecycle = restarting(3)
    assert lifecycle.engines(0, 10) == []
    assert lifecycle.engines_ended("engine process 0", 1, 2, 10, asked=WHY) == []
    assert lifecycle.engines_ended("engine process 2", 1, 1, 10, asked=WHY) == []
    assert lifecycle.engines_ended("engine process 1", 1, 0, 11, asked=WHY) == [StartEngines(ASKED)]


def test_engines_that_do_not_come_again_end_the_cluster() -> None:
    lifecycle = restarting()
    lifecycle.engines(0, 10)
    lifecycle.engines_ended("mpiexec", 1, 0, 10, asked=WHY)
    (over,) = lifecycle.tick(71)
    assert isinstance(over, Stopped)
    assert over.code == 1


def test_engines_that_a_client_has_ended_are_not_started_again() -> None:
    lifecycle = restarting()
    (over,) = lifecycle.engines(0, 10, ordered=True)
    assert over == Stopped(0, "All engines were ended by a client.", Cause.NOBODY)
