"""Jobs that end, in a whole controller without its network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.controller.bounds import CLIENTS
from ipmpi.controller.service import ControllerService
from ipmpi.protocol import messages as m, operations, packed
from ipmpi.protocol.connection import MessageReceived
from ipmpi.protocol.registration import Registration
from ipmpi.transport.loop import Loop


class Peer:
    """A session, and what it was sent."""

    control_backlog = 0

    def __init__(self, service: ControllerService, key: int, role: str) -> None:
        self.service, self.key, self.role = service, key, role
        self.peer, self.farewell, self.is_dead, self.former = "test", "", False, b""
        self.bounds = CLIENTS
        self.registration = Registration()
        self.connection = self
        self.heard: list[Any] = []
        self.stop_at: tuple[()] | type[Any] = ()
        service.sessions.by_key[key] = self  # type: ignore[assignment]

    def says(self, *messages: m.AnyMessage, body: bytes = b"") -> None:
        for message in messages:
            self.service._message(self, MessageReceived(message, [body], 0))  # type: ignore[arg-type]
        self.service._flush()

    def send(self, message: m.AnyMessage, body: object = ()) -> None:
        del body
        self.heard.append(message)
        if isinstance(message, self.stop_at):
            self.service._loop.stop()

    def wake(self) -> None:
        pass

    def all(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.heard if isinstance(message, kind)]

    def is_gone(self) -> None:
        del self.service.sessions.by_key[self.key]
        self.service._ended(self, "the connection was closed")  # type: ignore[arg-type]
        self.service._flush()


@pytest.fixture
def service() -> Iterator[ControllerService]:
    loop = Loop()
    yield ControllerService(loop, lambda line: None)
    loop.close()


def engine(service: ControllerService, key: int, *more: m.AnyMessage) -> Peer:
    peer = Peer(service, key, "engine")
    peer.says(m.Register([m.EngineInfo(0, 0, "host", 1)], "", ""), *more, m.WantTasks(1))
    return peer


def submit(client: Peer) -> None:
    client.says(m.SubmitTasks(1, m.TaskOptions(b"op", "f"), packed.pack([1]), [1]), body=b"x")


def test_what_is_lost_at_the_end_of_a_job_is_no_sign_against_its_tasks(service: ControllerService) -> None:
    client = Peer(service, 1, "tc")
    submit(client)
    for key in range(2, 4 + limits.MAX_CRASHES):
        dying = engine(service, key, m.JobEnds(limits.MAX_CRASHES * 5.0))
        assert dying.all(m.GiveTasks)
        dying.is_gone()
    assert client.heard == []


def test_what_is_lost_before_is_one(service: ControllerService) -> None:
    client = Peer(service, 1, "tc")
    submit(client)
    for key in range(2, 2 + limits.MAX_CRASHES):
        peer = engine(service, key, m.JobEnds(3600.0))
        (given,) = peer.all(m.GiveTasks)
        peer.says(m.TasksStarted(given.group, given.indices))
        peer.is_gone()
    (undone,) = client.all(m.TasksUndone)
    assert undone.error == "EngineLost"


def test_ranks_that_were_told_to_end_are_no_sign_either(service: ControllerService) -> None:
    client = Peer(service, 1, "tc")
    submit(client)
    for key in range(2, 4 + limits.MAX_CRASHES):
        leaving = engine(service, key)
        assert leaving.all(m.GiveTasks)
        leaving.says(m.RanksLost([0], "its process ended", True))
    assert client.heard == []


def test_cluster_info_has_the_job_and_what_is_left(service: ControllerService) -> None:
    client = Peer(service, 1, "mec")
    engine(service, 2, m.JobEnds(100.0, "17"))
    engine(service, 3)
    client.says(m.ClusterInfo(5))
    first, second = client.heard[-1].value["engines"]
    assert 99 < first["time_left"] <= 100
    assert first["job"] == "17"
    assert (second["time_left"], second["job"]) == (None, "")


@pytest.mark.parametrize("length", [12, 255])
def test_cluster_info_has_all_engines_however_many_there_are(service: ControllerService, length: int) -> None:
    client, number = Peer(service, 1, "mec"), 25_000 if length == 12 else 5_000
    infos = [m.EngineInfo(rank, -1, "é" * (length - 6) + f"{rank:06}", 2**31) for rank in range(number)]
    service.router.register(2, m.Register(infos, "Open MPI 5.0.8, thread multiple", "3.11.7"))
    found: list[dict[str, Any]] = []
    more, messages = True, 0
    while more:
        client.says(m.ClusterInfo(5, found[-1]["id"] if found else -1))
        answer = client.heard.pop()
        assert len(m.encode(answer)) < limits.MESSAGE
        found += answer.value["engines"]
        more, messages = answer.value["more"], messages + 1
    assert [engine["rank"] for engine in found] == list(range(number))
    assert 1 < messages < 20


def test_all_clients_hear_of_a_failure_and_no_engine_does(service: ControllerService) -> None:
    clients = [Peer(service, key, role) for key, role in ((1, "mec"), (2, "tc"), (3, "monitor"))]
    peer = engine(service, 4)
    peer.says(m.RunBeforeEnd([0], "before_walltime(save)", b"op"))
    (dispatch,) = peer.all(m.Dispatch)
    failed = operations.Failed("OSError", "full", "Traceback\nOSError: disk\x1b[2Jfull")
    peer.says(m.Result(dispatch.id, [0], False, operations.encode(failed)))
    for client in clients:
        (notice,) = client.all(m.Notice)
        assert notice.text == "before_walltime(save) failed on engine 0: OSError: disk?[2Jfull"
    assert peer.all(m.Notice) == []
    clients[0].says(m.QueueStatus(9, None))
    assert clients[0].heard[-1].value == [[[0], None, [], [], None]]


def test_a_timer_tells_clients_in_time(service: ControllerService) -> None:
    client = Peer(service, 1, "mec")
    engine(service, 2, m.JobEnds(120.2, "17"))
    assert client.all(m.Notice) == []
    client.stop_at = m.Notice
    service._loop.run()
    assert client.heard[-1] == m.Notice("job 17 of engine 0 ends in 2 minutes")
