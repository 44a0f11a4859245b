"""After a restart: commands wait until all engine sets are back and have said what their ranks were given.

Most messages about tasks pass at once. All others of clients wait here, in the order in which they came, and so do
answers of ranks. It is over when all sets of the journal are back, and the clients whose commands were begun; or
after :data:`~ipmpi.controller.taskjournal.RECOVERY` seconds. A client that comes back later can still go on
with commands that no rank was given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .. import limits
from ..errors import Backpressure, KernelError, SecurityError
from ..protocol import messages as m
from ..protocol.connection import MessageReceived
from ..protocol.frames import Buffer, size_of
from .commands.againorder import Again
from .commands.resumed import ResumedCommands
from .effects import refusal
from .interfaces import Interface
from .sessions import PeerSession

_TASKS: Final = (
    m.SubmitTasks, m.TasksFetched, m.TasksOpen, m.DefineFunction, m.ForgetFunctions, m.TaskStatus, m.Recheck,
    m.BodyAgain, m.TaskOrigin, m.TaskHistory, m.ResumeTasks, m.FollowTasks, m.ForgetTasks, m.CommandOrigin,
)  # fmt: skip
"""What clients say about tasks, and who they are. Not AbortTasks: a set that is not back may run these tasks."""

_ABOUT_COMMANDS: Final = (m.Result, m.Output, m.DebuggerSaid, m.AnswerStuck)
"""What sets say about commands that their ranks were given."""


_MOST: Final = 100_000
"""Messages that are held back; with more it is over, so that they do not fill the memory."""

_MOST_BYTES: Final = 256 * limits.MIB
"""The same for their bodies."""


@dataclass
class _Client:
    agains: list[Again] = field(default_factory=list)
    size: int = 0
    is_back: bool = False


class ComeBack:
    """Holds back what would be out of order while peers come back.

    Args:
        resumed: puts together what they say.
        deliver: handles a message that was held back.
        send: sends a message to the session with a number.
        interfaces: what clients may send, by role.
    """

    def __init__(
        self,
        resumed: ResumedCommands,
        deliver: Callable[[PeerSession, MessageReceived], None],
        send: Callable[[int, m.AnyMessage, Sequence[Buffer]], None],
        interfaces: Mapping[str, Interface],
    ) -> None:
        self._resumed = resumed
        self._deliver = deliver
        self._send = send
        self._interfaces = interfaces
        self._sets: set[bytes] = set()
        """Tokens of the sets that have not said what they have."""
        self._known: set[bytes] = set()
        self._silent: set[int] = set()
        """Sets that are here, and of which nobody knows (yet) what their ranks were given."""
        self._clients: dict[int, _Client] = {}
        self._late: list[tuple[PeerSession, MessageReceived]] = []
        self._late_bytes = 0
        self._until: float | None = None
        """None if nothing is held back."""

    def expect(self, clients: Collection[int], sets: Collection[bytes], until: float) -> None:
        """These were in the journal when the controller began."""
        self._clients = {client: _Client() for client in clients}
        self._sets, self._known = set(sets), set(sets)
        self._until = until
        if not sets:  # then nothing can have begun
            self._begin()

    def takes(self, session: PeerSession, event: MessageReceived) -> bool:
        """Return whether a message is dealt with here, now or later."""
        if session.role == "engine":
            return self._takes_of_set(session, event)
        message = event.message
        if isinstance(message, m.CommandAgain):
            self._note(session, Again(session.key, message, event.body, event.stream))
            return True
        if isinstance(message, m.CommandsTold):
            self._told(session.key)
            return True
        if self._until is None or isinstance(message, _TASKS):
            return False
        self._hold_back(session, event)
        return True

    def _hold_back(self, session: PeerSession, event: MessageReceived) -> None:
        self._late.append((session, event))
        self._late_bytes += size_of(event.body)
        if len(self._late) > _MOST or self._late_bytes > _MOST_BYTES:
            self._begin()

    def _note(self, session: PeerSession, again: Again) -> None:
        """A client has sent a command again."""
        client = self._clients.setdefault(session.key, _Client())
        client.size += size_of(again.body)
        error: KernelError | None = None
        if not self._interfaces[session.role].permits(again.command):
            error = SecurityError(f"the {session.role!r} interface does not permit this Command")
        elif len(client.agains) >= limits.CLIENT_COMMANDS or client.size > 2 * limits.CLIENT_INLINE_BACKLOG:
            error = Backpressure("more commands were sent again than may be under way")
        if error is None:
            client.agains.append(again)
            return
        self._send(session.key, refusal(again.message.id, error), ())
        if again.stream:
            session.refuse(again.stream)

    def _takes_of_set(self, session: PeerSession, event: MessageReceived) -> bool:
        message = event.message
        if isinstance(message, m.Register) and session.former in self._sets:
            self._silent.add(session.key)
        if isinstance(message, m.CommandsHeld):
            self._held(session, message)
            return True
        if self._until is None or not isinstance(message, _ABOUT_COMMANDS):
            return False
        if not self._is_again(session.key, event):
            self._hold_back(session, event)
        return True

    def _held(self, session: PeerSession, message: m.CommandsHeld) -> None:
        if self._until is None or session.former not in self._known:
            if not message.is_last:  # it is too late for that, or the journal does not have the set
                self._silent.add(session.key)
            return
        self._resumed.held(session.key, message)
        if message.is_last:
            self._sets.discard(session.former)
            self._silent.discard(session.key)
            self.look()

    def _is_again(self, key: int, event: MessageReceived) -> bool:
        """Return whether this is about a command that was held, and was taken for when its client is back."""
        message = event.message
        if isinstance(message, m.Output):
            return self._resumed.printed(key, message)
        return (
            isinstance(message, m.Result) and not event.stream and self._resumed.answered(key, message, event.body)
        )

    def _told(self, key: int) -> None:
        """A client has sent again all that it has."""
        client = self._clients.setdefault(key, _Client())
        client.is_back = True
        if self._until is None:
            self._resume([key])
        else:
            self.look()

    def ended(self, session: PeerSession) -> None:
        """A session has ended: nobody waits for it."""
        if session.role != "engine":
            self._clients.pop(session.key, None)
            self._resumed.settle(session.key, is_gone=True)
        elif session.key in self._silent:
            self._silent.discard(session.key)
            self._sets.discard(session.former)
        self.look()

    def look(self) -> None:
        """Go on if everybody is back."""
        if self._until is None or self._sets:
            return
        if all(self._clients[key].is_back for key in self._resumed.owners if key in self._clients):
            self._begin()

    def due(self, now: float) -> None:
        """Go on without those that are not back, when it is time."""
        if self._until is not None and now >= self._until:
            self._begin()

    def next_deadline(self) -> float | None:
        """Return when to call :meth:`due` if no event occurs."""
        return self._until

    def _begin(self) -> None:
        self._until = None
        self._resumed.begin()
        gone = self._resumed.clients - self._clients.keys()
        away = [key for key, client in self._clients.items() if not client.is_back]
        self._resume([key for key, client in self._clients.items() if client.is_back])
        for client in away:
            self._resumed.learn(client)
        for client in gone:
            self._resumed.settle(client, is_gone=True)
        late, self._late, self._late_bytes = self._late, [], 0
        for session, event in late:
            self._deliver(session, event)

    def _resume(self, keys: Collection[int]) -> None:
        agains = [again for key in keys for again in self._clients.pop(key).agains]
        for again, error in self._resumed.resume(agains, self._silent):
            self._send(again.client, refusal(again.message.id, error), ())
        for key in keys:
            self._resumed.settle(key, is_gone=False)
