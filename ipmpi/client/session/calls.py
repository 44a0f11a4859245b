"""How the methods of clients send commands to engines, and wait for the replies or not."""

from __future__ import annotations

import concurrent.futures
import functools
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ... import limits, serialize
from ...errors import KernelError, WaitInterrupted
from ...ids import Ids
from ...protocol import messages
from . import given
from .callwait import StderrScreen, wait_and_tell
from .debuggerconsole import DebuggerConsole
from .escalation import Escalation, timed_out
from .freeing import free
from .hangwatch import HangWatch
from .partial import CommandFuture, Partial, WaitSettings
from .recentoutputs import RecentOutputs
from .results import PendingResult, PendingResults, wait_until_done
from .session import Submission
from .stacks import ask_stacks, stacks_of
from .standstill import why_they_stay
from .waiting import check_waiting

if TYPE_CHECKING:
    from .enginereply import EngineReply
    from .session import Session

of_this_process = serialize.stays_here(
    "it uses this process's link to the controller. Pass what the function needs of it, or let the function "
    "connect by itself"
)
"""The ``__reduce_ex__`` of clients and views."""

Finish = Callable[[list[Any]], Any]
"""Makes the result of a call from the replies of its engines, in the thread that retrieves the result."""


def label_of(method: str, *shown: object) -> str:
    """Return how queue_status shows a call: ``execute('a = 1')``, at most ``limits.LABEL`` characters."""
    text = f"{method}({', '.join(_short(item) for item in shown)})"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limits.LABEL else f"{text[: limits.LABEL - 4]}...)"


def _short(item: object) -> str:
    if callable(item):
        return str(getattr(item, "__name__", type(item).__name__))
    # Without the cut, repr() would format a megabyte to show a hundred characters of it.
    return repr(item[: limits.LABEL] if isinstance(item, (str, tuple, list)) else item)


def copied(body: Sequence[serialize.Buffer]) -> list[serialize.Buffer]:
    """Return a copy of the body, so that arrays may be changed while it is sent."""
    return [item if isinstance(item, bytes) else bytes(item) for item in body]


def combined(
    futures: Sequence[concurrent.futures.Future[list[EngineReply]]],
) -> concurrent.futures.Future[list[EngineReply]]:
    """Return one future of all replies, in the order of ``futures``; it fails with the first exception."""
    parts = [part for future in futures if isinstance(future, CommandFuture) for part in future.so_far]
    outputs = [output for future in futures if isinstance(future, CommandFuture) for output in future.outputs]
    numbers = [number for future in futures if isinstance(future, CommandFuture) for number in future.numbers]
    talks = [talk for future in futures if isinstance(future, CommandFuture) for talk in future.talks]
    whole: concurrent.futures.Future[list[EngineReply]] = CommandFuture(parts, outputs, numbers, talks)
    missing = len(futures)
    lock = threading.Lock()

    def arrived(_: object) -> None:
        nonlocal missing
        with lock:
            missing -= 1
            if missing > 0:
                return
        try:
            whole.set_result([reply for future in futures for reply in future.result()])
        except BaseException as error:  # also CancelledError: passed on to the waiting thread
            whole.set_exception(error)

    for future in futures:
        future.add_done_callback(arrived)
    if not futures:
        whole.set_result([])
    return whole


def ask(session: Session, make: Callable[[int], messages.AnyMessage]) -> Any:
    """Send a request to the controller and wait for the answer; see :meth:`Session.request`."""
    check_waiting()
    answer = session.request(make)
    wait_until_done(answer)
    return answer.result()


def registered(session: Session) -> list[int]:
    """Ask the controller for the ids of the engines, ascending."""
    return sorted(Ids.unpacked(ask(session, messages.GetIds)))


class Calls:
    """The session of a client and its views, and its pending results.

    Attributes:
        session: the session.
        pending: the results of calls that did not wait.
        settings: how calls are waited for.
        hangs: says where engines are when a command makes no progress.
        recent: what engines have printed for the last commands.
        detached: the result of the last waiting call whose wait was ended by Ctrl-C.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.pending = PendingResults()
        # It refers to the session only: a cycle would keep the session open after its last client.
        self.settings = WaitSettings(
            functools.partial(_interrupt, session),
            functools.partial(_known, session),
            functools.partial(_why, session),
            functools.partial(free, session),
        )
        self.hangs = HangWatch(session, self.settings)
        self.recent = RecentOutputs()
        self.detached: PendingResult[Any] | None = None

    def command(self, client: object, submission: Submission, finish: Finish, block: bool) -> Any:
        """Send one command; return ``finish(replies)``, or with ``block=False`` a PendingResult of it.

        A call that waits sends its buffers without a copy.
        """
        return self.commands(client, [submission], finish, block, submission.method)

    def commands(
        self, client: object, submissions: Sequence[Submission], finish: Finish, block: bool, method: str
    ) -> Any:
        """Send several commands of one call: as :meth:`command`, with ``finish`` applied to the replies of all."""
        timeout = given.seconds(getattr(client, "timeout", None), "timeout")
        if any(each.past is not None for each in submissions):
            timeout = None  # it is another call's, and began earlier
        if block:
            check_waiting()
        else:
            submissions = [each._replace(body=copied(each.body)) for each in submissions]
        # None means all engines; without any engine there is nothing to wait for.
        futures = [self.session.command(each) for each in submissions if each.targets != []]
        for each, sent in zip(submissions, futures, strict=False):
            self.hangs.watch(sent, each.label)
            if isinstance(sent, CommandFuture):
                self.recent.add(each.label, sent.outputs[0])
        future = futures[0] if len(futures) == 1 else combined(futures)
        label = submissions[0].label if len(submissions) == 1 else method
        escalation = None
        if isinstance(future, CommandFuture):
            escalation = Escalation(self.session, future, label, self.settings)
            escalation.watch_failures()
            if timeout is not None:
                escalation.after(timeout)
                finish = _with_timeout(finish, timeout)
        return self._result(client, future, finish, block, method, _has_failed, label, escalation)

    def request(
        self,
        client: object,
        factory: Callable[[int], messages.AnyMessage],
        finish: Callable[[Any], Any],
        block: bool,
        method: str,
    ) -> Any:
        """Send a request to the controller; the result is that of :meth:`command`."""
        if block:
            check_waiting()
        return self._result(client, self.session.request(factory), finish, block, method)

    def known(self) -> list[int]:
        """Return the ids of the engines, ascending, from the last update of the controller, without a request."""
        return _known(self.session)

    def ids(self) -> list[int]:
        """Ask the controller for the ids of the engines, ascending."""
        return registered(self.session)

    def memory(self, size: int) -> memoryview | None:
        """Return memory for a large array, with anything in it; None for a small one, or if there is none."""
        if size < limits.FILE_BODY:
            return None
        try:
            return memoryview(self.session.arriving.used.take(size))
        except (OSError, ValueError, OverflowError):
            return None

    def attend_debuggers(self, first: int | None = None) -> bool:
        """Ask for lines for the debuggers that wait in commands of this client; return False if there are none.

        Args:
            first: only if the debugger of this engine waits, which is then the first one.
        """
        talks = self.session.debuggers()
        if not any(first is None or first in talk.waiting() for talk in talks):
            return False
        numbers = [talk.number for talk in talks]
        screen = StderrScreen()
        for talk in talks:
            talk.listen(screen.wake)
        DebuggerConsole(
            talks, screen, lambda engines: _interrupt(self.session, numbers, engines),
            lambda: self.session.failure is not None, first,
        ).attend()  # fmt: skip
        return True

    def _result(
        self,
        client: object,
        future: concurrent.futures.Future[Any],
        finish: Callable[[Any], Any],
        block: bool,
        method: str,
        has_failed: Callable[[Any], bool] | None = None,
        label: str = "",
        escalation: Escalation | None = None,
    ) -> Any:
        partial = Partial(future, method, self.settings.partial_after, self.settings, label)
        if not block:
            return self.pending.add(PendingResult(client, future, finish, method, has_failed, partial, escalation))
        try:
            wait_and_tell(future, partial, "mec.detached.r waits for its result again")
        except WaitInterrupted as error:
            if error.detached:
                pending = PendingResult(client, future, finish, method, has_failed, partial, escalation)
                self.detached = self.pending.add(pending)
            raise
        return finish(future.result())


def _with_timeout(finish: Finish, seconds: float) -> Finish:
    return lambda replies: finish(timed_out(replies, seconds))


def _interrupt(session: Session, numbers: list[int], engines: list[int] | None = None) -> None:
    """Interrupt the engines (None: all) that run these commands; the replies show the outcome."""
    session.request(lambda i: messages.Interrupt(i, engines, numbers))


def _why(session: Session, engines: list[int]) -> str:
    """Ask where engines are that do not react, and say what each is in."""
    try:
        answer = ask_stacks(session, engines).result()
    except KernelError:  # engines or the controller are gone
        return ""
    return why_they_stay(stacks_of(answer), engines)


def _known(session: Session) -> list[int]:
    return sorted(session.engines)


def _has_failed(replies: Sequence[EngineReply]) -> bool:
    return not all(reply.ok for reply in replies)
