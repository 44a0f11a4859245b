"""S10, S11, S12: what a secret opens, and what it does not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from hashlib import blake2b

import pytest

from ipmpi.furl import FILES
from ipmpi.ids import Ids
from ipmpi.protocol import messages as m
from tests.security.cluster import Controller
from tests.security.wire import EVERY_MESSAGE, Member, Stranger, register

ROLES = tuple(FILES)

# One message of every type, and the roles that may send it to a controller. By hand, so that neither a new type
# nor a changed table passes unseen.
LOOK = {"mec", "tc", "monitor"}
KEY = blake2b(b"x", digest_size=16).digest()
OPTIONS = m.TaskOptions(b"x", "task")
SENDERS: dict[type, tuple[m.AnyMessage, set[str]]] = {
    m.Command: (m.Command(1, None, "execute", "execute", b"x"), {"mec"}),
    m.BodyAgain: (m.BodyAgain(1, []), {"mec", "tc"}),
    m.GetIds: (m.GetIds(1), LOOK),
    m.QueueStatus: (m.QueueStatus(1, None), {"mec", "monitor"}),
    m.ClearQueue: (m.ClearQueue(1, None), {"mec"}),
    m.Interrupt: (m.Interrupt(1, None), {"mec"}),
    m.AskAgents: (m.AskAgents(1, None, b"x"), {"mec"}),
    m.Kill: (m.Kill(1, []), {"mec"}),
    m.Restart: (m.Restart(1, []), {"mec"}),
    m.OnLoss: (m.OnLoss(1, []), {"mec"}),
    m.RestoreAfterLoss: (m.RestoreAfterLoss(1, [], b""), {"mec"}),
    m.ClusterInfo: (m.ClusterInfo(1), LOOK),
    m.GiveFurl: (m.GiveFurl(1, "monitor", seconds=60.0), {"mec"}),
    m.ListFurls: (m.ListFurls(1), {"mec"}),
    m.EndFurls: (m.EndFurls(1, []), {"mec"}),
    m.ReplaceSecrets: (m.ReplaceSecrets(1), {"mec"}),
    m.AdmitSets: (m.AdmitSets(1, "list"), {"mec"}),
    m.SubmitTasks: (m.SubmitTasks(1, OPTIONS, bytes(4)), {"tc"}),
    m.AbortTasks: (m.AbortTasks(1, 1, b"", "cancel"), {"tc"}),
    m.TaskStatus: (m.TaskStatus(1), {"tc", "monitor"}),
    m.DefineFunction: (m.DefineFunction(KEY, 0, 1, [1]), {"tc"}),
    m.ForgetFunctions: (m.ForgetFunctions([KEY]), {"tc"}),
    m.Recheck: (m.Recheck(1), {"tc"}),
    m.Reserve: (m.Reserve(1, None), {"mec"}),
    m.Release: (m.Release(1, []), {"mec"}),
    m.Reply: (m.Reply(1, [0]), set()),
    m.Refused: (m.Refused(1, "KernelError", "no"), set()),
    m.Result: (m.Result(1, [0], True, b"x"), {"engine"}),
    m.Undone: (m.Undone(1, [0], "EngineLost", "gone"), set()),
    m.Accepted: (m.Accepted(1, [0]), set()),
    m.SendBodyAgain: (m.SendBodyAgain(1), set()),
    m.TasksDone: (m.TasksDone(1, 0, bytes(4), b"", bytes(4)), set()),
    m.TasksUndone: (m.TasksUndone(1, bytes(4), "TaskAborted", "gone"), set()),
    m.TaskDone: (m.TaskDone(1, 0, 0, []), set()),
    m.Notice: (m.Notice("hello"), set()),
    m.EnginesChanged: (m.EnginesChanged([0], []), set()),
    m.Registered: (m.Registered([0]), set()),
    m.Dispatch: (m.Dispatch(1, [0], "execute", b"x"), set()),
    m.InterruptRanks: (m.InterruptRanks([0]), set()),
    m.Inquiry: (m.Inquiry(1, [0], b"x"), set()),
    m.DebuggerLine: (m.DebuggerLine(1, [0], "c\n"), {"mec"}),
    m.DebuggerSaid: (m.DebuggerSaid(1, 0, 1), {"engine"}),
    m.DebugOpen: (m.DebugOpen(1, 0), {"mec"}),
    m.DebugOpened: (m.DebugOpened(1, 0, "/"), {"engine"}),
    m.DebugBytes: (m.DebugBytes(1, 0, b"x"), {"engine", "mec"}),
    m.DebugCredit: (m.DebugCredit(1, 0, 1), {"engine", "mec"}),
    m.DebugClosed: (m.DebugClosed(1, 0), {"engine", "mec"}),
    m.StopRanks: (m.StopRanks([0]), set()),
    m.EndSet: (m.EndSet("", True), set()),
    m.Register: (m.Register([m.EngineInfo(0, 7, "host", 1)], "no MPI", "3"), {"engine"}),
    m.RanksLost: (m.RanksLost([0], "gone"), {"engine"}),
    m.JobEnds: (m.JobEnds(60.0, "1"), {"engine"}),
    m.RunBeforeEnd: (m.RunBeforeEnd([0], "x", b"x"), {"engine"}),
    m.AnswerStuck: (m.AnswerStuck(0, 1), {"engine"}),
    m.Output: (m.Output(1, [m.OutputBlock(m.STDOUT, 0, [0], b"x")]), {"engine"}),
    m.Findings: (m.Findings(1, [0], b"x"), {"engine"}),
    m.GiveTasks: (m.GiveTasks(1, OPTIONS, bytes(4), bytes(4)), set()),
    m.TakeBackTasks: (m.TakeBackTasks(1), set()),
    m.CancelTasks: (m.CancelTasks(1, bytes(4), True), set()),
    m.TaskBody: (m.TaskBody(1, 0, [0], []), set()),
    m.ReserveRanks: (m.ReserveRanks([0], True), set()),
    m.TasksStarted: (m.TasksStarted(1, bytes(4)), {"engine"}),
    m.WantTasks: (m.WantTasks(1), {"engine"}),
    m.TaskResults: (m.TaskResults(1, 0, bytes(4), b"", bytes(4), 0.0), {"engine"}),
    m.LargeTaskResult: (m.LargeTaskResult(1, 0, 0, 0.0, []), {"engine"}),
    m.TasksReturned: (m.TasksReturned(1, bytes(4), 0, "taken"), {"engine"}),
    m.WantTaskBody: (m.WantTaskBody(1, 0, [0]), {"engine"}),
    m.PropertiesChanged: (m.PropertiesChanged([0]), {"engine"}),
    m.TaskHolds: (m.TaskHolds(0, "f"), {"engine"}),
    m.TasksAccepted: (m.TasksAccepted([1]), set()),
    m.TasksFetched: (m.TasksFetched([1]), {"tc"}),
    m.TasksOpen: (m.TasksOpen([(1, bytes(4))], True), {"tc"}),
    m.TasksHeld: (m.TasksHeld([(1, bytes(4))], True), {"engine"}),
    m.CommandAgain: (m.CommandAgain(1, [0], "execute", "execute", b"\x80"), {"mec"}),
    m.CommandsTold: (m.CommandsTold(), {"mec"}),
    m.CommandOrigin: (m.CommandOrigin("host", "user"), {"mec"}),
    m.CommandHistory: (m.CommandHistory(1), {"mec"}),
    m.FollowCommand: (m.FollowCommand(1, 2, 3), {"mec"}),
    m.CommandsHeld: (m.CommandsHeld(1, 1, 1, "execute", 1, [0]), {"engine"}),
    m.TaskOrigin: (m.TaskOrigin("host", "user", True), {"tc"}),
    m.TaskHistory: (m.TaskHistory(1), {"tc"}),
    m.ResumeTasks: (m.ResumeTasks(1, "sweep", 0), {"tc"}),
    m.FollowTasks: (m.FollowTasks(1, [1]), {"tc"}),
    m.ForgetTasks: (m.ForgetTasks(1, "sweep"), {"tc"}),
    m.ResultsRecorded: (m.ResultsRecorded(1), set()),
    m.EndIsNear: (m.EndIsNear(), set()),
    m.HoldRanks: (m.HoldRanks(1), set()),
    m.CanStopAt: (m.CanStopAt(1, 7), set()),
    m.StopAt: (m.StopAt(1, 7), set()),
    m.AllHold: (m.AllHold(1), set()),
    m.CannotHold: (m.CannotHold(1, "late"), set()),
    m.GoOn: (m.GoOn(1), set()),
    m.Subscribe: (m.Subscribe(1, 7), {"mec"}),
    m.Unsubscribe: (m.Unsubscribe(1, 7), {"mec", "monitor"}),
    m.WatchPublished: (m.WatchPublished(1, 0, 7, "T"), {"monitor"}),
    m.OfferLane: (m.OfferLane(1), set()),
    m.LaneOffered: (m.LaneOffered(1, bytes(32), bytes(32)), {"engine"}),
    m.JoinLane: (m.JoinLane(1, bytes(32)), set()),
    m.LaneUp: (m.LaneUp(1), {"engine", "mec", "tc"}),
    m.UseLane: (m.UseLane(1, 1), set()),
    m.LaneCut: (m.LaneCut(1, 0), {"engine", "mec", "tc"}),
    m.LaneBytes: (m.LaneBytes(1, []), {"engine", "mec", "tc"}),
    m.LaneOver: (m.LaneOver(1), {"engine", "mec", "tc"}),
    m.LaneBody: (m.LaneBody(1, []), set()),
    m.BeginWatch: (m.BeginWatch(7, "T", 1, ""), set()),
    m.Watched: (m.Watched(7, [1], [0.5]), {"engine"}),
    m.Unwatch: (m.Unwatch(7), set()),
    m.RunTogether: (m.RunTogether(1, 0, OPTIONS, [0], [0], 1, False), set()),
    m.TogetherEnded: (m.TogetherEnded(1, 0, 0, True, 0.0), set()),
    m.LeaveTogether: (m.LeaveTogether(1, 0, [0], "gone"), set()),
    m.LeaveCommand: (m.LeaveCommand(1, [0], 1, "gone"), set()),
    m.CommandWithdrawn: (m.CommandWithdrawn(1, [0], "gone"), set()),
    m.DeliverTogether: (m.DeliverTogether(1, 0, [0]), set()),
    m.ConnectTo: (m.ConnectTo(1, "localhost", 1, []), set()),
    m.RunCommand: (m.RunCommand(1, ["list"]), set()),
    m.ReadFurl: (m.ReadFurl(1, "mec"), set()),
    m.Opened: (m.Opened(1, []), set()),
    m.Ended: (m.Ended(1, 0), set()),
    m.ChannelReset: (m.ChannelReset(1, "gone"), set()),
    m.Goodbye: (m.Goodbye("done"), {"mec", "tc", "monitor", "engine"}),
}


def test_every_message_type_has_an_entry() -> None:
    assert set(SENDERS) == EVERY_MESSAGE
    assert all(type(message) is kind for kind, (message, _) in SENDERS.items())


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", SENDERS, ids=lambda kind: kind.__name__)
def test_only_the_messages_of_a_role_are_listened_to(controller: Controller, role: str, kind: type) -> None:
    message, allowed = SENDERS[kind]
    engine, number = register(controller.furl("engine"))
    with engine, Member(controller.furl(role)) as peer:
        peer.say(message, body=[b"x" * size for size in getattr(message, "sizes", [])])
        assert peer.is_ended() == (role not in allowed)
        if role in allowed:
            peer.say(m.Goodbye("the test is over"))
            return
        # Nothing came of it: the engine heard nothing and is still registered, alone.
        with Member(controller.furl("mec")) as observer:
            observer.say(m.GetIds(1))
            assert Ids.unpacked(observer.hear(m.Reply).value) == [number]
            observer.say(m.QueueStatus(2, None))
            ((engines, *rest),) = observer.hear(m.Reply).value
            assert (Ids.unpacked(engines), rest) == ([number], [None, [], [], None])
        assert not engine.is_ended()
        assert not engine._arrived


@pytest.fixture(autouse=True)
def no_engine_is_left(controller: Controller) -> Iterator[None]:
    """Engines of closed links would stay registered for their lease."""
    yield
    with Member(controller.furl("mec")) as observer:
        observer.say(m.Kill(1, None))
        observer.hear(m.Message)
        observer.say(m.Goodbye("done"))


def secrets_that_are_wrong() -> dict[str, tuple[str, str, str]]:
    """Name -> (furl whose address is used, role claimed, role whose secret is used or what is done to it)."""
    cases = {f"wrong secret as {role}": (role, role, "random") for role in ROLES}
    cases |= {f"truncated secret as {role}": (role, role, "truncated") for role in ROLES}
    for held in ROLES:
        for claimed in ROLES:
            if held != claimed:
                cases[f"{held} furl as {claimed} at its own port"] = (held, claimed, held)
                cases[f"{held} furl as {claimed} at the other port"] = (claimed, claimed, held)
    cases["engine furl at the client port"] = ("mec", "engine", "engine")
    cases["mec furl at the engine port"] = ("engine", "mec", "mec")
    cases["unknown role"] = ("mec", "root", "mec")
    cases["no role"] = ("mec", "", "mec")
    return cases


CASES = secrets_that_are_wrong()


@pytest.mark.parametrize("case", CASES)
def test_wrong_secret_ends_the_connection_without_an_answer(controller: Controller, case: str) -> None:
    at, claimed, secret = CASES[case]
    right = controller.furl(at).secret
    used = {"random": bytes(32), "truncated": right[:31]}.get(secret) or controller.furl(secret).secret
    with Stranger(controller.furl(at), role=claimed, secret=used) as stranger:
        assert stranger.rest() == b""


def without_its_last_byte(hello: bytes) -> bytes:
    return hello[:-1]


def with_another_proof(hello: bytes) -> bytes:
    at = hello.index(b"proof") + 20
    return hello[:at] + bytes([hello[at] ^ 1]) + hello[at + 1 :]


@pytest.mark.parametrize("change", [without_its_last_byte, with_another_proof])
def test_spoilt_hello_ends_the_connection_without_an_answer(
    controller: Controller, change: Callable[[bytes], bytes]
) -> None:
    with Stranger(controller.furl("mec"), change=change) as stranger:
        stranger.sock.shutdown(socket.SHUT_WR)
        assert stranger.rest() == b""


@pytest.mark.parametrize("role", ROLES)
def test_right_secret_is_answered(controller: Controller, role: str) -> None:
    with Member(controller.furl(role)) as member:
        member.ping()
