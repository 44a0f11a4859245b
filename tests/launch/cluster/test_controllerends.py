"""A controller that was killed is started again, unless that does not help."""

from __future__ import annotations

from ipmpi.launch.cluster.controllerends import MOST, RETURN, WITHIN, ControllerEnds
from ipmpi.launch.cluster.effects import Cause, LogLine, StartController, StartEngines, Stopped
from ipmpi.launch.cluster.lifecycle import Lifecycle, Plan


def running(plan: Plan | None = None) -> Lifecycle:
    lifecycle = Lifecycle(plan or Plan(4, 60), now=0)
    lifecycle.ready()
    lifecycle.engines(4, 1)
    return lifecycle


def killed(lifecycle: Lifecycle, now: float) -> None:
    assert lifecycle.controller_ended(-9, now) == []
    due = lifecycle.deadline()
    assert due is not None
    text = "The controller ended unexpectedly (killed by SIGKILL). It is started again, with the same furls."
    assert lifecycle.tick(due) == [StartController(text)]
    assert lifecycle.tick(due) == [], "it is started once"


def test_it_is_started_again_at_once_and_engines_are_not() -> None:
    lifecycle = running(Plan(4, 60, engines_wait=True))
    killed(lifecycle, 10)
    assert lifecycle.ready() == []
    assert lifecycle.tick(11) == []


def test_engines_that_come_back_late_are_not_told_to_be_lost() -> None:
    lifecycle = running()
    killed(lifecycle, 10)
    lifecycle.ready()
    lifecycle.engines(2, 11)
    assert lifecycle.tick(10 + RETURN - 1) == []
    lifecycle.engines(4, 10 + RETURN - 1)
    assert lifecycle.tick(10 + RETURN) == []


def test_engines_that_do_not_come_back_are_told() -> None:
    lifecycle = running()
    killed(lifecycle, 10)
    lifecycle.ready()
    lifecycle.engines(2, 11)
    assert lifecycle.tick(10 + RETURN) == [LogLine("2 of 4 engines are left. The others keep working.")]


def test_one_that_ends_again_and_again_is_given_up() -> None:
    lifecycle = running()
    for number in range(MOST):
        killed(lifecycle, 10 + 2 * number)
    (over,) = lifecycle.controller_ended(1, 10 + 2 * MOST)
    assert over == Stopped(
        1,
        f"The controller ended unexpectedly (exit code 1), although it was started again {MOST} times within "
        f"{WITHIN:g} s.",
        Cause.CONTROLLER,
    )


def test_one_that_ends_now_and_then_is_started_again_for_ever() -> None:
    ends = ControllerEnds()
    for now in range(0, 3600, int(WITHIN / MOST) + 1):
        assert ends.ended(-9, now) == ""
        assert ends.due is not None
        assert ends.start(ends.due) is not None


def test_the_first_start_again_does_not_wait_and_later_ones_do() -> None:
    ends = ControllerEnds()
    waits = []
    for now in (0.0, 5.0, 10.0, 15.0, 20.0):
        ends.ended(1, now)
        assert ends.due is not None
        waits.append(ends.due - now)
        ends.start(ends.due)
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] > waits[1] > 0


def test_what_ends_after_the_cluster_is_not_started_again() -> None:
    lifecycle = running()
    lifecycle.controller_ended(-9, 10)
    lifecycle.stop_requested()
    assert lifecycle.deadline() is None
    assert lifecycle.tick(20) == []
    assert lifecycle.controller_ended(-9, 30) == []


def test_engines_are_started_by_the_first_controller_only() -> None:
    lifecycle = Lifecycle(Plan(4, 60, engines_wait=True), now=0)
    assert lifecycle.ready() == [StartEngines()]
