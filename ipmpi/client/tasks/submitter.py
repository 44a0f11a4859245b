"""Submits tasks and distributes their results: one submitter for each session.

Tasks may be submitted from any thread. Consecutive tasks with the same terms form one group, so that a loop of
submissions rarely wakes the session's thread. Results arrive in that thread, and are passed to the *handler* of
the task. Handlers must not block or unpickle: the thread that retrieves a result unpickles it.

A group gets its number with its first task, and groups are sent in the order of their numbers. So a task can refer
to one that has not been sent yet.
"""

from __future__ import annotations

import platform
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from ... import limits
from ...errors import KernelError, TaskAborted, internal_error
from ...protocol import messages as m
from ...protocol.frames import Buffer, size_of
from ...protocol.packed import count, pack, unpack
from ...username import user_name
from ..session.failures import kernel_error
from ..session.functions import Definition, FunctionCache
from ..session.opening import Opener
from ..session.waiting import SessionFuture, check_waiting
from .pace import Pace
from .payloads import Payload
from .resulthandlers import ResultBatch, ResultHandler, ResultsHandler
from .taskgroup import KnownFunction, SubmittedGroup, SubmitTerms, TaskRef, fits
from .wire import Wire as Wire

IDLE_FUNCTIONS: Final = 128
"""Functions without open tasks that the controller keeps, in case they are used again."""

FETCHED: Final = 0.005
"""Seconds after which a controller with a journal is told that the results of a group are here."""

_LACKING: Final = 64
"""Groups in one TasksOpen: with 4 bytes for each of TASKS_PER_MESSAGE tasks it stays below MESSAGE."""

_NEVER: Final = b"."
"""Payload of a task that was cancelled before it was sent; it cannot be unpickled."""


class TaskSubmitter:
    """Submits tasks and distributes their results; may be used from any thread, except where noted."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.define = FunctionCache().define
        """See :meth:`~ipmpi.client.session.functions.FunctionCache.define`."""
        # The lock guards what waits to be sent. What was sent, as `_groups`, is used in the session's thread only.
        self._lock = threading.Lock()
        self._waiting: deque[SubmittedGroup] = deque()
        self._open: SubmittedGroup | None = None
        self._by_number: dict[int, SubmittedGroup] = {}
        self._rung = False
        self._functions: dict[bytes, KnownFunction] = {}
        self._idle: OrderedDict[bytes, int] = OrderedDict()
        self._backlog = 0
        self._pace = Pace()
        self._fetched: list[int] = []
        """Groups that have ended, of which the controller's journal does not know that."""
        self._detach = True
        self._has_said_who = False
        self.succeeded = 0
        self.failed = 0
        """Number of ended tasks without an id; changed in the session's thread."""
        self.held: set[object] = set()
        """Calls that wait in the client for other tasks."""

    @property
    def opener(self) -> Opener:
        """Opens what engines have pickled."""
        return self._wire.opener

    @property
    def is_busy(self) -> bool:
        """Whether there are tasks that have not ended."""
        return bool(self._by_number or self.held)

    def open_tasks(self) -> int:
        """Return how many tasks have not ended."""
        return sum(group.left for group in list(self._by_number.values()))

    def end_with_client(self) -> None:
        """Let the tasks of this session end with it, unless their options say something else."""
        self._detach = self._has_said_who = False

    def has_open(self, numbers: Iterable[int]) -> bool:
        """Return whether one of these groups has tasks that have not ended."""
        return any(number in self._by_number for number in numbers)

    # --- submitting, from any thread -------------------------------------------------------------------------

    def submit_one(self, terms: SubmitTerms, payload: Payload, handler: ResultHandler) -> TaskRef:
        """Submit a task. Consecutive tasks with the same ``terms`` object share a message."""
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
        """Submit tasks that share one handler, which numbers them ``base``, ``base + 1``, and so on.

        Returns:
            The numbers of their groups; each has consecutive tasks.
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

    # --- cancelling ------------------------------------------------------------------------------------------

    def abort(self, number: int, indices: Sequence[int] | None, how: str) -> Future[list[int]]:
        """Abort tasks of a group, None for all; ``how`` is that of :class:`ipmpi.protocol.tasks.AbortTasks`.

        Returns:
            A future of the indices of the aborted tasks: with 'cancel' those that will never run, whose handlers
            have been called by then; else those that had not ended. It may raise ConnectionError.
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
            group.tell_undone(taken, TaskAborted("the task was cancelled before it was sent"))
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
        """As :meth:`~ipmpi.client.session.session.Session.request`; ClientError where waiting is not allowed."""
        check_waiting()
        return self._wire.request(make)

    def post(self, call: Callable[[], object]) -> None:
        """Call it in the session's thread, soon."""
        self._wire.post(call)

    def is_own_thread(self) -> bool:
        """Return whether this is the session's thread, which must not wait for the controller."""
        return self._wire.is_own_thread()

    # --- sending, in the session's thread --------------------------------------------------------------------

    def _flush_soon(self) -> None:
        """Send queued tasks: at once, unless engines are busy and something was sent just now."""
        busy = len(self._by_number) > len(self._waiting)
        if busy and (wait := self._pace.wait(time.monotonic())):
            self._wire.post_later(wait, self._flush, self._not_flushed)
        else:
            self._flush()

    def _flush(self) -> None:
        self._pace.flushed(time.monotonic())
        most = limits.TASK_BACKLOG_WRITTEN if self._wire.is_journalled else limits.TASK_BACKLOG
        while True:
            with self._lock:
                group = self._waiting[0] if self._waiting else None
                full = group is not None and 0 < self._backlog > most - group.size
                if group is None or full:
                    self._rung = full  # the replies will call this again
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
                    self._pace.under_way += group.left
                except Exception as error:
                    self._forget(group)
                    group.tell_failed(internal_error(error))

    def _not_flushed(self, error: BaseException) -> None:
        """Queued tasks could not be sent, because of an unexpected exception."""
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
        self._say_who()
        for definition in group.terms.definitions:
            self._register(definition)
        group.lacks = set(range(group.left)) if self._wire.is_journalled else None
        if group.segments is not None:
            self._send_large(group, group.segments)
            return
        payloads, group.payloads = group.payloads, []
        for index in group.cancelled:
            payloads[index] = _NEVER
        body = b"".join(payloads)
        group.size = len(body)
        self._backlog += group.size
        self._send_small(group, pack(map(len, payloads)), body)
        if group.cancelled:
            which = pack(sorted(group.cancelled))
            self._wire.request(lambda i: m.AbortTasks(i, group.number, which, "cancel"))

    def _say_who(self) -> None:
        if not self._has_said_who:
            self._has_said_who = True
            self._wire.send(m.TaskOrigin(platform.node(), user_name(), self._detach))

    def _send_large(self, group: SubmittedGroup, segments: list[Buffer]) -> None:
        message = m.SubmitTasks(group.number, group.terms.options, b"", [size_of([each]) for each in segments])
        self._wire.send_streamed(message, segments)

    def _send_small(self, group: SubmittedGroup, lengths: bytes, body: bytes) -> None:
        group.copy = (lengths, body) if group.lacks is not None else None
        self._wire.send(m.SubmitTasks(group.number, group.terms.options, lengths, [len(body)]), [body])

    def _register(self, definition: Definition) -> None:
        """Send a function if the controller does not have it, and count one more open group that uses it."""
        known = self._functions.setdefault(definition.key, KnownFunction(len(definition.pickle)))
        self._define(definition, known)
        self._idle.pop(definition.key, None)
        known.uses += 1

    def _define(self, definition: Definition, known: KnownFunction) -> None:
        if not known.is_sent:
            known.is_sent = True
            data = memoryview(definition.pickle)
            for start in range(0, len(data), limits.INLINE_BODY):
                piece = data[start : start + limits.INLINE_BODY]
                self._wire.send(m.DefineFunction(definition.key, start, len(data), [len(piece)]), [piece])

    def _release(self, definitions: Iterable[Definition]) -> None:
        for definition in definitions:
            known = self._functions[definition.key]
            known.uses -= 1
            if known.uses == 0:
                self._idle[definition.key] = known.size
        keys, idle = [], self._idle
        while len(idle) > IDLE_FUNCTIONS or (len(idle) > 1 and sum(idle.values()) > limits.FUNCTION):
            keys.append(idle.popitem(last=False)[0])
            del self._functions[keys[-1]]
        if keys:
            self._wire.send(m.ForgetFunctions(keys))

    def _forget(self, group: SubmittedGroup) -> None:
        with self._lock:
            self._by_number.pop(group.number, None)

    # --- messages of the controller, in the session's thread -------------------------------------------------

    def tasks_done(self, message: m.TasksDone, body: Sequence[Buffer]) -> None:
        """Small results and failures have arrived."""
        group = self._by_number.get(message.group)
        if group is None:
            return
        whole = bytes(body[0]) if body else b""
        if group.lacks is not None:
            group.heard(unpack(message.indices))
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
        """A large result has arrived."""
        group = self._by_number.get(message.group)
        if group is None:
            return
        group.heard([message.index])
        self._ended(group, 1)
        if group.batch is not None:
            group.batch.large_arrived(group.base + message.index, message.engine, body)
            return
        handler, group.handlers[message.index] = group.handlers[message.index], None
        if handler is not None:
            handler.arrived(message.engine, True, body)

    def tasks_undone(self, message: m.TasksUndone) -> None:
        """Tasks will not be completed."""
        group = self._by_number.get(message.group)
        if group is not None:
            indices = unpack(message.indices)
            group.heard(indices)
            self._ended(group, len(indices))
            group.tell_undone(indices, kernel_error(message.error, message.text))

    def refused(self, number: int, error: KernelError) -> bool:
        """The controller refused the group with this number; return False if there is no such group."""
        group = self._by_number.get(number)
        if group is None:
            return False
        self._ended(group, group.left)
        group.tell_failed(error)
        return True

    def body_wanted(self, number: int) -> bool:
        """The controller needs a large body again; return False if it is not a task's."""
        group = self._by_number.get(number)
        if group is None or group.segments is None:
            return False
        message = m.BodyAgain(number, [size_of([each]) for each in group.segments])
        self._wire.send_streamed(message, group.segments)
        return True

    # --- a controller with a journal -------------------------------------------------------------------------

    def accepted(self, groups: Sequence[int]) -> None:
        """The controller has these groups in its journal, so that they need not be sent again."""
        for number in groups:
            group = self._by_number.get(number)
            if group is not None:
                group.copy = None

    def _has_all(self, number: int) -> None:
        if not self._fetched:
            self._wire.post_later(FETCHED, self._tell_fetched)
        self._fetched.append(number)

    def _tell_fetched(self) -> None:
        fetched, self._fetched = self._fetched, []
        if self._wire.failure is None:
            for start in range(0, len(fetched), limits.TASKS_PER_MESSAGE):
                self._wire.send(m.TasksFetched(fetched[start : start + limits.TASKS_PER_MESSAGE]))

    def go_on(self) -> None:
        """The controller was started again: send what it may not have, and say which ends are lacking."""
        self._has_said_who = False
        for known in self._functions.values():
            known.is_sent = False
        lacking: list[tuple[int, bytes]] = []
        for number in sorted(self._by_number):
            group = self._by_number[number]
            if not group.sent or group.lacks is None:
                continue
            if group.copy is not None or group.segments is not None:
                self._say_who()
                for definition in group.terms.definitions:
                    self._define(definition, self._functions[definition.key])
                if group.segments is not None:
                    self._send_large(group, group.segments)
                elif group.copy is not None:
                    self._send_small(group, *group.copy)
            else:
                lacking.append((number, pack(sorted(group.lacks))))
                if len(lacking) == _LACKING:
                    self._wire.send(m.TasksOpen(lacking, False))
                    lacking = []
        self._wire.send(m.TasksOpen(lacking, True))

    # --- groups that another client has submitted, in the session's thread -------------------------------------

    def adopt(self, groups: Iterable[SubmittedGroup]) -> None:
        """Hear of the ends of these groups, which will be asked for; from any thread."""
        with self._lock:
            self._by_number.update((group.number, group) for group in groups)

    def follow(self, groups: Sequence[SubmittedGroup]) -> Future[Any]:
        """Ask for the ends of groups; the future is done when those have come that were there.

        If the controller is started again, its exception is ConnectionError, but :meth:`go_on` has asked.
        """
        for group in groups:
            group.lacks = set(range(group.left)) if self._wire.is_journalled else None
        serials = [-group.number for group in groups]
        return self._wire.request(lambda i: m.FollowTasks(i, serials))

    @property
    def goes_on(self) -> bool:
        """Whether what was asked for will come, even if the controller was started again."""
        return self._wire.failure is None and self._wire.is_journalled

    def give_up(self, groups: Iterable[SubmittedGroup], error: KernelError) -> None:
        """Hear of them no longer."""
        for group in groups:
            if self._by_number.pop(group.number, None) is not None:
                group.tell_failed(error)

    def fail(self, error: KernelError) -> None:
        """The session has ended."""
        with self._lock:
            groups = [group for group in self._by_number.values() if group.sent]
            for group in groups:
                del self._by_number[group.number]
        self._pace.under_way = 0
        for group in groups:
            group.tell_failed(error)
        self._flush()

    def _ended(self, group: SubmittedGroup, number: int) -> None:
        """``number`` more tasks of a group have ended."""
        share = group.size if number >= group.left else group.size * number // group.left
        group.left -= number
        self._pace.under_way -= 0 if group.is_followed else number
        group.size -= share
        if group.segments is None:
            self._backlog -= share
        if group.left <= 0:
            self._forget(group)
            self._release(group.terms.definitions)
            if group.lacks is not None:
                self._has_all(group.number)
        if self._waiting:
            self._flush()
