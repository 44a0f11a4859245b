"""What has to happen at once, on real ranks behind a real controller."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ipmpi import errors
from ipmpi.client.session.session import Submission
from ipmpi.protocol import messages as m
from ipmpi.protocol.operations import Execute

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

    from ipmpi.client import MultiEngineClient

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

SOON = 10.0


@pytest.fixture
def mec(cluster: Cluster) -> MultiEngineClient:
    client = cluster.mec()
    client.reset()
    return client


@pytest.mark.parametrize("size", [3, 3_000, 12_000, 30_000, 300_000])
def test_arrays_of_any_size_are_writable(mec: MultiEngineClient, size: int) -> None:
    mec.push({"a": np.arange(size)})
    mec.execute("a[0] = 5 + id")
    pulled = mec.pull("a")
    assert [part[0] for part in pulled] == [5, 6, 7, 8]
    for part in pulled:
        part[1] = 0  # raises if it is read-only


def test_an_interrupt_that_follows_at_once_is_not_lost(mec: MultiEngineClient) -> None:
    for target in (0, 2):
        begin = time.monotonic()
        pending = mec.execute("import time; time.sleep(30)", targets=target, block=False)
        mec.interrupt(target)
        with pytest.raises(errors.CompositeError) as info:
            pending.get_result(timeout=SOON)
        assert "KeyboardInterrupt" in str(info.value)
        assert time.monotonic() - begin < SOON


def test_a_command_for_all_tells_who_answered(mec: MultiEngineClient) -> None:
    session = mec._calls.session
    replies = session.command(Submission(Execute("id"), None, "execute", "execute")).result(SOON)
    assert [reply.engine for reply in replies] == [0, 1, 2, 3]
    replies = session.command(Submission(Execute("1 / (id - 1)"), None, "execute", "execute")).result(SOON)
    assert [(reply.engine, reply.ok) for reply in replies] == [(0, True), (1, False), (2, True), (3, True)]


def test_a_closed_client_says_so_at_once(cluster: Cluster) -> None:
    client = cluster.mec()
    client.close()
    for call in (client.get_ids, lambda: client.execute("pass")):
        with pytest.raises(errors.ConnectionError, match="the client was closed"):
            call()


def test_clients_hear_at_once_that_the_controller_stopped(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    cluster.start(2)
    waiting, ending = cluster.mec(), cluster.mec()
    pending = waiting.execute("import time; time.sleep(30)", block=False)
    assert all(status["pending"] != "None" for _, status in waiting.queue_status())  # it has arrived
    ending.kill(controller=True)
    with pytest.raises((errors.CompositeError, errors.ConnectionError)):
        pending.get_result(timeout=SOON)

    def ask_until_the_goodbye_has_come() -> None:
        while True:
            waiting._calls.session.request(m.GetIds).result(SOON)

    with pytest.raises(errors.ConnectionError, match="the controller ended the session"):
        ask_until_the_goodbye_has_come()
