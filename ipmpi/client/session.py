"""The client's session with a controller: one thread, one link, any number of calls under way (layer L4)."""

from __future__ import annotations

import atexit
import concurrent.futures
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .. import furl, limits
from ..errors import ClientError, ConnectionError, KernelError
from ..furl import Furl
from ..protocol import messages as m, operations
from ..protocol.connection import Event, MessageReceived
from ..protocol.frames import Buffer, size_of
from ..protocol.operations import Nothing, Operation, Outcome
from ..protocol.packed import pack
from ..protocol.states import RECEIVES
from ..transport.assembly import Assembly, PrivateMemory
from ..transport.dialled import Callbacks, DialledSession
from ..transport.loop import Loop
from ..transport.proxies import routes_by
from ..transport.routes import DIRECT, Route
from ..transport.ssh import SshSession, shared_session
from ..transport.transfers import Transfers
from .desk import TaskDesk
from .failures import kernel_error
from .notices import say

Future = concurrent.futures.Future


class EngineReply(NamedTuple):
    """One engine's answer. ``undone`` is the error's name and sentence if it will never answer."""

    engine: int
    ok: bool
    outcome: Outcome
    body: list[Buffer]
    undone: tuple[str, str] | None = None


class Submission(NamedTuple):
    """An operation for engines (None: all), and how messages show it."""

    operation: Operation
    targets: list[int] | None
    method: str
    label: str
    body: Sequence[Buffer] = ()


@dataclass(eq=False)
class _Command:
    future: Future[list[EngineReply]]
    body: Sequence[Buffer]
    sizes: list[int]
    order: list[int] | None
    inline: int = 0
    replies: dict[int, EngineReply] = field(default_factory=dict)


class Session:
    """Calls may come from any thread; the futures are completed in the session's own.

    Attributes:
        desk: where tasks are submitted.
        role: of the furl.
        notices: what the controller said that no call asked for, newest last.
    """

    def __init__(self, address: Furl, routes: Sequence[Route] = (DIRECT,)) -> None:
        self._loop = Loop()
        self._numbers = itertools.count(1)
        self._requests: dict[int, Future[Any]] = {}
        self._commands: dict[int, _Command] = {}
        self._inline = 0
        self._failure: KernelError | None = None
        self._transfers = Transfers()
        self.role = address.role
        self.notices: list[str] = []
        self.desk = TaskDesk(self)
        self._up: Future[None] = Future()
        table = RECEIVES.get(address.role, RECEIVES["mec"] | RECEIVES["tc"])
        self._link = DialledSession(
            self._loop,
            address,
            table,
            Callbacks(self._event, self._started, self._interrupted, self._ended),
            patience=limits.CLIENT_RECONNECT,
            renew=False,
            routes=routes,
        )
        self._thread = threading.Thread(target=self._run, name="ipmpi-client", daemon=True)

    def open(self) -> None:
        """Connect; raises why that is not possible."""
        self._thread.start()
        self._loop.call_threadsafe(self._link.open)
        try:
            self._up.result()
        except BaseException:
            # Also what is on its way to be connected has to be stopped (Ctrl-C while ssh asks for a password).
            self._loop.call_threadsafe(lambda: self._shut("it was given up"))
            raise
        atexit.register(self.close)

    def close(self) -> None:
        """End the session. What engines run goes on; calls under way raise ConnectionError."""
        atexit.unregister(self.close)
        if self._thread.is_alive():
            self._loop.call_threadsafe(lambda: self._shut("the client was closed"))
            if threading.get_ident() != self._loop.thread:
                self._thread.join(5)

    # --- calls, from any thread ------------------------------------------------------------------------------

    def command(self, submission: Submission) -> Future[list[EngineReply]]:
        """Send a command. The future gives the replies in the order of targets, or raises why it was refused."""
        body = submission.body
        command = _Command(Future(), body, [size_of([b]) for b in body], submission.targets)
        operation = operations.encode(submission.operation)
        number = next(self._numbers)
        message = m.Command(
            number, submission.targets, submission.method, submission.label, operation, command.sizes
        )
        self._check_size(operation, submission.method)
        self._loop.call_threadsafe(lambda: self._send_command(message, command))
        return command.future

    def request(self, make: Callable[[int], m.AnyMessage]) -> Future[Any]:
        """Ask the controller something; ``make`` gets the request's number."""
        future: Future[Any] = Future()
        number = next(self._numbers)
        message = make(number)

        def send() -> None:
            if self._failure is not None:
                future.set_exception(self._failure)
                return
            self._requests[number] = future
            self.send(message)

        self._loop.call_threadsafe(send)
        return future

    @property
    def failure(self) -> KernelError | None:
        """Why the session is over; None while it is not."""
        return self._failure

    def number(self) -> int:
        """A number that no request, command or group of tasks of this session has."""
        return next(self._numbers)

    def post(self, call: Callable[[], object]) -> None:
        """Make a call in the session's thread."""
        self._loop.call_threadsafe(call)

    def post_later(self, seconds: float, call: Callable[[], object]) -> None:
        """Make a call after a while; to be used in the session's thread."""
        self._loop.call_later(seconds, call)

    def is_own_thread(self) -> bool:
        """Whether this is the session's thread, in which nothing may wait for the controller; or nothing can."""
        return threading.get_ident() == self._loop.thread or self._failure is not None

    @staticmethod
    def _check_size(operation: bytes, method: str) -> None:
        if len(operation) > limits.MESSAGE - limits.INLINE_BODY - 64 * limits.KIB:
            raise ClientError(
                f"the text of this {method} has {len(operation)} bytes; push() large data, and use it by name"
            )

    # --- in the session's thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run()
        except BaseException as error:
            self._fail(ClientError(f"the client's thread failed: {error!r}; please report this"))
            raise
        finally:
            self._loop.close()

    def send(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        """Send a message with a small body."""
        self._link.connection.send(message, body)
        self._link.wake()

    def send_streamed(self, message: m.AnyMessage, body: Sequence[Buffer]) -> None:
        """Send a message whose body waits until it is asked for; it is not copied."""
        stream = self._link.connection.send_streamed(message, size_of(body))
        for buffer in body:
            stream.feed(buffer)
        self._link.wake()

    def _send_command(self, message: m.Command, work: _Command) -> None:
        if self._failure is not None:
            work.future.set_exception(self._failure)
            return
        self._commands[message.id] = work
        total = sum(work.sizes)
        if total and total <= limits.INLINE_BODY and self._inline + total > limits.CLIENT_INLINE_BACKLOG:
            # So much is queued at the controller that this body has to wait here for its turn.
            self.send_streamed(message, work.body)
            return
        if total <= limits.INLINE_BODY:
            work.inline = total
            self._inline += total
            self.send(message, work.body)
            work.body = ()
        else:
            self.send_streamed(message, work.body)

    def _event(self, event: Event) -> None:
        if not isinstance(event, MessageReceived):
            self._transfers.handle(self._link, event)
            return
        message = event.message
        if isinstance(message, m.Result):
            self._body(message, event, lambda body: self._result(message, body))
        elif isinstance(message, m.TasksDone | m.TaskDone | m.TasksUndone):
            self._task_message(message, event)
        elif isinstance(message, m.Reply):
            future = self._requests.pop(message.id, None)
            if future is not None:
                future.set_result(message.value)
        elif isinstance(message, m.Refused):
            self._refused(message)
        elif isinstance(message, m.Accepted):
            command = self._commands.get(message.id)
            if command is not None:
                command.order = message.engines
        elif isinstance(message, m.Undone):
            undone = (message.error, message.text)
            replies = [EngineReply(engine, False, Nothing(), [], undone) for engine in message.engines]
            self._replied(message.id, replies)
        elif isinstance(message, m.SendBodyAgain):
            command = self._commands.get(message.id)
            if command is not None:
                self.send_streamed(m.BodyAgain(message.id, command.sizes), command.body)
            else:
                self.desk.body_wanted(message.id)
        elif isinstance(message, m.Notice):
            self._notice(message.text)
        elif isinstance(message, m.Goodbye):
            self._shut(f"the controller said goodbye: {message.reason}")

    def _body(
        self,
        message: Any,
        event: MessageReceived,
        done: Callable[[list[Buffer]], None],
        no_memory: Callable[[], None] | None = None,
    ) -> None:
        """Call ``done`` with the body, when all of it is here; with nothing if its sender is lost."""
        if not event.stream:
            done(list(event.body))
            return
        try:
            memory = PrivateMemory(sum(message.sizes))
        except (OSError, ValueError, OverflowError):
            self._link.connection.refuse(event.stream)
            self._link.wake()
            if no_memory is None:
                done([])
            else:
                no_memory()
            return
        assembly = Assembly(message.sizes, memory, lambda whole: done(whole.segments()), lambda: done([]))
        self._transfers.start(self._link, event.stream, [(assembly, assembly)])

    def _result(self, message: m.Result, body: list[Buffer]) -> None:
        if sum(message.sizes) and not body:
            size = sum(message.sizes)
            undone = (
                "EngineLost",
                f"the answer of engine {message.engines[0]} ({size} bytes) did not arrive: the engine was lost "
                "while it sent it, or there is not so much memory here",
            )
            self._replied(message.id, [EngineReply(e, False, Nothing(), [], undone) for e in message.engines])
            return
        outcome = operations.decode_outcome(message.outcome)
        self._replied(message.id, [EngineReply(e, message.ok, outcome, body) for e in message.engines])

    def _replied(self, number: int, replies: list[EngineReply]) -> None:
        command = self._commands.get(number)
        if command is None:
            return
        for reply in replies:
            command.replies[reply.engine] = reply
        if command.order is None:
            # No Accepted came before: this answer is of all engines that the command was given to.
            command.order = sorted(command.replies)
        order = command.order
        if len(command.replies) >= len(set(order)):
            del self._commands[number]
            self._inline -= command.inline
            command.body = ()
            command.future.set_result([command.replies[engine] for engine in order])

    def _task_message(self, message: m.TasksDone | m.TaskDone | m.TasksUndone, event: MessageReceived) -> None:
        if isinstance(message, m.TasksUndone):
            self.desk.tasks_undone(message)
        elif isinstance(message, m.TasksDone):
            if event.stream:
                self._body(message, event, lambda body: self.desk.tasks_done(message, body))
            else:
                self.desk.tasks_done(message, event.body)
        else:
            self._body(
                message, event, lambda body: self._task_done(message, body), lambda: self._no_memory(message)
            )

    def _task_done(self, message: m.TaskDone, body: list[Buffer]) -> None:
        if body:  # else the engine was lost while it sent this: the controller gives the task to another one
            self.desk.task_done(message, body)

    def _no_memory(self, message: m.TaskDone) -> None:
        text = (
            f"the task has succeeded, but there is no memory here for its result of {sum(message.sizes)} bytes. "
            "Let the task write it to a file, or return less"
        )
        self.desk.tasks_undone(m.TasksUndone(message.group, pack([message.index]), "MessageSizeError", text))

    def _refused(self, message: m.Refused) -> None:
        error = kernel_error(message.error, message.text)
        request = self._requests.pop(message.id, None)
        if request is not None:
            request.set_exception(error)
        command = self._commands.pop(message.id, None)
        if command is not None:
            self._inline -= command.inline
            command.future.set_exception(error)
        self.desk.refused(message.id, error)

    # --- the link's ups and downs ----------------------------------------------------------------------------

    def _started(self) -> None:
        if not self._up.done():
            self._up.set_result(None)

    def _interrupted(self, reason: str) -> None:
        self._notice(f"the link to the controller broke ({reason}); dialling again, calls wait")

    def _notice(self, text: str) -> None:
        self.notices.append(text)
        say(text)

    def _ended(self, error: KernelError) -> None:
        if not self._up.done():
            self._up.set_exception(error)
        self._fail(error)
        self._loop.stop()

    def _shut(self, reason: str) -> None:
        self._link.close(reason)
        self._fail(ConnectionError(f"{reason}. Make a new client to go on"))
        self._loop.stop()

    def _fail(self, error: KernelError) -> None:
        if self._failure is None:
            self._failure = error
        waiting: list[Future[Any]] = [
            *self._requests.values(),
            *(command.future for command in self._commands.values()),
        ]
        self._requests.clear()
        self._commands.clear()
        for future in waiting:
            future.set_exception(self._failure)
        self.desk.fail(self._failure)


def connect(
    furl_or_file: str | os.PathLike[str] = "",
    role: str = "mec",
    *,
    ssh: str | SshSession | None = None,
    proxy: str | None = None,
) -> Session:
    """A session with the controller of a furl, a furl file, or the default file of ``role``.

    Args:
        furl_or_file: the furl, or the file.
        role: what the furl must be for.
        ssh: the login node to go through; without a furl, the default file *there* is meant.
        proxy: an HTTP proxy, 'none', or None for what the environment says, after the direct way.

    Raises:
        FurlError, SecurityError, ConnectionError, VersionError: what is wrong, and what to do.
    """
    if ssh is None:
        routes = routes_by(proxy, os.environ, say)
        session = Session(furl.load_furl_or_file(furl_or_file, role), routes)
    elif proxy:
        raise ClientError(
            "ssh= and proxy= together: ssh has a way of its own through a proxy, ProxyCommand in ~/.ssh/config"
        )
    else:
        login = shared_session(ssh) if isinstance(ssh, str) else ssh
        if furl.named(furl_or_file).strip():
            address = furl.load_furl_or_file(furl_or_file, role)
            login.open()
        else:
            address = login.furl(role)
        session = Session(address, [login.route])
    session.open()
    return session
