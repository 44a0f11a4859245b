"""What a monitor can make a program do: tell what it has published, and nothing else."""

from __future__ import annotations

import pytest

from ipmpi.protocol import messages as m
from tests.security.cluster import Controller
from tests.security.wire import Member, register


def program(controller: Controller) -> tuple[Member, int]:
    """A program of one rank, made by hand, and its id."""
    member = Member(controller.furl("engine"))
    member.say(m.Register([m.EngineInfo(0, 7, "testhost", 1)], "MPI", "3", program="heat.py"))
    return member, member.hear(m.Registered).ids[0]


def test_a_monitor_hears_what_was_published_and_the_program_gets_no_bytes_of_its_choice(
    controller: Controller,
) -> None:
    steered, number = program(controller)
    with steered, Member(controller.furl("monitor")) as monitor, Member(controller.furl("monitor")) as other:
        monitor.say(m.WatchPublished(1, number, 5, "residual", 10, "max"))
        assert monitor.hear(m.Reply).value is None
        assert steered.hear(m.BeginWatch) == m.BeginWatch(5, "residual", 10, "max")
        steered.say(m.Watched(5, [], []), m.Watched(5, [10, 20], [0.5, 0.25]))
        assert monitor.hear(m.Watched) == m.Watched(5, [], [])
        assert monitor.hear(m.Watched) == m.Watched(5, [10, 20], [0.5, 0.25])
        other.ping()
        assert not [each for each in other._arrived if isinstance(each, m.Watched)]
        # It cannot tell others something in the name of the program.
        monitor.say(m.Watched(5, [30], [1e9]))
        assert monitor.is_ended()
        steered.say(m.Watched(5, [30], [0.125]))
        assert steered.hear(m.Message) == m.Unwatch(5), "nothing else has come, and nobody watches any more"
        steered.say(m.Goodbye("the test is over"))


@pytest.mark.parametrize(
    "asked",
    [
        m.WatchPublished(1, 7, 5, "x" * 100_000),
        m.WatchPublished(1, 7, 5, "T", -1),
        m.WatchPublished(1, 7, 5, "T", 1, "__import__('os')"),
        m.WatchPublished(1, 123, 5, "T"),
    ],
    ids=["long name", "negative", "another reduction", "no engine"],
)
def test_impossible_watches_are_refused(controller: Controller, asked: m.WatchPublished) -> None:
    steered, number = program(controller)
    assert number == 7
    with steered, Member(controller.furl("monitor")) as monitor:
        monitor.say(asked)
        assert monitor.hear(m.Refused).id == 1
        assert not monitor.is_ended()
        steered.ping()
        assert not steered._arrived
        steered.say(m.Goodbye("the test is over"))


def test_engines_without_a_loop_are_not_asked(controller: Controller) -> None:
    engine, number = register(controller.furl("engine"))
    with engine, Member(controller.furl("monitor")) as monitor:
        monitor.say(m.WatchPublished(1, number, 5, "T"))
        assert "is not a rank of a program" in monitor.hear(m.Refused).text
        engine.ping()
        assert not engine._arrived
        engine.say(m.Goodbye("the test is over"))
