"""Clients in the network simulation: their sessions are the real ones, without threads."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ipmpi.client.session.session import Session
from ipmpi.protocol.connection import Event

if TYPE_CHECKING:
    from tests.controller.network_lines import Line
    from tests.controller.network_stage import NetworkStage


class StageLink:
    """Stands for the session's way to the controller: a line of the stage."""

    line: Line
    is_journalled = was_journalled = True

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    @property
    def connection(self) -> Any:
        return self.line.near

    def wake(self) -> None:
        pass


class StageClient:
    """A client, with this role.

    ``requests``: what it has asked, and is to be answered. ``vanished``: the step in which it was killed.
    """

    def __init__(self, stage: NetworkStage, line: Line) -> None:
        self.stage = stage
        self.key = 0
        address: Any = SimpleNamespace(role=line.role, fingerprint=b"")
        self.session = Session(address)
        self.session._link.line = line  # type: ignore[attr-defined]
        self.loop: Any = self.session.loop
        self.requests: list[Future[Any]] = []
        self.vanished: int | None = None
        self.begun: set[int] = set()
        """The steps in which it has gone on with another controller."""

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for answers to requests."""
        self.requests = [each for each in self.requests if not each.done()]
        return not self.loop.is_idle or bool(self.requests)

    @property
    def is_busy(self) -> bool:
        return self.is_waiting

    def turn(self) -> None:
        self.loop.turn()

    def event(self, event: Event) -> None:
        self.session._event(event)

    def welcomed(self, again: bool) -> None:
        """A session begins; ``again``: it goes on, and the controller is another one."""
        if again:
            self.begun.add(self.stage.steps)
            self.session._started()
