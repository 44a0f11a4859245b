"""The lines between peers and the controller in the simulation: real connections, and the bytes between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ipmpi.controller.clientresults import has_results
from ipmpi.controller.farm.recovery import ends_in
from ipmpi.journal.rows import Change, DropGroup, EndRow
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, DataReceived, Event, MessageReceived, Prepared
from ipmpi.protocol.frames import Buffer
from ipmpi.protocol.permissions import CONTROLLER_RECEIVES, RECEIVES
from ipmpi.protocol.registration import Registration
from tests.journal.memory_store import MemoryStore

UNACKNOWLEDGED = 4_000
"""Bytes after which an end waits for acknowledgements: few, so that it happens."""


class Violation(AssertionError):
    """Something happened that is promised not to happen."""


class CheckedStore(MemoryStore):
    """A journal that notices when an end of a task is recorded for the second time.

    ``ended``: the step in which the first end of each task was recorded, by serial and index; ``results``: those
    whose result was.
    """

    def __init__(self, step: Callable[[], int]) -> None:
        """``step`` returns the number of the present step."""
        super().__init__()
        self._step = step
        self.ended: dict[tuple[int, int], int] = {}
        self.results: set[tuple[int, int]] = set()
        self._ended: dict[int, dict[int, bool]] = {}
        """By serial and index: whether the result is there, which may come after the end, and once."""

    def commit(self, changes: Sequence[Change]) -> None:
        super().commit(changes)
        for change in changes:
            if isinstance(change, DropGroup):
                self._ended.pop(change.serial, None)
            elif isinstance(change, EndRow):
                known = self._ended.setdefault(change.serial, {})
                message: Any = m.decode(change.message)
                for index in ends_in(message):
                    if index in known and not (has_results(message) and not known[index]):
                        raise Violation(f"task {index} of group {change.serial} was recorded twice")
                    known[index] = has_results(message)
                    self.ended.setdefault((change.serial, index), self._step())
                    if known[index] and not isinstance(message, m.TasksUndone):
                        self.results.add((change.serial, index))


class Checked(Connection):
    """A connection that keeps what was said on it and has not been heard."""

    def __init__(self, table: frozenset[type[m.Message]]) -> None:
        super().__init__(table, unacknowledged=UNACKNOWLEDGED)
        self.said: deque[m.AnyMessage] = deque()

    def _queue_message(self, message: m.AnyMessage | Prepared, body: list[Buffer], stream: int) -> None:
        if isinstance(message, Prepared):
            self.said.append(m.decode(message.header))
        else:  # values of replies are heard as other types
            self.said.append(m.decode(m.encode(message)) if isinstance(message, m.Reply) else message)
        super()._queue_message(message, body, stream)

    def hear(self, data: bytes, other: Checked) -> list[Event]:
        """What is in these bytes. Messages are those that the other end has said, in that order, each once."""
        found: list[Event] = []
        for event in self.receive_data(data):
            if isinstance(event, DataReceived):
                event = event._replace(data=bytes(event.data))
            if not isinstance(event, MessageReceived):
                found.append(event)
                continue
            if not other.said or other.said.popleft() != event.message:
                raise Violation(f"{event.message} was heard out of order, or twice, or was never said")
            body: list[Any] = [bytes(part) for part in event.body]
            found.append(MessageReceived(event.message, body, event.stream))
        return found


class Known:
    """A session, as the controller knows it."""

    def __init__(self, key: int, token: bytes, role: str, former: bytes = b"", restored: bool = False) -> None:
        self.key, self.token, self.role, self.former, self.restored = key, token, role, former, restored
        self.connection = Checked(CONTROLLER_RECEIVES[role])
        self.line: Line | None = None
        self.registration = Registration()
        self.farewell = ""
        self.ends_at: float | None = None
        """When the controller gives it up, if nobody can come back for it."""

    def wake(self) -> None:
        """What is to be sent is found by itself."""

    def refuse(self, stream: int) -> None:
        """As :class:`ipmpi.controller.sessions.PeerSession`."""
        self.connection.refuse(stream)


class Line:
    """The network between a peer and the controller: its state, and the bytes under way in both directions.

    ``state``: 'down', 'hello' and 'welcome' (which are under way), 'up', 'void' (open, and nothing arrives).
    """

    def __init__(self, role: str, token: bytes) -> None:
        self.role = role
        self.token = token
        self.state = "down"
        self.near = Checked(RECEIVES[role])
        self.far: Known | None = None
        self.up = bytearray()
        self.down = bytearray()
        self.away_until = 0.0
        self.hello = 0
        self.welcome: tuple[Known, int, bool] | None = None

    def cut(self) -> None:
        """What is under way is lost."""
        self.up.clear()
        self.down.clear()
        self.state = "down"
        self.welcome = None
