"""Which engines end when a client asks for a restart, and what is said instead where nobody starts them again."""

from __future__ import annotations

import pytest

from ipmpi.controller.commands.router import Router
from ipmpi.controller.deadlines import Deadlines
from ipmpi.controller.effects import Send
from ipmpi.controller.farm.farm import Farm
from ipmpi.controller.restarts import SetRestarts
from ipmpi.errors import ClientError, InvalidEngineID
from ipmpi.protocol import messages as m

CLIENT = 99


class World:
    """Sets by the names of their launches: two of one, one of another, one that was started by hand."""

    def __init__(self) -> None:
        self.router = Router(1)
        self.deadlines = Deadlines(self.router.registry)
        self.log: list[str] = []
        self.announced: list[list[int]] = []
        self.restarts = SetRestarts(
            self.router, Farm(self.router.registry, 1), self.deadlines, self.log.append, self._changed
        )
        for key, launch in ((1, "a"), (2, "a"), (3, "b"), (4, "")):
            engines = [m.EngineInfo(rank, -1, "host", 1) for rank in range(2)]
            self.router.register(key, m.Register(engines, "MPI", "3", launch=launch))
        self.router.flush()

    def _changed(self) -> None:
        self.announced.append(self.router.registry.ids())

    def told(self) -> list[tuple[int, m.AnyMessage]]:
        return [(effect.to, effect.message) for effect in self.router.flush() if isinstance(effect, Send)]


@pytest.fixture
def world() -> World:
    return World()


def test_all_sets_of_a_launch_end_together(world: World) -> None:
    """A launcher that has ranks left does not end, so nobody would start anything again."""
    assert world.restarts.restart(CLIENT, [1]) == [0, 1, 2, 3]
    assert world.told() == [(key, m.EndSet("a client has asked for a restart", True)) for key in (1, 2)]
    assert world.announced == [[4, 5, 6, 7]], "before the client has its answer"
    assert world.log == [f"client {CLIENT} has engines 0-3 restarted"]


def test_what_runs_there_is_lost_and_its_client_is_told_why(world: World) -> None:
    world.router.command(CLIENT, m.Command(5, [4, 5], "execute", "execute('x')", b"x"), (), 0)
    world.told()
    world.restarts.restart(CLIENT, [5])
    undone = [message for _, message in world.told() if isinstance(message, m.Undone)]
    assert [each.engines for each in undone] == [[4], [5]]
    assert all(each.error == "EngineLost" for each in undone)
    assert "engine 4 (rank 0, pid 1 on host) is gone: it is restarted, as a client has asked for" in undone[0].text


def test_a_set_that_was_started_by_hand_is_left_alone_and_so_are_all_others(world: World) -> None:
    with pytest.raises(ClientError) as caught:
        world.restarts.restart(CLIENT, None)
    assert str(caught.value) == (
        "engines 6-7 cannot be restarted, and nothing has ended: this set was started by hand, as with `mpirun "
        "ipengine`: nobody would start it again. To replace it, end it by mec.kill(), and type that command "
        "again. What `ipcluster` and its job scripts start can be restarted"
    )
    assert world.told() == []
    assert world.router.registry.ids() == list(range(8))


def test_nothing_ends_when_its_job_is_about_to_end_anyway(world: World) -> None:
    """The job script has got the warning, too, and starts nothing any more."""
    world.deadlines.told(3, m.JobEnds(100.0, "12"), 0)
    assert world.restarts.restart(CLIENT, [4]) == [4, 5], "it may have minutes left"
    world.deadlines.told(2, m.JobEnds(100.0, "12", True), 0)
    with pytest.raises(ClientError, match=r"engines 2-3 cannot be restarted.* warned that their job ends"):
        world.restarts.restart(CLIENT, [2])


def test_one_that_is_not_registered_is_refused(world: World) -> None:
    with pytest.raises(InvalidEngineID):
        world.restarts.restart(CLIENT, [0, 77])
    assert world.told() == []
