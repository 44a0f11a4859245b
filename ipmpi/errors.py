"""All exceptions that ipmpi itself raises.

The class tree::

    KernelError                      base of all others; named as in IPython.kernel
    ├── FurlError                    a furl or furl file that cannot be used
    ├── ProtocolError
    │   ├── LocalProtocolError       this process broke the protocol: a bug in ipmpi or its caller
    │   └── RemoteProtocolError      the peer sent something that it must not send
    ├── SecurityError                a peer, a file or a setting that cannot be trusted
    │   └── FurlEnded                a furl whose time is over, or that was revoked or used up
    ├── VersionError                 two releases of ipmpi that are incompatible
    ├── ConnectionError              no controller answers, or the link to it is lost
    ├── ControllerStartError         the controller could not start (port taken, folder unusable)
    ├── LauncherError                engines could not be started, or MPI and launcher do not match
    ├── EngineLost                   an engine's process ended while a command or task was on it
    ├── EngineBusy                   something is only for an idle engine, and none is
    ├── InvalidEngineID, NoEnginesRegistered, QueueCleared, InvalidDeferredID,
    │   NotAPendingResult, ResultNotCompleted, SerializationError, UnpickleableException,
    │   InvalidProperty, StopLocalExecution, MessageSizeError, ClientError,
    │   Backpressure, JournalFull, JournalDamaged
    │   └── AbortedPendingDeferredError   is an InvalidDeferredID
    ├── TaskAborted, TaskTimeout, CommandTimeout, TaskRejectError, DependencyError, PeerError
    ├── RemoteExit                   user code raised SystemExit or another exception that ends programs
    ├── InternalError                an unexpected error inside ipmpi: a bug
    └── CompositeError               exceptions of user code, with the engines that raised them

and, beside it::

    KeyboardInterrupt
    └── WaitInterrupted              Ctrl-C ended a wait for engines; it says what became of the command
"""

from __future__ import annotations

import builtins
import concurrent.futures
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

from ipmpi.failuretext import Failure, Group, callers, everything, grouped, in_short, key_of, story
from ipmpi.ranges import label
from ipmpi.shortage import shortage

if sys.version_info >= (3, 11):
    _Timeout = TimeoutError
    _Group = builtins.ExceptionGroup
else:

    class _Timeout(concurrent.futures.TimeoutError, TimeoutError):
        """Both classes of this name: they are one from Python 3.11 on."""

    _Group = Exception


class KernelError(Exception):
    """Base of all errors of ipmpi."""


class FurlError(KernelError, ValueError):
    """A furl is invalid, or a file does not contain one, or it is for another kind of client."""


class ProtocolError(KernelError):
    """Base of :class:`LocalProtocolError` and :class:`RemoteProtocolError`."""


class LocalProtocolError(ProtocolError):
    """This process tried to send something that the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol does not allow."""


class SecurityError(KernelError):
    """A peer, a file or a setting cannot be trusted."""


class FurlEnded(SecurityError):
    """A furl that is not good any more, or not for this: its time is over, it was revoked, or it is used up."""


class VersionError(KernelError):
    """The two ends of a connection have no protocol version in common."""


class ConnectionError(KernelError, builtins.ConnectionError):
    """The controller cannot be reached, or the link to it is lost."""


class ControllerStartError(KernelError):
    """The controller cannot start, for example because its port is in use."""


class LauncherError(KernelError):
    """Engines cannot be started, or the MPI launcher and the MPI library do not match."""


class EngineLost(KernelError):
    """The process of an engine ended while a command or task of this client was on it.

    The message says how, as far as that is known. The attributes say it to programs; sizes are bytes, and what is
    not known is None.

    Attributes:
        rank: its rank.
        pid: its process id.
        host: where it ran.
        signal: the name of the signal that ended it, as ``"SIGSEGV"``.
        exit_code: the exit code with which it ended.
        abort_code: the code with which it called MPI_Abort.
        oom_killed: whether the kernel ended it because there was no memory left.
        peak_rss: the most memory that it was seen to have.
        memory_used: what all in its control group had, or on its machine where that has no limit.
        memory_limit: how much they may have.
        ran: the command or task that it ran.
        seconds: for how long.
        printed: the last lines that it printed.
        stack: what Python's faulthandler wrote about a crash.
    """

    rank: int | None = None
    pid: int | None = None
    host: str | None = None
    signal: str | None = None
    exit_code: int | None = None
    abort_code: int | None = None
    oom_killed: bool | None = None
    peak_rss: int | None = None
    memory_used: int | None = None
    memory_limit: int | None = None
    ran: str | None = None
    seconds: float | None = None
    printed: str | None = None
    stack: str | None = None


class EngineBusy(KernelError):
    """A request is only for an idle engine, and none of the engines is idle."""


class InvalidEngineID(KernelError):
    """No registered engine has this id."""


class NoEnginesRegistered(KernelError):
    """A command is for all engines, but none is registered."""


class QueueCleared(KernelError, concurrent.futures.CancelledError):
    """A command was removed from an engine's queue without being run."""


class InvalidDeferredID(KernelError):
    """A pending result was retrieved or flushed already, or never existed."""


class AbortedPendingDeferredError(InvalidDeferredID):
    """A pending result was flushed before it arrived."""


class NotAPendingResult(KernelError, TypeError):
    """An object is not a PendingResult, where one is expected."""


class ResultNotCompleted(KernelError, _Timeout):
    """The result has not arrived yet."""


class SerializationError(KernelError):
    """An object cannot be pickled; the message says which one, and why."""


class UnpickleableException(KernelError):
    """A remote exception cannot be unpickled here; the message has its class and text."""


class InvalidProperty(KernelError):
    """An engine property cannot be stored: its name is not a str, or its value cannot be pickled."""


class MessageSizeError(KernelError):
    """A message is larger than the limits allow."""


class ClientError(KernelError):
    """A client is used in a way that cannot work."""


class StopLocalExecution(KernelError):
    """Raised by ``remote()``, to end the local execution of the body of a ``with`` statement."""


class Backpressure(KernelError):
    """Too much is queued already: wait for results before sending more."""


class JournalFull(KernelError):
    """The controller's journal has no room, or cannot be written now: the task was not accepted."""


class JournalDamaged(KernelError):
    """The controller's journal cannot be trusted any more, or its disk has failed: the task was not accepted."""


class TaskAborted(KernelError, concurrent.futures.CancelledError):
    """The task was aborted before it had a result."""


class TaskTimeout(KernelError, _Timeout):
    """The task could not be started in time, or ran for longer than its ``timeout``."""


class CommandTimeout(KernelError, _Timeout):
    """A command ran for longer than its ``timeout``, and was interrupted; it still runs if the message says so."""


class TaskRejectError(KernelError):
    """A task raises this to refuse the engine it is on; it is then offered to others."""


class DependencyError(KernelError):
    """A task was not run, because a task that it depends on failed, was cancelled, or cannot be found."""


class PeerError(KernelError):
    """Another rank of the same command or task has failed, so a communication with it cannot complete.

    Attributes:
        rank: the rank that has failed first; None if it is not known.
        original: its error in one line, as ``ValueError: no such file``; "" if it is not known.
    """

    def __init__(self, text: str, rank: int | None = None, original: str = "") -> None:
        super().__init__(text)
        self.rank = rank
        self.original = original

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (*self.args, self.rank, self.original))


class RemoteExit(KernelError):
    """User code on an engine raised SystemExit, KeyboardInterrupt or the like, which would end this program.

    Attributes:
        value: the original exception.
    """

    def __init__(self, text: str, value: BaseException | None = None) -> None:
        super().__init__(text)
        self.value = value

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (*self.args, self.value))


class WaitInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a wait for engines. As a KeyboardInterrupt, ``except Exception`` does not catch it.

    Attributes:
        detached: whether the command goes on.
        error: what the engines raised, a :class:`CompositeError`; None if it goes on, or no engine has raised.
    """

    def __init__(self, text: str, detached: bool = False, error: BaseException | None = None) -> None:
        super().__init__(text)
        self.detached = detached
        self.error = error

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (*self.args, self.detached, self.error))

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: the frames of the wait would say nothing."""
        return [f"KeyboardInterrupt: {self}"]


def text_of(error: BaseException) -> str:
    """Return ``str(error)``, or a substitute if that raises."""
    try:
        return str(error)
    except BaseException as broken:  # an exception handler must not raise another exception
        return f"<str() of this {type(error).__name__} raised {type(broken).__name__}>"


def raisable(error: BaseException, who: str) -> Exception:
    """Return ``error``, or a replacement that is safe to raise locally, with ``error`` as its cause.

    SystemExit and KeyboardInterrupt would end the program that retrieves the result, StopIteration an iterator or
    coroutine that does (PEP 479).

    Args:
        error: the exception that user code raised on an engine.
        who: the subject of the message, for example ``"the task"``.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    text = f"{who} raised {': '.join(filter(None, [type(error).__name__, text_of(error)]))}"
    instead = RuntimeError(text) if isinstance(error, Exception) else RemoteExit(text, error)
    instead.__cause__ = error
    return instead


class InternalError(KernelError):
    """An unexpected error inside ipmpi. The affected command, task or connection has ended; the rest continues."""


def internal_error(cause: BaseException, where: str = "") -> InternalError:
    """Return the InternalError that reports an unexpected exception."""
    place = f" {where}" if where else ""
    said = f"{type(cause).__name__}: {text_of(cause)}"[:500]
    bug = f"an error in ipmpi{place} that was not foreseen ({said}); please report this"
    (error := InternalError(shortage(cause, place, said) or bug)).__cause__ = cause
    return error


FEW: Final = 4
"""Up to so many failures are shown one by one, as in IPython.kernel; of more, those that are alike once."""

ErrorEntry = tuple[type[BaseException], BaseException, TracebackType | None]


class CompositeError(KernelError, _Group):
    """A command failed on one or more engines; it holds their exceptions and tracebacks.

    From Python 3.11 on it is an :class:`ExceptionGroup`: ``except* ZeroDivisionError`` selects exceptions of that
    class. Its ``exceptions`` are the values in ``elist``, with a :class:`RemoteExit` for each SystemExit and
    KeyboardInterrupt. If there are more than four, it has only one of those that are alike (of one class, raised
    in one place, with texts that differ by numbers only), so that a traceback of thousands of ranks can be read;
    what ``except*`` selects still has all in its ``elist``. If all are alike, the first one is the ``__cause__``.

    Attributes:
        message: a summary of the call that failed.
        elist: one ``(type, value, traceback)`` tuple per failure, in the order of the engines. A value that came
            from an engine has the attributes ``_ipython_engine_info`` (``{'engineid', 'method', 'args'}``) and
            ``_ipython_traceback_text`` (the engine's own formatted traceback).
        finished: the ids of the engines on which the same call succeeded.
        results: for code that was run, a :class:`~ipmpi.client.ResultList` of what all engines have printed and
            shown, those that failed too; otherwise empty.
    """

    elist: list[ErrorEntry]
    finished: list[int]
    results: list[Any]
    _of_member: dict[int, list[ErrorEntry]]
    """The failures that each of the ``exceptions`` stands for, by its ``id()``."""

    def __new__(cls, message: str, elist: Sequence[ErrorEntry]) -> CompositeError:
        """Create the exception; a CompositeError in ``elist`` is replaced by its own entries."""
        flat: list[ErrorEntry] = []
        for entry in elist:
            flat.extend(entry[1].elist if isinstance(entry[1], CompositeError) else [entry])
        return cls._made(message, [(_member(same[0][1]), same) for same in _alike(flat)], flat)

    @classmethod
    def _made(
        cls, message: str, members: Sequence[tuple[Exception, list[ErrorEntry]]], elist: list[ErrorEntry]
    ) -> CompositeError:
        made: CompositeError
        if sys.version_info >= (3, 11):
            made = super().__new__(cls, message, [member for member, _ in members])
        else:
            made = super().__new__(cls, message, elist)
            made.message = message
        made.elist = elist
        made.finished, made.results = [], []
        made._of_member = {id(member): same for member, same in members}
        if len(members) == 1 or (len(elist) <= FEW and len({key_of(_failure(entry)) for entry in elist}) == 1):
            made.__cause__ = elist[0][1]
        return made

    def derive(self, excs: Sequence[Any], /) -> Any:
        """Return a CompositeError of some of the failures; ``except*``, ``split`` and ``subgroup`` call this."""
        chosen = [(each, self._of_member.get(id(each), [(type(each), each, each.__traceback__)])) for each in excs]
        elist = [entry for _, same in chosen for entry in same]
        made = self._made(self.message, chosen, elist)
        made.args = (self.message, elist)
        return made

    def __reduce__(self) -> tuple[object, ...]:
        state = {
            name: value for name, value in vars(self).items() if name not in ("elist", "message", "_of_member")
        }
        return (type(self), (self.message, [(t, v, None) for t, v, _ in self.elist]), state or None)

    @staticmethod
    def _label(value: BaseException) -> str:
        info = getattr(value, "_ipython_engine_info", None)
        return f"[{info['engineid']}:{info['method']}]: " if info else "[Engine Exception]"

    def __str__(self) -> str:
        if len(self.elist) <= FEW:
            lines = [f"{self._label(value)}{kind.__name__}: {text_of(value)}" for kind, value, _ in self.elist]
        else:
            lines = in_short(self._groups(), self.finished)
        return "\n".join([self.message, *lines])

    def _groups(self, ids: Sequence[int] | None = None) -> list[Group]:
        failures = list(map(_failure, self.elist))
        if ids is not None:
            failed = {failure.engine for failure in failures}
            missing = [engine for engine in ids if engine not in failed]
            if missing:
                known = label(engine for engine in failed if engine is not None)
                raise IndexError(f"{label(missing)} did not fail in this call; those that did are {known}")
            failures = [failure for failure in failures if failure.engine in ids]
        return grouped(failures)

    def render(self, ids: int | Sequence[int] | None = None, all: bool = False, *, colours: bool = False) -> str:
        """Return the failures as text: those that are alike once, with their ranks.

        By default it is about 15 lines: the frames of user code, the messages, and what other engines did.

        Args:
            ids: the engine or engines whose whole tracebacks are wanted.
            all: give the whole traceback of each different failure.
            colours: whether to use ANSI colours.

        Raises:
            IndexError: an engine in ``ids`` did not fail.
        """
        if ids is not None or all:
            wanted = [ids] if isinstance(ids, int) else ids
            return "\n".join([self.message, *everything(self._groups(wanted), colours)])
        hint = "error.render(all=True) gives the whole tracebacks, error.render({rank}) that of rank {rank}"
        return "\n".join(story(self._groups(), self.message, self.finished, hint, colours))

    def _render_traceback_(self) -> list[str]:
        """The traceback as IPython and Jupyter show it, in lines: without the frames of ipmpi and IPython."""
        # Inside IPython it is imported already; elsewhere nobody calls this.
        ipython = sys.modules.get("IPython")
        shell = None if ipython is None else ipython.get_ipython()
        colours = str(getattr(shell, "colors", "NoColor")).lower() != "nocolor"
        first = f"{type(self).__name__}: {self.message}"
        hint = "%pxtb shows the whole tracebacks, %pxtb {rank} that of rank {rank}"
        lines = story(self._groups(), first, self.finished, hint, colours)
        return [lines[0], *callers(self.__traceback__), *lines[1:]]

    def _entry(self, excid: int) -> ErrorEntry:
        try:
            return self.elist[excid]
        except IndexError:
            raise IndexError(f"an exception with index {excid} does not exist") from None

    def print_tracebacks(self, excid: int | None = None) -> None:
        """Print the engines' tracebacks.

        Args:
            excid: index of a failure in ``elist``; None for all.

        Raises:
            IndexError: there is no failure with this index.
        """
        for kind, value, _ in self.elist if excid is None else [self._entry(excid)]:
            text = getattr(value, "_ipython_traceback_text", None) or f"{kind.__name__}: {text_of(value)}"
            print(f"{self._label(value)}\n{text}", file=sys.stdout)

    def raise_exception(self, excid: int = 0) -> None:
        """Raise the original exception of one failure.

        Args:
            excid: index of the failure in ``elist``.

        Raises:
            IndexError: there is no failure with this index.
        """
        _, value, traceback = self._entry(excid)
        raise value.with_traceback(traceback)


def _failure(entry: ErrorEntry) -> Failure:
    kind, value, _ = entry
    info = getattr(value, "_ipython_engine_info", None) or {"engineid": None, "method": ""}
    traceback = getattr(value, "_ipython_traceback_text", None) or ""
    return Failure(info["engineid"], info["method"], kind.__name__, text_of(value), traceback)


def _alike(elist: Sequence[ErrorEntry]) -> list[list[ErrorEntry]]:
    """The failures in groups, one for each member of the exception group."""
    if len(elist) <= FEW:
        return [[entry] for entry in elist]
    found: dict[object, list[ErrorEntry]] = {}
    for entry in elist:
        # One that user code raised as a group has parts that `except*` may select: it stands for itself only.
        is_group = hasattr(entry[1], "exceptions")
        found.setdefault(id(entry[1]) if is_group else key_of(_failure(entry)), []).append(entry)
    return list(found.values())


def _member(value: BaseException) -> Exception:
    """Return the member of the exception group for a failure; all members must be safe to raise."""
    return value if isinstance(value, Exception) else raisable(value, "an engine")
