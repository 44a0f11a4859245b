"""Who may say what, message type by message type and role by role (trust.md S11)."""

from __future__ import annotations

from typing import get_args

import pytest

from ipmpi.errors import RemoteProtocolError
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection
from ipmpi.protocol.states import CONTROLLER_RECEIVES, FROM_ABOVE, FROM_BELOW, RECEIVES

ROLES = ("engine", "mec", "tc", "monitor")
ALL = get_args(m.AnyMessage)

# The same tables once more, the other way round and by hand: type -> roles that may send it to the controller,
# roles that listen to it. A type without a line here fails the tests.
TO_CONTROLLER = {
    m.Register: "engine",
    m.RanksLost: "engine",
    m.Result: "engine",
    m.Goodbye: "engine mec tc monitor",
    m.GetIds: "mec tc monitor",
    m.ClusterInfo: "mec tc monitor",
    m.QueueStatus: "mec monitor",
    m.TaskStatus: "tc monitor",
    m.Command: "mec",
    m.ClearQueue: "mec",
    m.Interrupt: "mec",
    m.Kill: "mec",
    m.BodyAgain: "mec tc",
    m.SubmitTask: "tc",
    m.AbortTask: "tc",
}
FROM_CONTROLLER = {
    m.Registered: "engine",
    m.Dispatch: "engine",
    m.InterruptRanks: "engine",
    m.StopRanks: "engine",
    m.Goodbye: "engine mec tc monitor",
    m.Reply: "mec tc monitor",
    m.Refused: "mec tc monitor",
    m.Notice: "mec tc monitor",
    m.Result: "mec",
    m.Undone: "mec",
    m.Accepted: "mec",
    m.SendBodyAgain: "mec tc",
    m.TaskDone: "tc",
    m.TaskUndone: "tc",
}
INSIDE_A_SET = {m.SharedBody}

EXAMPLES: dict[type[m.Message], m.AnyMessage] = {
    m.Command: m.Command(1, None, "execute", "x", b""),
    m.BodyAgain: m.BodyAgain(1, []),
    m.GetIds: m.GetIds(1),
    m.QueueStatus: m.QueueStatus(1, None),
    m.ClearQueue: m.ClearQueue(1, [0]),
    m.Interrupt: m.Interrupt(1, None),
    m.Kill: m.Kill(1, None, True),
    m.ClusterInfo: m.ClusterInfo(1),
    m.SubmitTask: m.SubmitTask(1, "x", b""),
    m.AbortTask: m.AbortTask(1, 1),
    m.TaskStatus: m.TaskStatus(1),
    m.Reply: m.Reply(1, None),
    m.Refused: m.Refused(1, "ClientError", "no"),
    m.Result: m.Result(1, [0], True, b""),
    m.Undone: m.Undone(1, [0], "EngineLost", "gone"),
    m.Accepted: m.Accepted(1, [0]),
    m.SendBodyAgain: m.SendBodyAgain(1),
    m.TaskDone: m.TaskDone(1, 0, True, b"", 0.0, 0.0),
    m.TaskUndone: m.TaskUndone(1, "TaskAborted", "x"),
    m.Notice: m.Notice("x"),
    m.Registered: m.Registered([0]),
    m.Dispatch: m.Dispatch(1, [0], "execute", b""),
    m.InterruptRanks: m.InterruptRanks([0]),
    m.StopRanks: m.StopRanks([0]),
    m.Register: m.Register([], "", ""),
    m.RanksLost: m.RanksLost([0], "x"),
    m.SharedBody: m.SharedBody(1, [1]),
    m.Goodbye: m.Goodbye("x"),
}

CLIENT_OPERATIONS = {
    m.Command, m.BodyAgain, m.GetIds, m.QueueStatus, m.ClearQueue, m.Interrupt, m.Kill, m.ClusterInfo,
    m.SubmitTask, m.AbortTask, m.TaskStatus,
}  # fmt: skip


def test_no_type_is_forgotten() -> None:
    assert set(TO_CONTROLLER) | set(FROM_CONTROLLER) | INSIDE_A_SET == set(ALL)
    assert set(EXAMPLES) == set(ALL)
    every = [*CONTROLLER_RECEIVES.values(), *RECEIVES.values(), FROM_ABOVE, FROM_BELOW]
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
    assert not CONTROLLER_RECEIVES["tc"] & {m.Command, m.QueueStatus, m.ClearQueue, m.Interrupt, m.Kill}


def test_a_monitor_changes_nothing() -> None:
    harmless = {m.GetIds, m.ClusterInfo, m.QueueStatus, m.TaskStatus, m.Goodbye}
    assert CONTROLLER_RECEIVES["monitor"] == harmless


def test_inside_a_set_only_shared_bodies_are_added() -> None:
    assert FROM_ABOVE - RECEIVES["engine"] == INSIDE_A_SET
    assert CONTROLLER_RECEIVES["engine"] == FROM_BELOW
