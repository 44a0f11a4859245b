"""Where each message of a client goes: to what answers it, to the queues of commands, or to that of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

from ..errors import KernelError, SecurityError
from ..protocol import messages as m
from ..protocol.connection import MessageReceived
from .commands.router import Router
from .effects import refusal
from .farm.farm import Farm
from .headers import check_room
from .interfaces import Interface
from .nojournal import NoJournal
from .sessions import PeerSession
from .taskjournal import TaskJournal

Requests = Mapping[type[m.Message], Callable[[PeerSession, Any], Any]]
"""What answers messages, by their type; what it returns is the value of the Reply."""
Others = Mapping[type[m.Message], Callable[[int, Any], object]]
"""What handles messages of further types, of the client with this key."""

_SAID: Final = (m.TasksFetched, m.TasksOpen, m.TaskOrigin, m.CommandOrigin)
"""What every client says that may send what these are about: no interface of a site refuses one of them."""


class ClientMessages:
    """Passes on what clients say, and refuses what they may not.

    Args:
        router, farm, journal: handle commands and tasks.
        interfaces: what clients may say, by role.
        requests, others: what handles everything else.
        check_use: called with each message; raises FurlEnded if a client's furl does not allow it.
        send: sends a message to the session with a key.
        end: ends the session of a client that waits for no reply; called with the reason.
        commanded: called after each command.
    """

    def __init__(
        self, router: Router, farm: Farm, journal: NoJournal | TaskJournal, interfaces: Mapping[str, Interface],
        requests: Requests, others: Others, *, check_use: Callable[[int, m.AnyMessage], None],
        send: Callable[[int, m.AnyMessage], None], end: Callable[[PeerSession, str], None],
        commanded: Callable[[], object],
    ) -> None:  # fmt: skip
        self._router, self._farm, self._journal = router, farm, journal
        self._interfaces = interfaces
        self._requests, self._others = requests, others
        self._check_use, self._send, self._end, self._commanded = check_use, send, end, commanded
        self._orders: dict[type[m.Message], Callable[[int, Any, MessageReceived], object]] = {
            m.Command: self._command,
            m.DebuggerLine: lambda key, message, _event: router.debuggers.line(key, message),
            **dict.fromkeys(
                get_args(m.ChannelMessage),
                lambda key, message, _event: router.debuggers.channels.from_client(key, message),
            ),
            m.SubmitTasks: lambda key, message, event: journal.submit(key, message, event.body, event.stream),
            **dict.fromkeys(
                (m.TasksFetched, m.TasksOpen, m.TaskOrigin, m.FollowTasks),
                lambda key, message, _event: journal.told(key, message),
            ),
            m.BodyAgain: self._body_again,
            m.AbortTasks: lambda key, message, _event: journal.named.abort(key, message),
            m.DefineFunction: lambda key, message, event: farm.define(key, message, event.body),
            m.ForgetFunctions: lambda key, message, _event: farm.forget(key, message),
        }

    def takes(self, kind: type[m.Message]) -> bool:
        """Return whether messages of a type are passed on."""
        return kind in self._requests or kind in self._others or kind in self._orders

    def heard(self, session: PeerSession, event: MessageReceived) -> None:
        """A client has said something: do it, and answer or refuse it."""
        message: Any = event.message
        try:
            self._check_use(session.key, message)
            if not isinstance(message, _SAID) and not self._interfaces[session.role].permits(message):
                raise SecurityError(
                    f"the {session.role!r} interface does not permit this {type(message).__name__}"
                )
            request = self._requests.get(type(message))
            if request is not None:
                self._send(session.key, m.Reply(message.id, request(session, message)))
            elif (handle := self._others.get(type(message))) is not None:
                handle(session.key, message)
            else:
                self._orders[type(message)](session.key, message, event)
        except KernelError as error:
            if event.stream:
                session.refuse(event.stream)
            if hasattr(message, "id"):
                self._send(session.key, refusal(message.id, error))
            else:  # no reply is expected, so the client would not see an error
                self._end(session, str(error))

    def _command(self, key: int, message: m.Command, event: MessageReceived) -> None:
        check_room(message, event.body, len(self._router.registry.engines))
        self._router.command(key, message, event.body, event.stream)
        self._commanded()

    def _body_again(self, key: int, message: m.BodyAgain, event: MessageReceived) -> None:
        if not self._farm.bodies.again(key, message, event.stream):
            self._router.body_again(key, message, event.stream)
