"""Reserving engines for commands: what ``mec.reserve()`` returns."""

from __future__ import annotations

import contextlib
from types import TracebackType

from ...errors import KernelError
from ...ids import Ids
from ...protocol import messages
from ..session.calls import ask
from ..session.session import Session


class Reservation:
    """A context manager that keeps tasks off engines, so that only commands run there.

    A task that is already running continues; commands wait for its end. Reservations may overlap: an engine gets
    tasks again when its last reservation has ended. Closing the client ends its reservations.

    Attributes:
        engines: the ids of the reserved engines; empty outside the ``with`` block.
    """

    def __init__(self, session: Session, targets: list[int] | None) -> None:
        self._session = session
        self._targets = targets
        self.engines: list[int] = []

    def __repr__(self) -> str:
        return f"<Reservation of engines {self.engines}>" if self.engines else "<Reservation, not in force>"

    def __enter__(self) -> Reservation:
        answer = ask(self._session, lambda i: messages.Reserve(i, self._targets))
        self.engines = list(Ids.unpacked(answer))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        engines, self.engines = self.engines, []
        if not engines:
            return
        answer = self._session.request(lambda i: messages.Release(i, engines))
        with contextlib.suppress(KernelError):  # without a connection, the controller has released them already
            answer.result()
