"""A session whose engines are threads of this process: calls take their time, and others go on meanwhile."""

from __future__ import annotations

import functools
import itertools
import queue
import threading
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


class ThreadFarm:
    """First come, first served; a task that runs cannot be interrupted, but counts as taken back when it ends.

    Attributes:
        sent: what the client sent.
    """

    def __init__(self, engines: int = 2) -> None:
        self.role = "tc"
        self.notices: list[str] = []
        self.presence = Presence()
        self.opener = EVERYTHING
        self.presence.update(range(engines), ())
        self.failure: KernelError | None = None
        self.sent: list[m.AnyMessage] = []
        self.closed = threading.Event()
        self._runners = [TaskRunner(Namespace(engine)) for engine in range(engines)]
        self._numbers = itertools.count(1)
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._change = threading.Condition()
        self._waiting: dict[Task, Any] = {}
        self._running: set[Task] = set()
        self._dropped: set[Task] = set()
        self._interrupted: set[Task] = set()
        self._options: dict[int, m.TaskOptions] = {}
        self.submitter = self.tasks = TaskSubmitter(self)
        self._session = threading.Thread(target=self._serve, daemon=True)
        self._session.start()
        for engine in range(engines):
            threading.Thread(target=self._work, args=(engine,), daemon=True).start()

    # --- what the client uses ----------------------------------------------------------------------------

    is_journalled = False

    @property
    def engines(self) -> list[int]:
        return list(range(len(self._runners)))

    def number(self) -> int:
        return next(self._numbers)

    def check(self) -> None:
        pass

    def post(self, call: Callable[[], object], on_error: object = None) -> None:  # noqa: ARG002
        self._calls.put(call)

    def post_later(self, _delay: float, call: Callable[[], object], on_error: object = None) -> None:  # noqa: ARG002
        self._calls.put(call)

    def is_own_thread(self) -> bool:
        return threading.current_thread() is self._session

    def request(self, make: Callable[[int], m.AnyMessage]) -> Future[Any]:
        future: Future[Any] = Future()
        message = make(self.number())
        self.post(lambda: self._answer(message, future))
        return future

    def send(self, message: m.AnyMessage, body: Sequence[Any] = ()) -> None:
        self.sent.append(message)
        if isinstance(message, m.DefineFunction):
            for runner in self._runners:
                runner.define(message, body[0])
        elif isinstance(message, m.SubmitTasks):
            payloads: Any = [[bytes(each) for each in body]]
            if message.lengths:
                payloads = [bytes(each) for each in slices(body[0], unpack(message.lengths))]
            with self._change:
                self._options[message.id] = message.options
                self._waiting.update(((message.id, index), payload) for index, payload in enumerate(payloads))
                self._change.notify_all()

    def send_streamed(self, message: m.AnyMessage, body: Sequence[Any]) -> None:
        self.send(message, body)

    def close(self) -> None:
        self.closed.set()
        with self._change:
            self._change.notify_all()
        self._calls.put(None)

    def command(self, submission: Any) -> Any:
        raise NotImplementedError

    # --- the session, the controller and the engines -----------------------------------------------------

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _answer(self, message: m.AnyMessage, future: Future[Any]) -> None:
        self.sent.append(message)
        if isinstance(message, m.GetIds):
            future.set_result(list(range(len(self._runners))))
            return
        assert isinstance(message, m.AbortTasks)
        named = unpack(message.indices)
        with self._change:
            ours = [t for t in [*self._waiting, *self._running] if t[0] == message.group]
            wanted = [t for t in ours if not named or t[1] in named]
            undone = [t for t in wanted if self._waiting.pop(t, None) is not None]
            running = [t for t in wanted if t in self._running and message.how != "cancel"]
            (self._dropped if message.how == "drop" else self._interrupted).update(running)
        future.set_result(pack(sorted(index for _, index in [*undone, *running])))
        for task in [*undone, *(running if message.how == "drop" else ())]:
            self._undo(task)

    def _undo(self, task: Task) -> None:
        self.submitter.tasks_undone(m.TasksUndone(task[0], pack([task[1]]), "TaskAborted", "taken back"))

    def _work(self, engine: int) -> None:
        runner = self._runners[engine]
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self.closed.is_set())
                if self.closed.is_set():
                    return
                task = next(iter(self._waiting))
                payload = self._waiting.pop(task)
                self._running.add(task)
                options = self._options[task[0]]
            kind, what = runner.run(runner.program(options.operation), payload)
            with self._change:
                self._running.remove(task)
                dropped, interrupted = task in self._dropped, task in self._interrupted
            if interrupted:
                self.post(functools.partial(self._undo, task))
            elif not dropped:
                self.post(functools.partial(self._tell, task, engine, kind != taskrunner.FAILED, what))

    def _tell(self, task: Task, engine: int, ok: bool, payload: Any) -> None:
        if isinstance(payload, bytes):
            failed = pack([] if ok else [0])
            done = m.TasksDone(task[0], engine, pack([task[1]]), failed, pack([len(payload)]), [len(payload)])
            self.submitter.tasks_done(done, [payload])
        else:
            body: list[Any] = [bytes(each) for each in payload]
            self.submitter.task_done(m.TaskDone(task[0], task[1], engine, [len(each) for each in body]), body)
