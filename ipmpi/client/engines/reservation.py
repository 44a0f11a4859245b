"""Keep tasks away from engines for a while: what ``mec.reserve()`` returns."""

from __future__ import annotations

import contextlib
from types import TracebackType

from ...errors import KernelError
from ...protocol import messages
from ..session.results import wait_until_done
from ..session.session import Session
from ..session.waiting import check_waiting


class Reservation:
    """A with-statement in which engines start no tasks, so that commands have them for themselves.

    A task that runs already goes on; a command waits for its end. Reservations may overlap: an engine gets tasks
    again when all of its have ended. They end with the client, too.

    Attributes:
        engines: the ids of the engines that are reserved; empty outside the statement.
    """

    def __init__(self, session: Session, targets: list[int] | None) -> None:
        self._session = session
        self._targets = targets
        self.engines: list[int] = []

    def __repr__(self) -> str:
        return f"<Reservation of engines {self.engines}>" if self.engines else "<Reservation, not in force>"

    def __enter__(self) -> Reservation:
        check_waiting()
        answer = self._session.request(lambda i: messages.Reserve(i, self._targets))
        wait_until_done(answer)
        self.engines = [int(engine) for engine in answer.result()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        engines, self.engines = self.engines, []
        if not engines:
            return
        answer = self._session.request(lambda i: messages.Release(i, engines))
        with contextlib.suppress(KernelError):  # whoever cannot be asked any more has released them
            answer.result()
