"""What the clients of tasks use of a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from ...errors import KernelError
from ...protocol import messages as m
from ...protocol.frames import Buffer
from ..session.opening import Opener

OnError = Callable[[BaseException], object]


class Wire(Protocol):
    """The part of a session that a submitter uses. Methods that do not send may be called from any thread."""

    @property
    def failure(self) -> KernelError | None:
        """Why the session has ended; None if it has not."""

    @property
    def opener(self) -> Opener:
        """Opens what engines have pickled."""

    @property
    def is_journalled(self) -> bool:
        """Whether the controller has the session, with its tasks, in a journal."""

    def check(self) -> None:
        """Raise ClientError if this process is a fork of the session's."""

    def post(self, call: Callable[[], object], on_error: OnError | None = None) -> None:
        """Call it in the session's thread; an exception is passed to ``on_error`` there."""

    def post_later(self, seconds: float, call: Callable[[], object], on_error: OnError | None = None) -> object:
        """As :meth:`post`, after some seconds; only from the session's thread."""

    def is_own_thread(self) -> bool:
        """Return whether this is the session's thread, which must not wait for the controller."""

    def number(self) -> int:
        """Return a number that no request, command or group of the session has."""

    def request(self, make: Callable[[int], m.AnyMessage]) -> Future[Any]:
        """Send a request; ``make`` is called with its number."""

    def send(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        """Send a message with a small body."""

    def send_streamed(self, message: m.AnyMessage, body: Sequence[Buffer]) -> None:
        """Send a message whose body is a stream."""
