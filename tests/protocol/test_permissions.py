"""Who may say what, message type by message type and role by role (trust.md S11)."""

from __future__ import annotations

from typing import get_args

import pytest

from ipmpi.errors import RemoteProtocolError
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection
from ipmpi.protocol.permissions import (
    CONTROLLER_RECEIVES,
    FROM_ABOVE,
    FROM_BELOW,
    LANE,
    LAPTOP_RECEIVES,
    LOGIN_NODE_RECEIVES,
    RECEIVES,
)

ROLES = ("engine", "mec", "tc", "monitor")
ALL = get_args(m.AnyMessage)

# The same tables once more, the other way round and by hand: type -> roles that may send it to the controller,
# roles that listen to it. A type without a line here fails the tests.
TO_CONTROLLER = {
    m.Register: "engine",
    m.RanksLost: "engine",
    m.JobEnds: "engine",
    m.RunBeforeEnd: "engine",
    m.AnswerStuck: "engine",
    m.Findings: "engine",
    m.Output: "engine",
    m.DebuggerSaid: "engine",
    m.Watched: "engine",
    m.DebugOpened: "engine",
    m.DebugBytes: "engine mec",
    m.DebugCredit: "engine mec",
    m.DebugClosed: "engine mec",
    m.Result: "engine",
    m.WantTasks: "engine",
    m.TasksStarted: "engine",
    m.TaskResults: "engine",
    m.LargeTaskResult: "engine",
    m.TasksReturned: "engine",
    m.WantTaskBody: "engine",
    m.PropertiesChanged: "engine",
    m.TaskHolds: "engine",
    m.TasksHeld: "engine",
    m.CommandsHeld: "engine",
    m.CommandAgain: "mec",
    m.CommandsTold: "mec",
    m.CommandOrigin: "mec",
    m.CommandHistory: "mec",
    m.FollowCommand: "mec",
    m.Goodbye: "engine mec tc monitor",
    m.GetIds: "mec tc monitor",
    m.ClusterInfo: "mec tc monitor",
    m.QueueStatus: "mec monitor",
    m.TaskStatus: "tc monitor",
    m.Command: "mec",
    m.ClearQueue: "mec",
    m.Interrupt: "mec",
    m.AskAgents: "mec",
    m.DebuggerLine: "mec",
    m.DebugOpen: "mec",
    m.Kill: "mec",
    m.Restart: "mec",
    m.OnLoss: "mec",
    m.RestoreAfterLoss: "mec",
    m.Reserve: "mec",
    m.Release: "mec",
    m.Subscribe: "mec",
    m.Unsubscribe: "mec monitor",
    m.WatchPublished: "monitor",
    m.GiveFurl: "mec",
    m.ListFurls: "mec",
    m.EndFurls: "mec",
    m.ReplaceSecrets: "mec",
    m.AdmitSets: "mec",
    m.BodyAgain: "mec tc",
    m.SubmitTasks: "tc",
    m.AbortTasks: "tc",
    m.DefineFunction: "tc",
    m.ForgetFunctions: "tc",
    m.Recheck: "tc",
    m.TasksFetched: "tc",
    m.TasksOpen: "tc",
    m.TaskOrigin: "tc",
    m.TaskHistory: "tc",
    m.ResumeTasks: "tc",
    m.FollowTasks: "tc",
    m.ForgetTasks: "tc",
    m.LaneOffered: "engine",
    m.LaneUp: "engine mec tc",
    m.LaneCut: "engine mec tc",
    m.LaneBytes: "engine mec tc",
    m.LaneOver: "engine mec tc",
}
FROM_CONTROLLER = {
    m.Registered: "engine",
    m.Dispatch: "engine",
    m.InterruptRanks: "engine",
    m.CommandWithdrawn: "engine",
    m.Inquiry: "engine",
    m.DebuggerLine: "engine",
    m.DebugOpen: "engine",
    m.DebugBytes: "engine mec",
    m.DebugCredit: "engine mec",
    m.DebugClosed: "engine mec",
    m.StopRanks: "engine",
    m.Unwatch: "engine",
    m.BeginWatch: "engine",
    m.EndSet: "engine",
    m.DefineFunction: "engine",
    m.ForgetFunctions: "engine",
    m.GiveTasks: "engine",
    m.TakeBackTasks: "engine",
    m.CancelTasks: "engine",
    m.TaskBody: "engine",
    m.ReserveRanks: "engine",
    m.ResultsRecorded: "engine",
    m.Goodbye: "engine mec tc monitor",
    m.Reply: "mec tc monitor",
    m.Refused: "mec tc monitor",
    m.Notice: "mec tc monitor",
    m.EnginesChanged: "mec tc monitor",
    m.Output: "mec",
    m.DebuggerSaid: "mec",
    m.Watched: "mec monitor",
    m.DebugOpened: "mec",
    m.Result: "mec",
    m.Undone: "mec",
    m.Accepted: "mec",
    m.SendBodyAgain: "mec tc",
    m.TasksDone: "tc",
    m.TaskDone: "tc",
    m.TasksUndone: "tc",
    m.TasksAccepted: "tc",
    m.OfferLane: "engine",
    m.JoinLane: "engine mec tc",
    m.UseLane: "engine mec tc",
    m.LaneCut: "engine mec tc",
    m.LaneBytes: "engine mec tc",
    m.LaneOver: "engine mec tc",
}
# Between the ranks of one set: what only those below hear, and what only those above do.
DOWN_IN_A_SET = {
    *(m.LeaveCommand, m.RunTogether, m.LeaveTogether, m.DeliverTogether),
    *(m.HoldRanks, m.StopAt, m.GoOn),
}
UP_IN_A_SET = {m.TogetherEnded, m.EndIsNear, m.CanStopAt, m.AllHold, m.CannotHold}
# Inside an ssh session: what the laptop asks for, and what the login node answers.
INSIDE_SSH = {m.ConnectTo, m.RunCommand, m.ReadFurl, m.ChannelReset, m.Opened, m.Ended}

OPTIONS = m.TaskOptions(b"", "x")

EXAMPLES: dict[type[m.Message], m.AnyMessage] = {
    m.Command: m.Command(1, None, "execute", "x", b""),
    m.BodyAgain: m.BodyAgain(1, []),
    m.GetIds: m.GetIds(1),
    m.QueueStatus: m.QueueStatus(1, None),
    m.ClearQueue: m.ClearQueue(1, [0]),
    m.Interrupt: m.Interrupt(1, None),
    m.Kill: m.Kill(1, None, True),
    m.Restart: m.Restart(1, None),
    m.OnLoss: m.OnLoss(1, None, "abort"),
    m.RestoreAfterLoss: m.RestoreAfterLoss(1, [0], b"operation"),
    m.ClusterInfo: m.ClusterInfo(1),
    m.GiveFurl: m.GiveFurl(1, "tc", "Ada", 60.0, engines=[0]),
    m.ListFurls: m.ListFurls(1),
    m.EndFurls: m.EndFurls(1, ["7ab3"]),
    m.ReplaceSecrets: m.ReplaceSecrets(1),
    m.AdmitSets: m.AdmitSets(1, "list"),
    m.SubmitTasks: m.SubmitTasks(1, OPTIONS),
    m.AbortTasks: m.AbortTasks(1, 1, b"", "cancel"),
    m.TaskStatus: m.TaskStatus(1),
    m.DefineFunction: m.DefineFunction(bytes(16), 0, 0),
    m.ForgetFunctions: m.ForgetFunctions([bytes(16)]),
    m.Recheck: m.Recheck(1),
    m.Reserve: m.Reserve(1, None),
    m.Release: m.Release(1, [0]),
    m.Reply: m.Reply(1, None),
    m.Refused: m.Refused(1, "ClientError", "no"),
    m.AskAgents: m.AskAgents(1, None, b""),
    m.Inquiry: m.Inquiry(1, [0], b""),
    m.DebuggerLine: m.DebuggerLine(1, [0], "n"),
    m.DebuggerSaid: m.DebuggerSaid(1, 0, 0),
    m.DebugOpen: m.DebugOpen(1, 0),
    m.DebugOpened: m.DebugOpened(1, 0, "/"),
    m.DebugBytes: m.DebugBytes(1, 0, b"x"),
    m.DebugCredit: m.DebugCredit(1, 0, 1),
    m.DebugClosed: m.DebugClosed(1, 0),
    m.Findings: m.Findings(1, [0], b""),
    m.Output: m.Output(1, [m.OutputBlock(m.STDOUT, 0, [0], b"")]),
    m.Result: m.Result(1, [0], True, b""),
    m.Undone: m.Undone(1, [0], "EngineLost", "gone"),
    m.Accepted: m.Accepted(1, [0]),
    m.SendBodyAgain: m.SendBodyAgain(1),
    m.TasksDone: m.TasksDone(1, 0, b"", b"", b""),
    m.TasksUndone: m.TasksUndone(1, b"", "TaskAborted", "x"),
    m.TaskDone: m.TaskDone(1, 0, 0, []),
    m.Notice: m.Notice("x"),
    m.EnginesChanged: m.EnginesChanged([0], [1]),
    m.Registered: m.Registered([0]),
    m.Dispatch: m.Dispatch(1, [0], "execute", b""),
    m.InterruptRanks: m.InterruptRanks([0]),
    m.CommandWithdrawn: m.CommandWithdrawn(1, [0], "QueueCleared: x"),
    m.LeaveCommand: m.LeaveCommand(1, [0], 1, "ValueError: x"),
    m.StopRanks: m.StopRanks([0]),
    m.EndSet: m.EndSet("no", False),
    m.Register: m.Register([], "", ""),
    m.RanksLost: m.RanksLost([0], "x"),
    m.JobEnds: m.JobEnds(60.0),
    m.RunBeforeEnd: m.RunBeforeEnd([0], "x", b""),
    m.AnswerStuck: m.AnswerStuck(0, 1),
    m.GiveTasks: m.GiveTasks(1, OPTIONS, b"", b""),
    m.TakeBackTasks: m.TakeBackTasks(1),
    m.CancelTasks: m.CancelTasks(1, b"", True),
    m.TaskBody: m.TaskBody(1, 0, [0], []),
    m.ReserveRanks: m.ReserveRanks([0], True),
    m.WantTasks: m.WantTasks(1),
    m.TasksStarted: m.TasksStarted(1, b""),
    m.TaskResults: m.TaskResults(1, 0, b"", b"", b"", 0.0),
    m.LargeTaskResult: m.LargeTaskResult(1, 0, 0, 0.0, []),
    m.TasksReturned: m.TasksReturned(1, b"", 0, "taken"),
    m.WantTaskBody: m.WantTaskBody(1, 0, [0]),
    m.PropertiesChanged: m.PropertiesChanged([0]),
    m.TaskHolds: m.TaskHolds(0, "f"),
    m.TasksAccepted: m.TasksAccepted([1]),
    m.TasksFetched: m.TasksFetched([1]),
    m.TasksOpen: m.TasksOpen([(1, b"")], True),
    m.TasksHeld: m.TasksHeld([(1, b"")], True),
    m.CommandAgain: m.CommandAgain(1, [0], "execute", "execute", b"\x80"),
    m.CommandsTold: m.CommandsTold(),
    m.CommandOrigin: m.CommandOrigin("host", "user"),
    m.CommandHistory: m.CommandHistory(1),
    m.FollowCommand: m.FollowCommand(1, 2, 3),
    m.CommandsHeld: m.CommandsHeld(1, 1, 1, "execute", 1, [0]),
    m.TaskOrigin: m.TaskOrigin("host", "user", True),
    m.TaskHistory: m.TaskHistory(1),
    m.ResumeTasks: m.ResumeTasks(1, "sweep", 0),
    m.FollowTasks: m.FollowTasks(1, [1]),
    m.ForgetTasks: m.ForgetTasks(1, "sweep"),
    m.ResultsRecorded: m.ResultsRecorded(1),
    m.EndIsNear: m.EndIsNear(),
    m.HoldRanks: m.HoldRanks(1),
    m.CanStopAt: m.CanStopAt(1, 7),
    m.StopAt: m.StopAt(1, 7),
    m.AllHold: m.AllHold(1),
    m.CannotHold: m.CannotHold(1, "rank 1 does not come"),
    m.GoOn: m.GoOn(1),
    m.Subscribe: m.Subscribe(1, 7),
    m.Unsubscribe: m.Unsubscribe(1, 7),
    m.Watched: m.Watched(7, [1], [0.5]),
    m.Unwatch: m.Unwatch(7),
    m.WatchPublished: m.WatchPublished(1, 0, 7, "T"),
    m.BeginWatch: m.BeginWatch(7, "T", 1, ""),
    m.RunTogether: m.RunTogether(1, 0, OPTIONS, [0], [0], 1, False),
    m.TogetherEnded: m.TogetherEnded(1, 0, 0, True, 0.0),
    m.LeaveTogether: m.LeaveTogether(1, 0, [0], "x"),
    m.DeliverTogether: m.DeliverTogether(1, 0, [0]),
    m.ConnectTo: m.ConnectTo(1, "x", 1, []),
    m.RunCommand: m.RunCommand(1, []),
    m.ReadFurl: m.ReadFurl(1, "mec"),
    m.Opened: m.Opened(1, []),
    m.Ended: m.Ended(1, 0),
    m.ChannelReset: m.ChannelReset(1, "x"),
    m.Goodbye: m.Goodbye("x"),
    m.OfferLane: m.OfferLane(1),
    m.LaneOffered: m.LaneOffered(1, bytes(32), bytes(32)),
    m.JoinLane: m.JoinLane(1, bytes(32)),
    m.LaneUp: m.LaneUp(1),
    m.UseLane: m.UseLane(1, 1),
    m.LaneCut: m.LaneCut(1, 0),
    m.LaneBytes: m.LaneBytes(1, []),
    m.LaneOver: m.LaneOver(1),
    m.LaneBody: m.LaneBody(1, []),
}

ON_A_LANE = {m.LaneBody}

CLIENT_OPERATIONS = {
    m.Command, m.BodyAgain, m.GetIds, m.QueueStatus, m.ClearQueue, m.Interrupt, m.Kill, m.ClusterInfo,
    m.SubmitTasks, m.AbortTasks, m.TaskStatus, m.DefineFunction, m.ForgetFunctions, m.Recheck,
    m.TasksFetched, m.TasksOpen, m.Reserve, m.Release, m.TaskOrigin, m.TaskHistory, m.ResumeTasks, m.FollowTasks,
    m.ForgetTasks, m.CommandOrigin, m.CommandHistory, m.FollowCommand,
}  # fmt: skip


def test_no_type_is_forgotten() -> None:
    assert set(TO_CONTROLLER) | set(FROM_CONTROLLER) | DOWN_IN_A_SET | UP_IN_A_SET | INSIDE_SSH | ON_A_LANE == set(
        ALL
    )
    assert set(EXAMPLES) == set(ALL)
    every = [*CONTROLLER_RECEIVES.values(), *RECEIVES.values(), FROM_ABOVE, FROM_BELOW]
    every += [LAPTOP_RECEIVES, LOGIN_NODE_RECEIVES, LANE]
    assert frozenset().union(*every) == set(ALL)
    assert set(CONTROLLER_RECEIVES) == set(RECEIVES) == set(ROLES)


def hears(table: frozenset[type[m.Message]], message: m.AnyMessage) -> bool:
    """Whether an end with this table takes the message; it ends the link otherwise."""
    sender = Connection(frozenset(), resumable=False)
    sender.send(message)
    data = b"".join(sender.data_to_send())
    try:
        (event,) = Connection(table).receive_data(data)
    except RemoteProtocolError as error:
        assert f"may not send {type(message).__name__}" in str(error)  # noqa: PT017
        return False
    return event is not None


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_what_the_controller_hears(kind: type[m.Message], role: str) -> None:
    assert hears(CONTROLLER_RECEIVES[role], EXAMPLES[kind]) == (role in TO_CONTROLLER.get(kind, "").split())


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_what_others_hear(kind: type[m.Message], role: str) -> None:
    assert hears(RECEIVES[role], EXAMPLES[kind]) == (role in FROM_CONTROLLER.get(kind, "").split())


def test_an_engine_secret_opens_no_client_operation() -> None:
    assert not CONTROLLER_RECEIVES["engine"] & CLIENT_OPERATIONS


def test_a_task_secret_opens_no_multi_engine_operation() -> None:
    assert not CONTROLLER_RECEIVES["tc"] & {
        *(m.Command, m.QueueStatus, m.ClearQueue, m.Interrupt, m.Kill),
        *(m.Reserve, m.Release),
    }


def test_a_monitor_changes_nothing() -> None:
    harmless = {m.GetIds, m.ClusterInfo, m.QueueStatus, m.TaskStatus, m.Goodbye}
    # The controller itself has a program tell what that has published: tests/security/test_watching_monitors.py.
    watching = {m.WatchPublished, m.Unsubscribe}
    assert CONTROLLER_RECEIVES["monitor"] == harmless | watching


def test_inside_a_set_only_what_belongs_there_is_added() -> None:
    assert FROM_ABOVE - RECEIVES["engine"] == DOWN_IN_A_SET
    assert FROM_BELOW - CONTROLLER_RECEIVES["engine"] == UP_IN_A_SET
    of_roots = {m.OfferLane, m.LaneOffered, m.JoinLane, m.UseLane, m.LaneUp, m.LaneCut, m.LaneBytes, m.LaneOver}
    assert RECEIVES["engine"] - of_roots < FROM_ABOVE
    assert CONTROLLER_RECEIVES["engine"] - of_roots < FROM_BELOW
    assert not of_roots & (FROM_ABOVE | FROM_BELOW)


def test_no_peer_of_the_controller_says_what_ranks_say_to_each_other() -> None:
    """Not even an engine set: a rank's part of a task is its rank 0's business."""
    inside = DOWN_IN_A_SET | UP_IN_A_SET
    assert not inside & frozenset().union(*CONTROLLER_RECEIVES.values(), *RECEIVES.values())


def test_inside_ssh_only_the_laptop_asks() -> None:
    assert {m.ChannelReset, m.Goodbye} == LAPTOP_RECEIVES & LOGIN_NODE_RECEIVES
    assert {m.ConnectTo, m.RunCommand, m.ReadFurl} == LOGIN_NODE_RECEIVES - LAPTOP_RECEIVES
    assert {m.Opened, m.Ended} == LAPTOP_RECEIVES - LOGIN_NODE_RECEIVES
