"""A controller for each file of tests that attack one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.cluster import Controller


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
