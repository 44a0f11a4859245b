"""A controller for each file of tests that attack one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.cluster import Controller, wait_until
from tests.security.farm import ids, leave, submit
from tests.security.wire import Member, register


class _Holder:
    """Starts a controller, and another one if a test killed it: one failure shall not hide the rest."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._running: Controller | None = None

    def get(self) -> Controller:
        if self._running is None or not self._running.is_alive():
            self.stop()
            self._running = Controller(self._factory.mktemp("controller"))
        return self._running

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()


@pytest.fixture(scope="module")
def controllers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Holder]:
    """What keeps this file's controller."""
    holder = _Holder(tmp_path_factory)
    yield holder
    holder.stop()


@pytest.fixture(name="controller")
def running_controller(controllers: _Holder) -> Iterator[Controller]:
    """A controller process on loopback. Whatever a test does to it: it stays, with no error of its own."""
    running = controllers.get()
    yield running
    assert running.is_alive(), running.log()[-3000:]
    assert "Traceback" not in running.log(), running.log()[-3000:]


# --- for tests about tasks ---------------------------------------------------------------------------------


@pytest.fixture
def registered(controller: Controller) -> Iterator[tuple[Member, int]]:
    """An honest engine, which wants nothing yet, and its id."""
    member, number = register(controller.furl("engine"))
    with member:
        yield member, number
        leave(member)
    with Member(controller.furl("monitor")) as observer:
        wait_until(lambda: number not in ids(observer), "the end of an engine's session")
        leave(observer)


@pytest.fixture
def engine(registered: tuple[Member, int]) -> Member:
    return registered[0]


@pytest.fixture
def client(controller: Controller) -> Iterator[Member]:
    with Member(controller.furl("tc")) as member:
        yield member
        leave(member)


@pytest.fixture
def other(controller: Controller) -> Iterator[Member]:
    """Another client, to whom nothing of this may happen."""
    with Member(controller.furl("tc")) as member:
        submit(member, 1, [b"mine"] * 3)
        member.ping()
        yield member
        leave(member)
