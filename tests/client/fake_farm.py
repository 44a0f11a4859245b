"""A session with a controller and engines of its own, all in this process, for tests of the task client."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ipmpi.client.session.opening import EVERYTHING
from ipmpi.client.session.presence import Presence
from ipmpi.client.tasks.submitter import TaskSubmitter
from ipmpi.engine.rank import taskrunner
from ipmpi.engine.rank.taskrunner import TaskRunner
from ipmpi.engine.session.namespace import Namespace
from ipmpi.errors import KernelError
from ipmpi.protocol import messages as m
from ipmpi.protocol.packed import pack, slices, unpack

Task = tuple[int, int]


class FakeFarm:
    """Runs tasks at once, one after the other; while it is ``held``, they wait for :meth:`work`.

    While it is ``mute``, questions wait for :meth:`answer_now`.
    Tasks in ``running`` count as given to engines: they cannot be cancelled, and end by :meth:`finish`. What the
    client sent is in ``sent``; ``tries`` names the engine of every attempt.
    """

    def __init__(self, engines: int = 2) -> None:
        self.runners = [TaskRunner(Namespace(engine)) for engine in range(engines)]
        self.role = "tc"
        self.notices: list[str] = []
        self.presence = Presence()
        self.opener = EVERYTHING
        self.presence.update(range(engines), ())
        self.failure: KernelError | None = None
        self.held = False
        self.mute = False
        self._unanswered: list[Callable[[], None]] = []
        self.closed = False
        self.waiting: dict[Task, Any] = {}
        self.running: set[Task] = set()
        self.sent: list[m.AnyMessage] = []
        self.tries: list[int] = []
        self.refusal: KernelError | None = None
        self._ended: dict[Task, bool] = {}
        self._options: dict[int, m.TaskOptions] = {}
        self._dropped: set[Task] = set()
        self._turn = itertools.count()
        self._numbers = itertools.count(1)
        self._calls: deque[Callable[[], object]] = deque()
        self._lock = threading.RLock()
        self._thread: int | None = None
        self.submitter = self.tasks = TaskSubmitter(self)

    # --- what the client uses ----------------------------------------------------------------------------

    def shown(self) -> str:
        return f"engines: {len(self.runners)}"

    is_journalled = False

    @property
    def engines(self) -> list[int]:
        return list(range(len(self.runners)))

    def number(self) -> int:
        return next(self._numbers)

    def check(self) -> None:
        pass

    def post(self, call: Callable[[], object], on_error: object = None) -> None:  # noqa: ARG002
        self._calls.append(call)
        if self._thread == threading.get_ident():
            return
        with self._lock:
            self._thread = threading.get_ident()
            try:
                while self._calls:
                    self._calls.popleft()()
                    if not self.held and not self._calls:
                        self._work()
            finally:
                self._thread = None

    def post_later(self, seconds: float, call: Callable[[], object], on_error: object = None) -> None:  # noqa: ARG002
        self.post(call)

    def is_own_thread(self) -> bool:
        return self._thread == threading.get_ident()

    def request(self, make: Callable[[int], m.AnyMessage]) -> Future[Any]:
        future: Future[Any] = Future()
        message = make(self.number())
        self.post(lambda: self._answer(message, future))
        return future

    def send(self, message: m.AnyMessage, body: Sequence[Any] = ()) -> None:
        self.sent.append(message)
        match message:
            case m.SubmitTasks():
                if self.refusal is not None:
                    self.submitter.refused(message.id, self.refusal)
                    return
                self._options[message.id] = message.options
                if message.lengths:
                    assert sum(message.sizes) == len(body[0])
                    payloads: Any = [bytes(each) for each in slices(body[0], unpack(message.lengths))]
                else:
                    payloads = [[bytes(each) for each in body]]
                for index, payload in enumerate(payloads):
                    self.waiting[message.id, index] = payload
            case m.DefineFunction():
                for runner in self.runners:
                    runner.define(message, body[0])
            case m.ForgetFunctions():
                for runner in self.runners:
                    runner.forget(message.keys)

    def send_streamed(self, message: m.AnyMessage, body: Sequence[Any]) -> None:
        self.send(message, body)

    def close(self) -> None:
        self.closed = True

    def command(self, submission: Any) -> Any:
        raise NotImplementedError

    # --- the test's side ---------------------------------------------------------------------------------

    def work(self) -> None:
        """Let the engines do what waits, also from now on."""
        self.held = False
        self.post(lambda: None)

    def start(self, count: int = 1) -> list[Task]:
        """Give the first tasks that wait to engines, where they stay."""
        started = [task for task in self.waiting if task not in self.running][:count]
        self.running.update(started)
        return started

    def answer_now(self) -> None:
        """Answer what was asked while the controller was ``mute``."""
        self.mute = False
        while self._unanswered:
            self.post(self._unanswered.pop(0))

    def finish(self, task: Task) -> None:
        """Let a running task go on to its end."""
        self.post(lambda: self._run(task))

    def undo(self, task: Task, error: str, text: str) -> None:
        """Tell the client that a task has no outcome."""
        self.waiting.pop(task, None)
        self.running.discard(task)
        self._ended[task] = False
        group, index = task
        self.post(lambda: self.submitter.tasks_undone(m.TasksUndone(group, pack([index]), error, text)))

    def break_link(self, error: KernelError) -> None:
        self.failure = error
        self.post(lambda: self.submitter.fail(error))

    # --- the controller ----------------------------------------------------------------------------------

    def _answer(self, message: m.AnyMessage, future: Future[Any]) -> None:
        self.sent.append(message)
        if self.mute:
            self._unanswered.append(lambda: self._settle(message, future))
        else:
            self._settle(message, future)

    def _settle(self, message: m.AnyMessage, future: Future[Any]) -> None:
        if self.failure is not None:
            future.set_exception(self.failure)
        elif isinstance(message, m.TaskStatus):
            running: dict[int, list[int]] = {}
            for group, index in self.running:
                running.setdefault(group, []).append(index)
            answer = [[group, pack(indices)] for group, indices in running.items()]
            future.set_result({"scheduled": 0, "pending": 0, "succeeded": 0, "failed": 0, "running": answer})
        elif isinstance(message, m.Recheck):
            future.set_result(None)
        elif isinstance(message, m.GetIds):
            future.set_result(list(range(len(self.runners))))
        elif isinstance(message, m.AbortTasks):
            named = unpack(message.indices)
            mine = [t for t in self.waiting if t[0] == message.group and (not named or t[1] in named)]
            taken = [task for task in mine if message.how != "cancel" or task not in self.running]
            future.set_result(pack(index for _, index in taken))
            for task in taken:
                if task in self.running:
                    self._dropped.add(task)
                if task not in self.running or message.how == "drop":
                    self.undo(task, "TaskAborted", "taken back")

    def _work(self) -> None:
        results: dict[tuple[int, int], list[tuple[int, bool, bytes]]] = {}
        for task in [t for t in self.waiting if t not in self.running]:
            after = self._options[task[0]].after
            parents = [self._ended.get(parent) for parent in map(tuple, after)]
            if False in parents:
                self.undo(task, "DependencyError", "a task before it failed")
            elif None not in parents and task in self.waiting:
                outcome = self._attempt(task)
                if outcome is not None:
                    engine, ok, payload = outcome
                    if isinstance(payload, bytes):
                        results.setdefault((task[0], engine), []).append((task[1], ok, payload))
                    else:
                        sizes = [len(memoryview(each).cast("B")) for each in payload]
                        body: list[Any] = [bytes(each) for each in payload]
                        self.submitter.task_done(m.TaskDone(task[0], task[1], engine, sizes), body)
        for (group, engine), ends in results.items():
            self._tell(group, engine, ends)
        if results:
            self._calls.append(lambda: None)  # what comes after these can run now

    def _run(self, task: Task) -> None:
        self.running.discard(task)
        outcome = self._attempt(task)
        if outcome is not None:
            self._tell(task[0], outcome[0], [(task[1], outcome[1], outcome[2])])

    def _tell(self, group: int, engine: int, ends: list[tuple[int, bool, bytes]]) -> None:
        failed = [position for position, (_, ok, _) in enumerate(ends) if not ok]
        lengths = [len(payload) for *_, payload in ends]
        body = b"".join(payload for *_, payload in ends)
        indices = pack(index for index, *_ in ends)
        message = m.TasksDone(group, engine, indices, pack(failed), pack(lengths), [len(body)])
        self.submitter.tasks_done(message, [body])

    def _attempt(self, task: Task) -> tuple[int, bool, Any] | None:
        payload = self.waiting.pop(task, None)
        if payload is None:
            return None
        options = self._options[task[0]]
        refusals = 0
        retries = options.retries
        while refusals < len(self.runners):
            engine = next(self._turn) % len(self.runners)
            runner = self.runners[engine]
            kind, what = runner.run(runner.program(options.operation), payload)
            if kind in (taskrunner.REFUSED, taskrunner.REJECTED):
                refusals += 1
                continue
            self.tries.append(engine)
            ok = kind != taskrunner.FAILED
            if ok or not retries:
                self._ended[task] = ok
                return engine, ok, what
            retries -= 1
        error = "TaskTimeout" if kind == taskrunner.REFUSED else "TaskRejectError"
        self.undo(task, error, f"task {options.label} found no engine")
        return None
