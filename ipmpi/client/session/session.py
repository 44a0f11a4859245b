"""The client's session with a controller: one thread, one link, any number of calls under way."""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from ... import limits
from ...errors import ClientError, ConnectionError, KernelError, internal_error
from ...furl import Furl
from ...protocol import messages as m, operations
from ...protocol.connection import Event, MessageReceived, Prepared
from ...protocol.frames import Buffer, size_of
from ...protocol.operations import Nothing, Operation
from ...protocol.packed import pack
from ...protocol.permissions import RECEIVES
from ...ranges import engines_named, ranges
from ...transport.bodyreceiver import BodyReceiver, PrivateMemory
from ...transport.dial.dialled import Callbacks, DialledSession
from ...transport.dial.routes import DIRECT, Route
from ...transport.loop import Loop
from ...transport.transfers import Transfers
from .commandoutput import CommandOutput
from .enginereply import EngineReply
from .failures import kernel_error
from .notices import say
from .partial import CommandFuture, SoFar
from .prepared import prepared_here
from .presence import Presence
from .taskmessages import NoTasks, TaskReceiver
from .waiting import SessionFuture, check_process, forks, in_clients_thread

Future = concurrent.futures.Future


class Submission(NamedTuple):
    """An operation for engines (None: all), and how messages show it."""

    operation: Operation
    targets: list[int] | None
    method: str
    label: str
    body: Sequence[Buffer] = ()


@dataclass(eq=False)
class _Command:
    future: CommandFuture
    so_far: SoFar
    body: Sequence[Buffer]
    sizes: list[int]
    order: list[int] | None
    output: CommandOutput
    inline: int = 0
    replies: dict[int, EngineReply] = field(default_factory=dict)


class Session:
    """Calls may come from any thread; the futures are completed in the session's own.

    Attributes:
        tasks: told of all that the controller says about tasks.
        role: of the furl.
        notices: what the controller said that no call asked for, newest last.
        presence: which engines there are.
    """

    def __init__(self, address: Furl, routes: Sequence[Route] = (DIRECT,)) -> None:
        self._loop = Loop()
        self._numbers = itertools.count(1)
        self._requests: dict[int, Future[Any]] = {}
        self._commands: dict[int, _Command] = {}
        self._inline = 0
        self._failure: KernelError | None = None
        self._born = forks()
        self._is_wanted = True
        self._transfers = Transfers()
        self.role = address.role
        self.notices: list[str] = []
        self.presence = Presence()
        self.tasks: TaskReceiver = NoTasks()
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
        self._loop.call_threadsafe(self._link.open, self._failed)
        try:
            self._up.result()
        except BaseException:
            # Also what is on its way to be connected has to be stopped (Ctrl-C while ssh asks for a password).
            self._loop.call_threadsafe(lambda: self._shut("it was given up"), self._failed)
            raise
        atexit.register(self._at_exit)

    def close(self) -> None:
        """End the session. What engines run goes on; calls under way raise ConnectionError.

        In a forked process it does nothing: the session is its parent's.
        """
        if self._born != forks():
            return
        atexit.unregister(self._at_exit)
        if self._thread.is_alive():
            self._loop.call_threadsafe(lambda: self._shut("the client was closed"), self._failed)
            if threading.get_ident() != self._loop.thread:
                self._thread.join(5)

    def release(self) -> None:
        """Nobody refers to the client any more: end the session as soon as nothing is under way."""
        if self._born == forks():
            self._loop.call_threadsafe(self._unwanted, self._failed)

    def _at_exit(self) -> None:
        # Callbacks learn that their calls have failed. What they raise then is of no interest to anybody.
        library = logging.getLogger("concurrent.futures")
        library.addFilter(_nothing)
        try:
            self.close()
        finally:
            library.removeFilter(_nothing)

    # --- calls, from any thread ------------------------------------------------------------------------------

    def command(self, submission: Submission) -> Future[list[EngineReply]]:
        """Send a command. The future gives the replies in the order of targets, or raises why it was refused.

        Raises:
            ClientError, MessageSizeError: it cannot be sent; or this process is a fork of the client's.
        """
        self.check()
        body = submission.body
        so_far = SoFar(submission.targets)
        sizes = [size_of([b]) for b in body]
        output = CommandOutput()
        command = _Command(CommandFuture([so_far], [output]), so_far, body, sizes, submission.targets, output)
        operation = operations.encode(submission.operation)
        number = next(self._numbers)
        message = m.Command(
            number, submission.targets, submission.method, submission.label, operation, command.sizes
        )
        self._check_size(operation, submission.method)
        total = sum(command.sizes)
        prepared = prepared_here(message, total if total <= limits.INLINE_BODY else 0)
        self._loop.call_threadsafe(
            lambda: self._send_command(number, prepared, command),
            lambda error: self._lost(number, error, command.future),
        )
        return command.future

    def request(self, make: Callable[[int], m.AnyMessage]) -> Future[Any]:
        """Ask the controller something; ``make`` gets the request's number.

        Raises:
            ClientError, MessageSizeError: it cannot be sent; or this process is a fork of the client's.
        """
        self.check()
        future: Future[Any] = SessionFuture()
        number = next(self._numbers)
        prepared = prepared_here(make(number))

        def send() -> None:
            if self._failure is not None:
                future.set_exception(self._failure)
                return
            self._requests[number] = future
            self.send(prepared)

        self._loop.call_threadsafe(send, lambda error: self._lost(number, error, future))
        return future

    def check(self) -> None:
        """Raise ClientError, if this process is a fork of the one that has the session."""
        check_process(self._born)

    @property
    def engines(self) -> list[int]:
        """The ids of the engines that are registered, ascending, as the controller told last; nothing is asked."""
        return self.presence.ids

    def shown(self) -> str:
        """Which engines there are, or why the session is over, as clients show it."""
        if self._failure is not None:
            return f"(over: {self._failure})"
        return f"engines: {ranges(self.presence.ids) or 'none'}"

    @property
    def failure(self) -> KernelError | None:
        """Why the session is over; None while it is not."""
        return self._failure

    def number(self) -> int:
        """A number that no request, command or group of tasks of this session has."""
        return next(self._numbers)

    def post(self, call: Callable[[], object], on_error: Callable[[BaseException], object] | None = None) -> None:
        """Make a call in the session's thread; ``on_error`` is told there what it raises."""
        self.check()
        self._loop.call_threadsafe(call, on_error)

    def post_later(
        self, seconds: float, call: Callable[[], object], on_error: Callable[[BaseException], object] | None = None
    ) -> None:
        """Make a call after a while; to be used in the session's thread."""
        self._loop.call_later(seconds, call, on_error)

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
        in_clients_thread()
        try:
            self._loop.run()
        except BaseException as error:
            failure = error
            # In turn with the calls of other threads, of which each is made in its own thread from now on.
            self._loop.call_threadsafe(lambda: self._failed(failure))
        finally:
            self._loop.close()
            atexit.unregister(self._at_exit)  # it would keep this session, however it has ended

    def _failed(self, error: BaseException) -> None:
        """Something of the session itself has raised: it is over, and all who wait hear why."""
        self._loop.report(error)
        failure = internal_error(error)
        self._fail(failure)
        self._link.close(str(failure), fault=True)
        self._loop.stop()

    def _lost(self, number: int, error: BaseException, future: Future[Any]) -> None:
        """A call was not sent, for a reason that nobody foresaw; or perhaps it was, and then nothing is sure."""
        if number in self._commands or number in self._requests:
            self._failed(error)
        else:
            self._loop.report(error)
            settle(future, internal_error(error))

    def send(self, message: m.AnyMessage | Prepared, body: Sequence[Buffer] = ()) -> None:
        """Send a message with a small body."""
        self._link.connection.send(message, body)
        self._link.wake()

    def send_streamed(self, message: m.AnyMessage | Prepared, body: Sequence[Buffer]) -> None:
        """Send a message whose body waits until it is asked for; it is not copied."""
        stream = self._link.connection.send_streamed(message, size_of(body))
        for buffer in body:
            stream.feed(buffer)
        self._link.wake()

    def _send_command(self, number: int, message: Prepared, work: _Command) -> None:
        if self._failure is not None:
            work.future.set_exception(self._failure)
            return
        self._commands[number] = work
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
        self._handle(event)
        if not self._is_wanted:
            self._leave_if_idle()

    def _unwanted(self) -> None:
        self._is_wanted = False
        self._leave_if_idle()

    def _leave_if_idle(self) -> None:
        if self._failure is None and not (self._commands or self._requests or self.tasks.is_busy):
            self._shut("nobody refers to the client any more")

    def _handle(self, event: Event) -> None:
        if not isinstance(event, MessageReceived):
            self._transfers.handle(self._link, event)
            return
        message = event.message
        if isinstance(message, m.Result):
            self._body(message, event, lambda body: self._result(message, body), lambda: self._no_room(message))
        elif isinstance(message, m.Output):
            command = self._commands.get(message.id)
            if command is not None:
                command.output.add(message.blocks)
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
                self.tasks.body_wanted(message.id)
        elif isinstance(message, m.EnginesChanged):
            self.presence.update(message.came, message.gone)
            if not self._up.done():
                self._up.set_result(None)
        elif isinstance(message, m.Notice):
            self._notice(message.text)
        elif isinstance(message, m.Goodbye):
            advice = "Make a new client when there is a controller again (ipcluster -n 4 starts one)"
            self._shut(f"the controller said goodbye: {message.reason}", advice)

    def _body(
        self,
        message: Any,
        event: MessageReceived,
        done: Callable[[list[Buffer]], None],
        no_memory: Callable[[], None] = lambda: None,
    ) -> None:
        """Call ``done`` with the body, when all of it is here. If it does not come, the controller says so."""
        if not event.stream:
            done(list(event.body))
            return
        try:
            memory = PrivateMemory(sum(message.sizes))
        except (OSError, ValueError, OverflowError):
            self._link.connection.refuse(event.stream)
            self._link.wake()
            no_memory()
            return
        assembly = BodyReceiver(message.sizes, memory, lambda whole: done(whole.segments()), lambda: None)
        self._transfers.start(self._link, event.stream, [(assembly, assembly)])

    def _no_room(self, message: m.Result) -> None:
        size, name = sum(message.sizes), engines_named(message.engines)
        undone = ("MessageSizeError", f"there is no memory here for the answer of {name}, {size} bytes: pull less")
        self._replied(message.id, [EngineReply(e, False, Nothing(), [], undone) for e in message.engines])

    def _result(self, message: m.Result, body: list[Buffer]) -> None:
        try:
            outcome = operations.decode_outcome(message.outcome)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            text = (
                f"the answer of engine {message.engines[0]} cannot be understood ({error}): it runs another "
                "release of ipmpi, or is not an engine of ipmpi. Compare `ipengine --version` there with "
                "ipmpi.__version__"
            )
            undone = ("RemoteProtocolError", text)
            self._replied(message.id, [EngineReply(e, False, Nothing(), [], undone) for e in message.engines])
            return
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
        command.so_far.add(replies, order)
        if len(command.replies) >= len(set(order)):
            del self._commands[number]
            self._inline -= command.inline
            command.body = ()
            for engine, printed in command.output.by_engine().items():
                if engine in command.replies:
                    command.replies[engine] = command.replies[engine]._replace(printed=printed)
            command.future.set_result([command.replies[engine] for engine in order])

    def _task_message(self, message: m.TasksDone | m.TaskDone | m.TasksUndone, event: MessageReceived) -> None:
        if isinstance(message, m.TasksUndone):
            self.tasks.tasks_undone(message)
        elif isinstance(message, m.TasksDone):
            if event.stream:
                self._body(message, event, lambda body: self.tasks.tasks_done(message, body))
            else:
                self.tasks.tasks_done(message, event.body)
        else:
            self._body(
                message, event, lambda body: self._task_done(message, body), lambda: self._no_memory(message)
            )

    def _task_done(self, message: m.TaskDone, body: list[Buffer]) -> None:
        self.tasks.task_done(message, body)

    def _no_memory(self, message: m.TaskDone) -> None:
        text = (
            f"the task has succeeded, but there is no memory here for its result of {sum(message.sizes)} bytes. "
            "Let the task write it to a file, or return less"
        )
        self.tasks.tasks_undone(m.TasksUndone(message.group, pack([message.index]), "MessageSizeError", text))

    def _refused(self, message: m.Refused) -> None:
        error = kernel_error(message.error, message.text)
        request = self._requests.pop(message.id, None)
        if request is not None:
            request.set_exception(error)
        command = self._commands.pop(message.id, None)
        if command is not None:
            self._inline -= command.inline
            command.future.set_exception(error)
        self.tasks.refused(message.id, error)

    # --- the link's ups and downs ----------------------------------------------------------------------------

    def _started(self) -> None:
        """The link is up. What the controller says first (which engines there are) opens the session."""

    def _interrupted(self, reason: str) -> None:
        self._notice(f"the link to the controller broke ({reason}); dialling again, calls wait")

    def _notice(self, text: str) -> None:
        self.notices.append(text)
        say(text)

    def _ended(self, error: KernelError) -> None:
        self._fail(error)
        self._loop.stop()

    def _shut(self, reason: str, advice: str = "Make a new client to go on") -> None:
        self._link.close(reason)
        self._fail(ConnectionError(f"{reason}. {advice}"))
        self._loop.stop()

    def _fail(self, error: KernelError) -> None:
        """The session is over: all who wait hear why."""
        if self._failure is None:
            self._failure = error
        self.presence.end()
        waiting: list[Future[Any]] = [
            self._up,
            *self._requests.values(),
            *(command.future for command in self._commands.values()),
        ]
        self._requests.clear()
        self._commands.clear()
        for future in waiting:
            settle(future, self._failure)
        self.tasks.fail(self._failure)


def settle(future: Future[Any], error: BaseException) -> None:
    """End a future by an exception, unless it has ended."""
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        future.set_exception(error)


def _nothing(_record: logging.LogRecord) -> bool:
    return False
