"""The client's session with a controller: one thread, one link, any number of concurrent calls."""

from __future__ import annotations

import atexit
import concurrent.futures
import platform
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ... import limits
from ...errors import ConnectionError, FurlEnded, KernelError, internal_error
from ...furl import Furl
from ...protocol import messages as m, operations
from ...protocol.connection import Event, MessageReceived, Prepared
from ...protocol.frames import Buffer, size_of
from ...protocol.operations import Nothing
from ...protocol.packed import pack
from ...protocol.permissions import RECEIVES
from ...ranges import engines_named, ranges
from ...transport.dial.dialled import Callbacks, DialledSession
from ...transport.dial.routes import DIRECT, Route
from ...transport.loop import Loop, Timer
from ...transport.transfers import Transfers
from ...username import user_name
from .afterrestart import LOST, note_failure, send_commands_again, to_repeat
from .arrivingbodies import ArrivingBodies
from .bodyfiles import BodyFiles
from .commandoutput import CommandOutput
from .debugchannels import DebugChannels
from .debuggertalk import DebuggerTalk
from .enginereply import EngineReply, undecodable
from .failures import kernel_error
from .notices import say
from .opening import EVERYTHING, Opener
from .opennumbers import OpenNumbers
from .partial import CommandFuture, SoFar
from .prepared import prepared_here
from .presence import Presence
from .sentcommand import SentCommand
from .submission import Submission as Submission, message_of
from .taskmessages import NoTasks, TaskReceiver
from .waiting import SessionFuture, check_process, forks, in_clients_thread, settle, unlogged

Future = concurrent.futures.Future


class Session:
    """A connection to a controller. Calls may be made from any thread; its own thread completes the futures.

    Attributes:
        tasks: receives the messages of the controller about tasks.
        role: the role of the furl.
        controller_id: a text that no other controller has.
        notices: texts that the controller sent unasked, newest last.
        was_dismissed: the controller has ended the session in order, because it ends itself.
        presence: the registered engines.
        debug_channels: those between editors and debugpy.
        opener: opens what engines have pickled.
        arriving: large results that are on their way.
    """

    def __init__(self, address: Furl, routes: Sequence[Route] = (DIRECT,)) -> None:
        self._loop = Loop()
        self._numbers = OpenNumbers()
        self._requests: dict[int, Future[Any]] = {}
        self._commands: dict[int, SentCommand] = {}
        self._inline = 0
        self._failure: KernelError | None = None
        self._born = forks()
        self._is_wanted, self._has_said_who = True, False
        self._transfers = Transfers()
        self.role = address.role
        self.controller_id = address.fingerprint.hex()
        self.notices: list[str] = []
        self.was_dismissed = False
        self.opener: Opener = EVERYTHING
        self.presence = Presence()
        self.tasks: TaskReceiver = NoTasks()
        self.debug_channels = DebugChannels(self.send)
        self._up: Future[None] = Future()
        table = RECEIVES.get(address.role, RECEIVES["mec"] | RECEIVES["tc"])
        callbacks = Callbacks(self._event, self._started, self._interrupted, self._ended)
        self._link = DialledSession(
            self._loop, address, table, callbacks, patience=limits.CLIENT_RECONNECT, renew=False, routes=routes
        )
        self._files = BodyFiles(self._loop, self._link.wake, self._failed)
        self.arriving = ArrivingBodies(self._link, self._transfers, self._loop)
        self._receive = self.arriving.receive
        self._thread = threading.Thread(target=self._run, name="ipmpi-client", daemon=True)

    def open(self) -> None:
        """Connect; raises ConnectionError, SecurityError or VersionError if that is impossible."""
        self._thread.start()
        self._loop.call_threadsafe(self._link.open, self._failed)
        try:
            self._up.result()
        except BaseException:
            # Also stop a connection attempt in progress (Ctrl-C while ssh asks for a password).
            self._loop.call_threadsafe(lambda: self._shut("it was given up"), self._failed)
            raise
        atexit.register(self._at_exit)

    def close(self) -> None:
        """End the session. Engines continue what they run; open calls raise ConnectionError.

        It does nothing in a forked process, since the session belongs to the parent.
        """
        if self._born != forks():
            return
        atexit.unregister(self._at_exit)
        if self._thread.is_alive():
            self._loop.call_threadsafe(lambda: self._shut("the client was closed"), self._failed)
            if threading.get_ident() != self._loop.thread:
                self._thread.join(5)

    def release(self) -> None:
        """End the session once all calls have ended; called when the client is no longer referenced."""
        if self._born == forks():
            self._loop.call_threadsafe(self._unwanted, self._failed)

    def _at_exit(self) -> None:
        with unlogged():
            self.close()

    # --- calls, from any thread ------------------------------------------------------------------------------

    def command(self, submission: Submission) -> Future[list[EngineReply]]:
        """Send a command. The future has the replies in the order of the targets, or the reason of a refusal.

        Raises:
            ClientError, MessageSizeError: it cannot be sent; or this process is a fork of the client's.
        """
        self.check()
        body = submission.body
        so_far, sizes = SoFar(submission.targets), [size_of([b]) for b in body]
        output = CommandOutput(self.is_journalled)
        number, below = self._numbers.begin()
        talk = DebuggerTalk(number, self._send_line, self.post_later)
        future = CommandFuture([so_far], [output], [number], [talk])
        future.add_done_callback(self._numbers.ends(number))
        total = sum(sizes)
        try:
            message = message_of(submission, number, below)
            command = SentCommand(message, future, so_far, body, sizes, submission.targets, output, talk)
            prepared = prepared_here(message, total if total <= limits.INLINE_BODY else 0)
        except Exception:
            self._numbers.end(number)
            raise
        self._loop.call_threadsafe(
            lambda: self._send_command(number, prepared, command),
            lambda error: self._lost(number, error, command.future),
        )
        return command.future

    def request(self, make: Callable[[int], m.AnyMessage]) -> Future[Any]:
        """Send a request to the controller; ``make`` is called with its number.

        Raises:
            ClientError, MessageSizeError: it cannot be sent; or this process is a fork of the client's.
        """
        self.check()
        number = self._numbers.take()
        prepared = prepared_here(make(number))
        future = SessionFuture(prepared)

        def send() -> None:
            if self._failure is not None:
                future.set_exception(self._failure)
                return
            self._requests[number] = future
            self.send(prepared)

        self._loop.call_threadsafe(send, lambda error: self._lost(number, error, future))
        return future

    def check(self) -> None:
        """Raise ClientError if this process is a fork of the session's."""
        check_process(self._born)

    @property
    def engines(self) -> list[int]:
        """Return the ids of the engines, ascending, from the last update of the controller, without a request."""
        return self.presence.ids

    def shown(self) -> str:
        """Return which engines there are, or why the session has ended, for the repr of clients."""
        if self._failure is not None:
            return f"(over: {self._failure})"
        return f"engines: {ranges(self.presence.ids) or 'none'}"

    @property
    def failure(self) -> KernelError | None:
        """Return why the session has ended; None if it has not."""
        return self._failure

    def number(self) -> int:
        """Return a number that no request, command or group of tasks of this session has."""
        return self._numbers.take()

    def post(self, call: Callable[[], object], on_error: Callable[[BaseException], object] | None = None) -> None:
        """Call it in the session's thread; an exception is passed to ``on_error`` there."""
        self.check()
        self._loop.call_threadsafe(call, on_error)

    @property
    def loop(self) -> Loop:
        """Return the loop of the session's thread."""
        return self._loop

    def post_later(
        self, seconds: float, call: Callable[[], object], on_error: Callable[[BaseException], object] | None = None
    ) -> Timer:
        """As :meth:`post`, after some seconds; only from the session's thread."""
        return self._loop.call_later(seconds, call, on_error)

    def is_own_thread(self) -> bool:
        """Return whether waiting for the controller is impossible: in the session's thread, or after its end."""
        return threading.get_ident() == self._loop.thread or self._failure is not None

    # --- in the session's thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        in_clients_thread()
        try:
            self._loop.run()
        except BaseException as error:
            failure = error
            # From now on, other threads execute their posted calls themselves.
            self._loop.call_threadsafe(lambda: self._failed(failure))
        finally:
            self._files.close()
            self.arriving.used.close()
            self._loop.close()
            atexit.unregister(self._at_exit)  # it would keep the session alive

    def _failed(self, error: BaseException) -> None:
        """End the session, because of an unexpected exception in it."""
        self._loop.report(error)
        failure = internal_error(error)
        self._fail(failure)
        self._link.close(str(failure), fault=True)
        self._loop.stop()

    def _lost(self, number: int, error: BaseException, future: Future[Any]) -> None:
        """A call failed unexpectedly while it was sent; it is unknown whether it was."""
        if number in self._commands or number in self._requests:
            self._failed(error)
        else:
            self._loop.report(error)
            settle(future, internal_error(error))

    def _send_line(self, line: m.DebuggerLine) -> None:
        self._loop.call_threadsafe(lambda: self.send(line) if self._failure is None else None, self._failed)

    def debuggers(self) -> list[DebuggerTalk]:
        """Return the debuggers that wait in commands of this session, by command."""
        return [command.talk for command in list(self._commands.values()) if command.talk.waiting()]

    def send(self, message: m.AnyMessage | Prepared, body: Sequence[Buffer] = ()) -> None:
        """Send a message with a small body."""
        self._link.connection.send(message, body)
        self._link.wake()

    def send_streamed(self, message: m.AnyMessage | Prepared, body: Sequence[Buffer]) -> None:
        """Send a message whose body is sent on request, without a copy."""
        self._files.send(self._link.connection, message, body)
        self._link.wake()

    def _send_command(self, number: int, message: Prepared, work: SentCommand) -> None:
        if self._failure is not None:
            work.future.set_exception(self._failure)
            return
        self._commands[number] = work
        self._say_who()
        total = sum(work.sizes)
        if total and total <= limits.INLINE_BODY and self._inline + total > limits.CLIENT_INLINE_BACKLOG:
            # The controller's queues are full: this body waits here for its turn.
            self.send_streamed(message, work.body)
            return
        if total <= limits.INLINE_BODY:
            work.inline = total
            self._inline += total
            self.send(message, work.body)
            work.body = [bytes(buffer) for buffer in work.body] if self.is_journalled else ()
        else:
            self.send_streamed(message, work.body)

    def _say_who(self) -> None:
        """Tell the controller once who gives commands."""
        if not self._has_said_who:
            self._has_said_who = True
            self.send(m.CommandOrigin(platform.node(), user_name()))

    def _event(self, event: Event) -> None:
        self._handle(event)
        if not self._is_wanted:
            self._leave_if_idle()

    def _unwanted(self) -> None:
        self._is_wanted = False
        self._leave_if_idle()

    def _leave_if_idle(self) -> None:
        if self._failure is None and not (self._commands or self._requests or self.tasks.is_busy):
            self._shut("the client is no longer referenced")

    def _handle(self, event: Event) -> None:
        if not isinstance(event, MessageReceived):
            self._files.handle(self._link.connection, event)
            self.arriving.handle(event)
            return
        message = event.message
        if isinstance(message, m.Result):
            self._receive(message, event, lambda body: self._result(message, body), self._missed)
        elif isinstance(message, m.Output):
            if (command := self._commands.get(message.id)) is not None:
                command.output.add(message.blocks)
        elif isinstance(message, m.DebuggerSaid) and message.id in self._commands:
            self._commands[message.id].talk.said(message)
        elif isinstance(message, m.Watched):
            self.presence.watched(message)
        elif isinstance(message, m.ChannelMessage):
            self.debug_channels.heard(message)
        elif isinstance(message, m.TasksDone | m.TaskDone | m.TasksUndone | m.TasksAccepted):
            self._task_message(message, event)
        elif isinstance(message, m.Reply):
            future = self._requests.pop(message.id, None)
            if future is not None:
                future.set_result(message.value)
        elif isinstance(message, m.Refused):
            self._refused(message)
        elif isinstance(message, m.Accepted):
            if (command := self._commands.get(message.id)) is not None:
                command.order = message.engines
        elif isinstance(message, m.Undone):
            why = (message.error, message.text)
            undone = [EngineReply(e, False, Nothing(), [], why, death=message.death) for e in message.engines]
            self._replied(message.id, undone)
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
            reason = f"the controller ended the session: {message.reason}"
            self.was_dismissed = not (message.furl or message.fault)
            if message.furl:
                self._shut(reason, "Copy the new furl file, or ask who gave you this one for another", FurlEnded)
            else:
                self._shut(reason, "Make a new client once a controller runs again (ipcluster -n 4 starts one)")

    def _missed(self, message: m.Result, lost: str) -> None:
        size, name = sum(message.sizes), engines_named(message.engines)
        undone = ("MessageSizeError", f"no memory here for the reply of {name}, {size} bytes: pull less")
        if lost:
            undone = ("ConnectionError", f"the reply of {name} did not arrive. Ask for it again ({lost})")
        self._replied(message.id, [EngineReply(e, False, Nothing(), [], undone) for e in message.engines])

    def _result(self, message: m.Result, body: list[Buffer]) -> None:
        try:
            outcome = operations.decode_outcome(message.outcome)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            undone = undecodable(message.engines[0], error)
            self._replied(message.id, [EngineReply(e, False, Nothing(), [], undone) for e in message.engines])
            return
        if not message.ok and self.is_journalled:
            note_failure(self._commands, message.id, message.engines)
        replies = [EngineReply(e, message.ok, outcome, body, opener=self.opener) for e in message.engines]
        self._replied(message.id, replies)

    def _replied(self, number: int, replies: list[EngineReply]) -> None:
        command = self._commands.get(number)
        if command is None:
            return
        for reply in replies:
            command.replies[reply.engine] = reply
        if command.order is None:
            # Without a preceding Accepted, this reply is that of all target engines.
            command.order = sorted(command.replies)
        order = command.order
        command.so_far.add(replies, order)
        command.talk.ended(reply.engine for reply in replies)
        if command.is_complete:
            del self._commands[number]
            self._inline -= command.inline
            command.body = ()
            for engine, printed in command.output.by_engine().items():
                if engine in command.replies:
                    command.replies[engine] = command.replies[engine]._replace(printed=printed)
            command.future.set_result([command.replies[engine] for engine in order])

    def give_up(self, number: int, engines: Sequence[int], error: str, text: str) -> None:
        """End the wait for these engines' replies to a command; only from the session's thread."""
        command = self._commands.get(number)
        if command is not None and engines:
            command.order = command.order or sorted({*engines, *command.replies})
            given_up = [EngineReply(engine, False, Nothing(), [], (error, text)) for engine in engines]
            self._replied(number, given_up)

    def _task_message(self, message: m.AnyMessage, event: MessageReceived) -> None:
        if isinstance(message, m.TasksUndone):
            self.tasks.tasks_undone(message)
        elif isinstance(message, m.TasksAccepted):
            self.tasks.accepted(message.groups)
        elif isinstance(message, m.TasksDone):
            if event.stream:
                self._receive(message, event, lambda body: self.tasks.tasks_done(message, body))
            else:
                self.tasks.tasks_done(message, event.body)
        elif isinstance(message, m.TaskDone):
            done = self.tasks.task_done
            self._receive(message, event, lambda body: done(message, body), self._missed_task)

    def _missed_task(self, message: m.TaskDone, lost: str) -> None:
        text = (
            f"the task has succeeded, but the client has no memory for its result of {sum(message.sizes)} bytes: "
            "let the task write it to a file, or return less"
        )
        error = "ConnectionError" if lost else "MessageSizeError"
        if lost:
            text = f"the task has succeeded, but its result did not arrive. Submit it again ({lost})"
        self.tasks.tasks_undone(m.TasksUndone(message.group, pack([message.index]), error, text))

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

    # --- events of the link ----------------------------------------------------------------------------------

    def _started(self) -> None:
        """If the controller was started again from its journal: that has the tasks; it is told of all else."""
        if not self._link.was_journalled:
            return
        self._transfers.endpoint_lost(self._link)
        self.presence.begin_again()
        again, lost = to_repeat(self._requests)
        for future in lost:
            settle(future, ConnectionError(LOST))
        self.tasks.go_on()
        if self._numbers.has_begun:
            self._has_said_who = False
            self._say_who()
            send_commands_again(self._commands.values(), self.send, self.send_streamed)
        for message in again:
            self.send(message)

    @property
    def is_journalled(self) -> bool:
        """Whether the controller has this session, with its tasks, in a journal."""
        return self._link.is_journalled

    def _interrupted(self, reason: str) -> None:
        self._notice(f"the link to the controller broke ({reason}); reconnecting, calls wait")

    def _notice(self, text: str) -> None:
        self.notices.append(text)
        say(text)

    def _ended(self, error: KernelError) -> None:
        self._fail(error)
        self._loop.stop()

    def _shut(
        self, reason: str, advice: str = "Make a new client to go on", kind: type[KernelError] = ConnectionError
    ) -> None:
        self._link.close(reason)
        self._fail(kind(f"{reason}. {advice}"))
        self._loop.stop()

    def _fail(self, error: KernelError) -> None:
        """The session has ended: all open calls fail with this error."""
        if self._failure is None:
            self._failure = error
        self.presence.end()
        commands = [command.future for command in self._commands.values()]
        waiting: list[Future[Any]] = [self._up, *self._requests.values(), *commands]
        self._requests.clear()
        self._commands.clear()
        for future in waiting:
            settle(future, self._failure)
        self.tasks.fail(self._failure)
        self.debug_channels.fail(self._failure)
