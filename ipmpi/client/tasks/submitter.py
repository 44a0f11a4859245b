"""Where tasks are handed in and their results handed out: one submitter for each session.

Tasks may come from any thread. Those that are submitted one after the other with the same terms become one group,
so a loop of submissions costs the session's thread a wake-up now and then, not one each. Their ends come in the
session's thread, and go to the *handler* that was given with a task. Handlers must not block, and need not be
quick to interpret what they get: pickles are opened by whoever asks for the result, in his own thread.

A group's number is given when its first task is handed in, and groups are sent in the order of their numbers. So a
task can name one that is still waiting here.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Final, Protocol

from ... import limits
from ...errors import KernelError, TaskAborted, internal_error
from ...protocol import messages as m
from ...protocol.frames import Buffer, size_of
from ...protocol.packed import count, pack, unpack
from ..session.failures import kernel_error
from ..session.functions import Definition, FunctionShelf
from ..session.taskmessages import TaskReceiver
from ..session.waiting import SessionFuture, check_waiting
from .payloads import Payload
from .resulthandlers import ResultBatch, ResultHandler, ResultsHandler
from .taskgroup import KnownFunction, SubmittedGroup, SubmitTerms, TaskRef, fits

IDLE_FUNCTIONS: Final = 128
"""Functions without tasks under way that the controller shall keep, in case there are some again."""

GATHER: Final = 0.001
"""Seconds for which single tasks that come in quick succession are gathered, to go in one message."""

_NEVER: Final = b"."
"""Arguments of a task that was taken back before it was sent: nothing that could be called with them."""


OnError = Callable[[BaseException], object]


class Wire(Protocol):
    """What a submitter needs of its session. All that does not send is for any thread."""

    @property
    def failure(self) -> KernelError | None:
        """Why the session is over, if it is."""

    def check(self) -> None:
        """Raise ClientError, if this process is a fork of the one that has the session."""

    def post(self, call: Callable[[], object], on_error: OnError | None = None) -> None:
        """Make a call in the session's thread; ``on_error`` is told there what it raises."""

    def post_later(self, seconds: float, call: Callable[[], object], on_error: OnError | None = None) -> None:
        """Make a call in the session's thread after a while; to be used in that thread only."""

    def is_own_thread(self) -> bool:
        """Whether this is the session's thread, in which nothing may wait for the controller."""

    def number(self) -> int:
        """A number that no request, command or group of the session has."""

    def request(self, make: Callable[[int], m.AnyMessage]) -> Future[Any]:
        """Ask the controller something; ``make`` gets the request's number."""

    def send(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        """Send a message with a small body."""

    def send_streamed(self, message: m.AnyMessage, body: Sequence[Buffer]) -> None:
        """Send a message whose body is a stream."""


class TaskSubmitter:
    """Hands tasks in and their ends out; may be used from any thread, except where it says otherwise."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._shelf = FunctionShelf()
        self.define = self._shelf.define
        """See :meth:`FunctionShelf.define`."""
        # The lock is for what waits to be sent. What was sent is the session thread's alone, `_groups` too.
        self._lock = threading.Lock()
        self._waiting: deque[SubmittedGroup] = deque()
        self._open: SubmittedGroup | None = None
        self._by_number: dict[int, SubmittedGroup] = {}
        self._rung = False
        self._functions: dict[bytes, KnownFunction] = {}
        self._idle: OrderedDict[bytes, int] = OrderedDict()
        self._backlog = 0
        self._flushed_at = 0.0
        self.succeeded = 0
        self.failed = 0
        """Tasks that have ended of those that have no id; changed in the session's thread."""
        self.held: set[object] = set()
        """Calls that wait for other tasks, here."""

    @property
    def is_busy(self) -> bool:
        """Whether tasks have not ended, or wait here."""
        return bool(self._by_number or self.held)

    def open_tasks(self) -> int:
        """How many tasks have not ended."""
        return sum(group.left for group in list(self._by_number.values()))

    # --- handing in, from any thread -------------------------------------------------------------------------

    def submit_one(self, terms: SubmitTerms, payload: Payload, handler: ResultHandler) -> TaskRef:
        """Submit a task. Those that follow with the same terms go with it, so use one object of these again."""
        self._wire.check()
        with self._lock:
            group = self._open
            if isinstance(payload, bytes):
                if group is None or not fits(group, terms, len(payload)):
                    group = self._open = self._new_group(terms)
                group.payloads.append(payload)
                group.size += len(payload)
            else:
                self._open = None
                group = self._new_group(terms)
                group.segments = payload
            index = group.left
            group.left = index + 1
            group.handlers.append(handler)
            ring, self._rung = not self._rung, True
        if ring:
            self._wire.post(self._flush_soon, self._not_flushed)
        return TaskRef(group.number, index)

    def submit_many(
        self, terms: SubmitTerms, payloads: Sequence[Payload], handler: ResultsHandler, base: int
    ) -> list[int]:
        """Submit tasks whose ends one handler gets; it will call them ``base``, ``base + 1``, and so on.

        Returns:
            The numbers of their groups, each of all tasks from one on up to another.
        """
        self._wire.check()
        groups: list[SubmittedGroup] = []
        with self._lock:
            self._open = None
            for number, payload in enumerate(payloads, base):
                group = groups[-1] if groups else None
                if not isinstance(payload, bytes):
                    group = self._new_group(terms, handler, number)
                    group.segments = payload
                    groups.append(group)
                else:
                    if group is None or group.segments is not None or not fits(group, terms, len(payload)):
                        group = self._new_group(terms, handler, number)
                        groups.append(group)
                    group.payloads.append(payload)
                    group.size += len(payload)
                group.left += 1
            ring, self._rung = not self._rung, True
        if ring:
            self._wire.post(self._flush, self._not_flushed)
        return [group.number for group in groups]

    def _new_group(self, terms: SubmitTerms, batch: ResultsHandler | None = None, base: int = 0) -> SubmittedGroup:
        group = SubmittedGroup(self._wire.number(), terms, batch, base)
        self._by_number[group.number] = group
        self._waiting.append(group)
        return group

    # --- taking back -----------------------------------------------------------------------------------------

    def abort(self, number: int, indices: Sequence[int] | None, how: str) -> Future[list[int]]:
        """Take tasks of a group back, None for all; ``how`` is that of :class:`ipmpi.protocol.tasks.AbortTasks`.

        Returns:
            A future of the indices of those that were taken back: with 'cancel' those that are never run, whose
            handlers have been told when it is done; else those that had not ended. It may raise ConnectionError.
        """
        answer: Future[list[int]] = SessionFuture()

        def failed(error: BaseException) -> None:
            if not answer.done():
                answer.set_exception(internal_error(error))

        self._wire.post(lambda: self._abort(number, indices, how, answer), failed)
        return answer

    def _abort(self, number: int, indices: Sequence[int] | None, how: str, answer: Future[list[int]]) -> None:
        group = self._by_number.get(number)
        if group is None:
            answer.set_result([])  # it has ended
            return
        with self._lock:
            waits = not group.sent
            if waits and self._open is group:
                self._open = None
            if waits:
                wanted = range(group.left) if indices is None else indices
                taken = [index for index in wanted if index not in group.cancelled]
                group.cancelled.update(taken)
        if waits:
            group.tell_undone(taken, TaskAborted("the task was taken back before it was sent"))
            answer.set_result(taken)
            return

        def answered(reply: Future[bytes]) -> None:
            try:
                aborted = list(unpack(reply.result()))
                if how == "cancel" and group.batch is None:  # a batch handler would count them twice
                    group.tell_undone(aborted, TaskAborted("the task was cancelled"))
            except Exception as error:
                answer.set_exception(error)
            else:
                answer.set_result(aborted)

        which = b"" if indices is None else pack(indices)
        self._wire.request(lambda i: m.AbortTasks(i, number, which, how)).add_done_callback(answered)

    def request(self, make: Callable[[int], m.AnyMessage]) -> Future[Any]:
        """Ask the controller something, as :meth:`~ipmpi.client.session.session.Session.request`.

        It is for whoever waits.
        """
        check_waiting()
        return self._wire.request(make)

    def post(self, call: Callable[[], object]) -> None:
        """Make a call in the session's thread, soon."""
        self._wire.post(call)

    def is_own_thread(self) -> bool:
        """Whether this is the session's thread, where nothing may wait for the controller."""
        return self._wire.is_own_thread()

    # --- sending, in the session's thread --------------------------------------------------------------------

    def _flush_soon(self) -> None:
        """Send what waits: at once, unless engines have work and there was something to send just now."""
        busy = len(self._by_number) > len(self._waiting)
        if busy and time.monotonic() - self._flushed_at < GATHER:
            self._wire.post_later(GATHER, self._flush, self._not_flushed)
        else:
            self._flush()

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        while True:
            with self._lock:
                group = self._waiting[0] if self._waiting else None
                full = group is not None and self._backlog > 0 and self._backlog + group.size > limits.TASK_BACKLOG
                if group is None or full:
                    self._rung = full  # answers will bring us here again
                    return
                self._waiting.popleft()
                if self._open is group:
                    self._open = None
                group.sent = True
            if self._wire.failure is not None:
                self._forget(group)
                group.tell_failed(self._wire.failure)
            elif len(group.cancelled) == group.left:
                self._forget(group)
            else:
                try:
                    self._send(group)
                except Exception as error:
                    self._forget(group)
                    group.tell_failed(internal_error(error))

    def _not_flushed(self, error: BaseException) -> None:
        """What waits could not be sent, for a reason that nobody foresaw."""
        with self._lock:
            groups = list(self._waiting)
            self._waiting.clear()
            self._open = None
            self._rung = False
            for group in groups:
                self._by_number.pop(group.number, None)
        for group in groups:
            group.tell_failed(internal_error(error))

    def _send(self, group: SubmittedGroup) -> None:
        options, definitions = group.terms
        for definition in definitions:
            self._teach(definition)
        if group.segments is not None:
            sizes = [size_of([segment]) for segment in group.segments]
            self._wire.send_streamed(m.SubmitTasks(group.number, options, b"", sizes), group.segments)
            return
        payloads, group.payloads = group.payloads, []
        for index in group.cancelled:
            payloads[index] = _NEVER
        body = b"".join(payloads)
        group.size = len(body)
        self._backlog += group.size
        lengths = pack(map(len, payloads))
        self._wire.send(m.SubmitTasks(group.number, options, lengths, [group.size]), [body])
        if group.cancelled:
            which = pack(sorted(group.cancelled))
            self._wire.request(lambda i: m.AbortTasks(i, group.number, which, "cancel"))

    def _teach(self, definition: Definition) -> None:
        """See that the controller has a function, and will keep it until one more group has ended."""
        known = self._functions.get(definition.key)
        if known is None:
            data = memoryview(definition.pickle)
            known = self._functions[definition.key] = KnownFunction(len(data))
            for start in range(0, len(data), limits.INLINE_BODY):
                piece = data[start : start + limits.INLINE_BODY]
                self._wire.send(m.DefineFunction(definition.key, start, len(data), [len(piece)]), [piece])
        self._idle.pop(definition.key, None)
        known.uses += 1

    def _release(self, definitions: Iterable[Definition]) -> None:
        for definition in definitions:
            known = self._functions[definition.key]
            known.uses -= 1
            if known.uses == 0:
                self._idle[definition.key] = known.size
        keys = []
        while len(self._idle) > IDLE_FUNCTIONS or (len(self._idle) > 1 and self._idle_size() > limits.FUNCTION):
            key, _ = self._idle.popitem(last=False)
            del self._functions[key]
            keys.append(key)
        if keys:
            self._wire.send(m.ForgetFunctions(keys))

    def _idle_size(self) -> int:
        return sum(self._idle.values())

    def _forget(self, group: SubmittedGroup) -> None:
        with self._lock:
            self._by_number.pop(group.number, None)

    # --- what the controller says, in the session's thread ---------------------------------------------------

    def tasks_done(self, message: m.TasksDone, body: Sequence[Buffer]) -> None:
        """Small results, and failures."""
        group = self._by_number.get(message.group)
        if group is None:
            return
        whole = bytes(body[0]) if body else b""
        batch = group.batch
        if batch is not None:
            self._ended(group, count(message.indices))
            batch.batch_arrived(ResultBatch(group.base, message, whole))
            return
        indices = unpack(message.indices)
        self._ended(group, len(indices))
        engine, handlers = message.engine, group.handlers
        failed = set(unpack(message.failed)) if message.failed else ()
        start = 0
        for position, (index, length) in enumerate(zip(indices, unpack(message.lengths), strict=True)):
            end = start + length
            handler, handlers[index] = handlers[index], None
            if handler is not None:
                handler.arrived(engine, position not in failed, whole[start:end])
            start = end

    def task_done(self, message: m.TaskDone, body: list[Buffer]) -> None:
        """A large result."""
        group = self._by_number.get(message.group)
        if group is None:
            return
        self._ended(group, 1)
        if group.batch is not None:
            group.batch.large_arrived(group.base + message.index, message.engine, body)
            return
        handler, group.handlers[message.index] = group.handlers[message.index], None
        if handler is not None:
            handler.arrived(message.engine, True, body)

    def tasks_undone(self, message: m.TasksUndone) -> None:
        """Tasks that will have no outcome."""
        group = self._by_number.get(message.group)
        if group is not None:
            indices = unpack(message.indices)
            self._ended(group, len(indices))
            group.tell_undone(indices, kernel_error(message.error, message.text))

    def refused(self, number: int, error: KernelError) -> bool:
        """The controller does not take what has this number; False if that is no group."""
        group = self._by_number.get(number)
        if group is None:
            return False
        self._ended(group, group.left)
        group.tell_failed(error)
        return True

    def body_wanted(self, number: int) -> bool:
        """The controller needs a large body once more; False if that is not a task's."""
        group = self._by_number.get(number)
        if group is None or group.segments is None:
            return False
        sizes = [size_of([segment]) for segment in group.segments]
        self._wire.send_streamed(m.BodyAgain(number, sizes), group.segments)
        return True

    def fail(self, error: KernelError) -> None:
        """The session is over."""
        with self._lock:
            groups = [group for group in self._by_number.values() if group.sent]
            for group in groups:
                del self._by_number[group.number]
        for group in groups:
            group.tell_failed(error)
        self._flush()

    def _ended(self, group: SubmittedGroup, number: int) -> None:
        """So many more tasks of a group have ended."""
        share = group.size if number >= group.left else group.size * number // group.left
        group.left -= number
        group.size -= share
        if group.segments is None:
            self._backlog -= share
        if group.left <= 0:
            self._forget(group)
            self._release(group.terms.definitions)
        if self._waiting:
            self._flush()


class _Opened(Wire, Protocol):
    """A session."""

    tasks: TaskReceiver


def submitter_of(session: _Opened) -> TaskSubmitter:
    """Where tasks are submitted over this session: one submitter for all who do; from one thread at a time."""
    if not isinstance(session.tasks, TaskSubmitter):
        session.tasks = TaskSubmitter(session)
    return session.tasks
