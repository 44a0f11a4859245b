"""S10, S11, S12: what a secret opens, and what it does not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from ipmpi.furl import FILES
from ipmpi.protocol import messages as m
from tests.security.cluster import Controller
from tests.security.wire import EVERY_MESSAGE, Member, Stranger, register

ROLES = tuple(FILES)

# One message of every type, and the roles that may send it to a controller. By hand, so that neither a new type
# nor a changed table passes unseen.
LOOK = {"mec", "tc", "monitor"}
SENDERS: dict[type, tuple[m.AnyMessage, set[str]]] = {
    m.Command: (m.Command(1, None, "execute", "execute", b"x"), {"mec"}),
    m.BodyAgain: (m.BodyAgain(1, []), {"mec", "tc"}),
    m.GetIds: (m.GetIds(1), LOOK),
    m.QueueStatus: (m.QueueStatus(1, None), {"mec", "monitor"}),
    m.ClearQueue: (m.ClearQueue(1, None), {"mec"}),
    m.Interrupt: (m.Interrupt(1, None), {"mec"}),
    m.Kill: (m.Kill(1, []), {"mec"}),
    m.ClusterInfo: (m.ClusterInfo(1), LOOK),
    m.SubmitTask: (m.SubmitTask(1, "task", b"x"), {"tc"}),
    m.AbortTask: (m.AbortTask(1, 1), {"tc"}),
    m.TaskStatus: (m.TaskStatus(1), {"tc", "monitor"}),
    m.Reply: (m.Reply(1, [0]), set()),
    m.Refused: (m.Refused(1, "KernelError", "no"), set()),
    m.Result: (m.Result(1, [0], True, b"x"), {"engine"}),
    m.Undone: (m.Undone(1, [0], "EngineLost", "gone"), set()),
    m.Accepted: (m.Accepted(1, [0]), set()),
    m.SendBodyAgain: (m.SendBodyAgain(1), set()),
    m.TaskDone: (m.TaskDone(1, 0, True, b"x", 0.0, 0.0), set()),
    m.TaskUndone: (m.TaskUndone(1, "TaskAborted", "gone"), set()),
    m.Notice: (m.Notice("hello"), set()),
    m.Registered: (m.Registered([0]), set()),
    m.Dispatch: (m.Dispatch(1, [0], "execute", b"x"), set()),
    m.InterruptRanks: (m.InterruptRanks([0]), set()),
    m.StopRanks: (m.StopRanks([0]), set()),
    m.Register: (m.Register([m.EngineInfo(0, 7, "host", 1)], "no MPI", "3"), {"engine"}),
    m.RanksLost: (m.RanksLost([0], "gone"), {"engine"}),
    m.SharedBody: (m.SharedBody(1, [1]), set()),
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
        peer.say(message)
        assert peer.is_ended() == (role not in allowed)
        if role in allowed:
            peer.say(m.Goodbye("the test is over"))
            return
        # Nothing came of it: the engine heard nothing and is still registered, alone.
        with Member(controller.furl("mec")) as observer:
            observer.say(m.GetIds(1))
            assert observer.hear(m.Reply).value == [number]
            observer.say(m.QueueStatus(2, None))
            assert observer.hear(m.Reply).value == [[number, None, []]]
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
