"""What becomes of a launch that has lost an engine, and what everybody is told."""

from __future__ import annotations

import itertools

import pytest

from ipmpi import limits
from ipmpi.controller.commands.router import Router
from ipmpi.controller.deadlines import Deadlines
from ipmpi.controller.effects import Announce, Send
from ipmpi.controller.farm.farm import Farm
from ipmpi.controller.lossnotices import Losses
from ipmpi.controller.onloss import MOST, WITHIN, SetFates
from ipmpi.controller.restarts import SetRestarts
from ipmpi.errors import ClientError
from ipmpi.protocol import messages as m, operations

CLIENT = 99
KILLED = "it was killed by SIGKILL"
OF_TWO = "engine 1 was lost: it was killed by SIGKILL"


class Controller:
    """Sets of two ranks by the names of their launches: 0-1 and 2-3 of one, 4-5 of another, 6-7 of none."""

    def __init__(self, on_loss: str = "shrink") -> None:
        self.router = Router(1)
        farm = Farm(self.router.registry, 1)
        self.said: list[str] = []
        self.deadlines = Deadlines(self.router.registry)
        restarts = SetRestarts(self.router, farm, self.deadlines, lambda _: None, lambda: None)
        losses = Losses(self.router, farm.blame, lambda _: None, lambda: None)
        self.fates = SetFates(self.router, losses, restarts, self.said.append)
        self.on_loss = on_loss
        self._numbers = itertools.count(1)
        for key, launch in ((1, "a"), (2, "a"), (3, "b"), (4, "")):
            self.register(key, launch)
        self.router.flush()

    def register(self, key: int, launch: str, ids: tuple[int, ...] = ()) -> None:
        engines = [m.EngineInfo(rank, -1, "host", 1) for rank in range(2)]
        registered = m.Register(engines, "MPI", "3", list(ids), launch=launch, on_loss=self.on_loss)
        self.fates.registered(key, self.router.register(key, registered))

    def choose(self, mode: str, *targets: int) -> dict[int, str]:
        return dict(self.fates.choose(m.OnLoss(1, list(targets) or None, mode)))

    def loses(self, key: int, rank: int, now: float = 0.0, *, expected: bool = False) -> None:
        self.fates.ranks_lost(key, m.RanksLost([rank], KILLED), now, expected=expected)

    def told(self, kind: type[m.Message] = m.EndSet) -> list[tuple[int, m.AnyMessage]]:
        sent = [effect for effect in self.router.flush() if isinstance(effect, Send)]
        return [(effect.to, effect.message) for effect in sent if isinstance(effect.message, kind)]


@pytest.fixture
def controller() -> Controller:
    return Controller()


def test_the_others_go_on_where_nothing_is_chosen(controller: Controller) -> None:
    controller.loses(1, 1)
    assert controller.router.registry.ids() == [0, 2, 3, 4, 5, 6, 7]
    assert (controller.told(), controller.said, controller.fates.aborted) == ([], [], "")


@pytest.mark.parametrize("at_start", [True, False])
def test_the_others_end_and_are_told_of_the_death(at_start: bool) -> None:
    controller = Controller("abort" if at_start else "shrink")
    if not at_start:
        controller.choose("abort", 1)
    controller.router.command(CLIENT, m.Command(5, [0, 3, 4], "execute", "execute('x')", b"x"), (), 0)
    controller.told()
    controller.loses(1, 1)
    assert controller.router.registry.ids() == [4, 5, 6, 7]
    effects = controller.router.flush()
    sent = [(effect.to, effect.message) for effect in effects if isinstance(effect, Send)]
    ended = m.EndSet(f"{OF_TWO} (on_loss='abort')", False)
    assert [each for each in sent if isinstance(each[1], m.EndSet)] == [(1, ended), (2, ended)]
    undone = [message for _, message in sent if isinstance(message, m.Undone)]
    assert [(each.engines, each.error) for each in undone] == [([0], "EngineLost"), ([3], "EngineLost")]
    assert f"engine 3 (rank 1, pid 1 on host) is gone: its set was ended (on_loss='abort'), as {OF_TWO}" in (
        undone[1].text
    )
    assert controller.said == [f"{OF_TWO}. on_loss='abort': engines 0, 2-3 were ended, too"]
    assert controller.fates.aborted == f"{OF_TWO}. on_loss='abort': all engines of that set have ended."


def test_all_are_started_again_with_their_last_names(controller: Controller) -> None:
    """Without a client. Each engine has the last snapshot of its own."""
    controller.fates.remember(m.RestoreAfterLoss(1, [0, 1, 2, 3, 4, 77], b"first"))
    controller.fates.remember(m.RestoreAfterLoss(2, [2], b"second"))
    controller.choose("restart", 2)
    controller.loses(1, 1)
    told = m.EndSet(f"{OF_TWO} (on_loss='restart')", True)
    assert controller.told() == [(1, told), (2, told)]
    assert controller.fates.restarted == told.reason
    assert controller.said == [
        f"{OF_TWO}. on_loss='restart': engines 0-3 are restarted, with the names of their last snapshot"
    ]
    controller.register(11, "a", (0, 1))
    assert controller.fates.restarted == ""
    controller.router.command(CLIENT, m.Command(5, [0], "execute", "execute('x')", b"x"), (), 0)
    given = [message for to, message in controller.told(m.Dispatch) if to == 11]
    assert [(each.method, each.operation, each.ranks) for each in given] == [("restore", b"first", [0, 1])], (
        "before what any client sends"
    )
    controller.register(12, "a", (2, 3))
    restored = {message.operation: message.ranks for to, message in controller.told(m.Dispatch) if to == 12}
    assert restored == {b"second": [0], b"first": [1]}
    controller.register(13, "b", (8, 9))
    assert controller.told(m.Dispatch) == []
    assert controller.choose("", 0, 4) == {0: "restart", 4: "shrink"}, "what was chosen holds for those that come"


def test_the_controller_keeps_no_more_of_a_snapshot_than_the_name_of_its_folder(controller: Controller) -> None:
    with pytest.raises(ClientError, match="at most 8192 bytes, not 8193: name a folder with a shorter path"):
        controller.fates.remember(m.RestoreAfterLoss(1, [4], bytes(limits.RESTORE + 1)))
    controller.choose("restart", 4)
    controller.loses(3, 1)
    assert "as mec.snapshot() has saved none" in controller.said[0]


def test_names_that_cannot_be_restored_are_told(controller: Controller) -> None:
    """As from a damaged file: nobody waits for that command, so all clients get a notice."""
    controller.fates.remember(m.RestoreAfterLoss(1, [4, 5], b"restore"))
    controller.choose("restart", 4)
    controller.loses(3, 1)
    controller.register(11, "b", (4, 5))
    ((_, given),) = controller.told(m.Dispatch)
    assert isinstance(given, m.Dispatch)
    failed = operations.encode(operations.Failed("builtins.ValueError", "it is damaged", ""))
    controller.router.result(11, m.Result(given.id, [0], False, failed, []), (), 0)
    said = [effect.text for effect in controller.router.flush() if isinstance(effect, Announce)]
    assert said == ["mec.restore() after the restart failed on engine 4: builtins.ValueError: it is damaged"]


def test_a_restart_without_a_snapshot_says_so(controller: Controller) -> None:
    controller.choose("restart", 4)
    controller.loses(3, 1)
    assert controller.said[0].endswith("are restarted, with empty namespaces, as mec.snapshot() has saved none")
    controller.register(11, "b", (4, 5))
    assert controller.told(m.Dispatch) == []


def test_restarts_in_vain_come_to_an_end(controller: Controller) -> None:
    """Where a node is broken, or the program is, engines would die and be started for ever."""
    controller.choose("restart", 4)
    key = 3
    for number in range(MOST + 1):
        controller.told()
        controller.loses(key, 0, float(number))
        ((_, message),) = controller.told()
        assert isinstance(message, m.EndSet)
        assert message.restart is (number < MOST)
        key = 100 + number
        controller.register(key, "b", (4, 5))
    assert (
        f"; {MOST} restarts within 10 minutes were in vain. on_loss='restart': engine 5 was ended, too"
        in controller.said[-1]
    )
    controller.loses(key, 0, WITHIN + 2)
    ((_, message),) = controller.told()
    assert message == m.EndSet(message.reason, True), "those of long ago do not count"


def test_the_end_of_restarts_is_told_when_the_launcher_has_ended_all_ranks() -> None:
    controller = Controller("restart")
    for number in range(MOST + 1):
        key = 100 + number
        controller.register(key, "c", (8, 9))
        controller.fates.set_lost(key, "the connection was closed", 0.0, silent=True, expected=False)
    assert controller.said[-1].endswith("were in vain. on_loss='restart': nothing is started again")
    assert controller.fates.aborted


def test_engines_that_were_to_end_are_no_loss(controller: Controller) -> None:
    controller.choose("abort", 0)
    controller.loses(1, 1, expected=True)
    controller.fates.set_lost(2, "it said goodbye", 0.0, silent=False, expected=True)
    assert (controller.told(), controller.said) == ([], [])


def test_a_lost_set_takes_the_rest_of_its_launch_along(controller: Controller) -> None:
    controller.choose("abort", 0)
    controller.fates.set_lost(2, "the connection was closed", 0.0, silent=True, expected=False)
    assert [to for to, _ in controller.told()] == [1]
    assert controller.said[0].startswith("engines 2-3 were lost: the connection was closed")


def test_what_cannot_be_is_refused(controller: Controller) -> None:
    with pytest.raises(ClientError, match="on_loss is one of 'shrink', 'abort', 'restart', not 'die'"):
        controller.choose("die")
    with pytest.raises(
        ClientError,
        match="engines 6-7 cannot have on_loss='restart': this set was started by hand, as with `mpirun ",
    ):
        controller.choose("restart")
    assert set(controller.choose("").values()) == {"shrink"}, "for none of them"
    assert controller.choose("abort", 6, 0) == {6: "abort", 0: "abort"}
    assert controller.choose("") == dict.fromkeys((0, 1, 2, 3, 6, 7), "abort") | dict.fromkeys((4, 5), "shrink")


def test_no_restart_when_the_job_is_about_to_end(controller: Controller) -> None:
    controller.choose("restart", 0)
    controller.deadlines.told(1, m.JobEnds(100.0, "12", True), 0)
    controller.loses(1, 1)
    assert controller.told() == []
    assert controller.said == [
        f"{OF_TWO}. on_loss is 'restart', but the batch system has warned that their job is about to end, so its "
        "script starts nothing any more. Submit the next job: `ipcluster slurm` or `ipcluster pbs`"
    ]


def test_no_restart_is_promised_when_the_whole_set_is_lost_and_nobody_starts_it() -> None:
    """As when a launcher ends all ranks: then no set of the launch is left to ask."""
    controller = Controller("restart")
    controller.fates.set_lost(4, "the connection was closed", 0.0, silent=True, expected=False)
    assert (
        "on_loss is 'restart', but this set was started by hand, as with `mpirun ipengine`" in controller.said[0]
    )
    controller.deadlines.told(3, m.JobEnds(100.0, "12", True), 0)
    controller.fates.set_lost(3, "the connection was closed", 0.0, silent=True, expected=False)
    assert "on_loss is 'restart', but the batch system has warned that their job" in controller.said[1]
    assert len(controller.said) == 2


def test_the_ranks_of_a_program_are_never_ended(controller: Controller) -> None:
    info = m.EngineInfo(0, -1, "host", 1)
    ids = controller.router.register(20, m.Register([info], "MPI", "3", program="heat", on_loss="abort"))
    controller.fates.registered(20, ids)
    with pytest.raises(ClientError, match="engine 8 is a rank of a program that is steered, which ipmpi neither"):
        controller.choose("abort", 0, 8)
    assert controller.choose("", 0, 8) == {0: "shrink", 8: "shrink"}
