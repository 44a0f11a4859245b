"""Waiting for engines that are still to come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from fake_farm import FakeFarm

from ipmpi import errors
from ipmpi.client import MultiEngineClient, TaskClient

if TYPE_CHECKING:
    from conftest import FakeSession

Wait = Callable[..., None]


@pytest.fixture(params=["mec", "tc"])
def waiting(request: pytest.FixtureRequest, session: FakeSession, farm: FakeFarm) -> tuple[Wait, Any]:
    """The method of a client, and its session."""
    used: Any = session if request.param == "mec" else farm
    client = MultiEngineClient(session=used) if request.param == "mec" else TaskClient(session=used)
    return client.wait_for_engines, used


def test_it_returns_at_once_if_there_are_enough(waiting: tuple[Wait, Any]) -> None:
    wait, session = waiting
    there = len(session.engines)
    assert wait(there) is None
    assert wait(there, timeout=0) is None
    assert wait(0) is None


def test_it_returns_when_the_last_one_has_come(waiting: tuple[Wait, Any]) -> None:
    wait, session = waiting
    there = len(session.presence.ids)
    session.presence.update((), session.presence.ids)
    ended = threading.Event()
    thread = threading.Thread(target=lambda: (wait(there), ended.set()), daemon=True)
    thread.start()
    session.presence.update(range(there - 1), ())
    assert not ended.wait(0.05)
    session.presence.update([there], ())
    assert ended.wait(10)


def test_too_few_are_told_with_what_to_do(waiting: tuple[Wait, Any]) -> None:
    wait, session = waiting
    there = len(session.engines)
    with pytest.raises(
        TimeoutError,
        match=rf"^{there} of 8 engines are registered after 0.01 s: {8 - there} are missing\. `ipcluster explain` "
        rf".*`ipcluster engines -n {8 - there}` starts more; wait_for_engines\(8\) without a timeout",
    ):
        wait(8, 0.01)


def test_the_end_of_the_connection_ends_the_wait(waiting: tuple[Wait, Any]) -> None:
    wait, session = waiting
    session.failure = errors.ConnectionError("the controller has gone")
    session.presence.end()
    with pytest.raises(ConnectionError, match="the controller has gone"):
        wait(60)
