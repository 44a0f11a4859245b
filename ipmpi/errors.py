"""Every exception that ipmpi raises on purpose (layer L0, imports nothing of ipmpi).

The tree says who is to blame::

    KernelError                      everything below; the original's name, kept
    ├── FurlError                    a furl or furl file that cannot be used
    ├── ProtocolError
    │   ├── LocalProtocolError       this process broke the rules: a bug in ipmpi or its caller
    │   └── RemoteProtocolError      the peer sent something it may not
    ├── SecurityError                a peer that could not prove who it is
    ├── VersionError                 two ipmpi releases that cannot talk
    ├── ConnectionError              no controller there, or the link to it is lost
    ├── ControllerStartError         the controller could not start (port taken, folder unusable)
    ├── LauncherError                engines could not be started, or MPI and launcher do not match
    ├── EngineLost                   an engine's process ended while a command was on it
    ├── InvalidEngineID, NoEnginesRegistered, QueueCleared, IdInUse, InvalidClientID,
    │   InvalidDeferredID, NotDefined, NotAPendingResult, ResultNotCompleted,
    │   ResultAlreadyRetrieved, SerializationError, UnpickleableException, InvalidProperty,
    │   MissingBlockArgument, StopLocalExecution, MessageSizeError, ClientError,
    │   FileTimeoutError, AbortedPendingDeferredError, Backpressure
    ├── TaskAborted, TaskTimeout, TaskRejectError, DependencyError, PeerError
    ├── InternalError                something in ipmpi went wrong that nobody foresaw: a bug
    └── CompositeError               what user code raised, on which engines
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType


class KernelError(Exception):
    """Base of all errors of ipmpi."""


class FurlError(KernelError, ValueError):
    """A furl, or a file that should contain one, cannot be used."""


class ProtocolError(KernelError):
    """Base of :class:`LocalProtocolError` and :class:`RemoteProtocolError`."""


class LocalProtocolError(ProtocolError):
    """This process tried to say something that the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """The peer said something that the protocol does not allow."""


class SecurityError(KernelError):
    """A peer, a file or a setting that cannot be trusted."""


class VersionError(KernelError):
    """The two ends speak no protocol version in common."""


class ConnectionError(KernelError, OSError):
    """The controller cannot be reached, or the link to it is lost."""


class ControllerStartError(KernelError):
    """The controller cannot start here."""


class LauncherError(KernelError):
    """Engines cannot be started, or the MPI launcher and the MPI library do not match."""


class EngineLost(KernelError):
    """The process of an engine ended while a command of yours was on it."""


class InvalidEngineID(KernelError):
    """No engine has this id."""


class NoEnginesRegistered(KernelError):
    """A command for all engines, and there are none."""


class QueueCleared(KernelError):
    """A command left an engine's queue without being run."""


class NotDefined(KernelError):
    """A name that is not in the namespace of an engine."""


class IdInUse(KernelError):
    """An engine id that another engine has."""


class InvalidClientID(KernelError):
    """No client has this id."""


class InvalidDeferredID(KernelError):
    """A pending result that was flushed, or never existed."""


class NotAPendingResult(KernelError):
    """Something else where a PendingResult was expected."""


class ResultNotCompleted(KernelError, TimeoutError):
    """The result is not there yet."""


class ResultAlreadyRetrieved(KernelError):
    """The result was handed out before."""


class AbortedPendingDeferredError(KernelError):
    """A pending result was deleted while somebody waited for it."""


class SerializationError(KernelError):
    """An object that cannot be sent; the message says which one, and why."""


class UnpickleableException(KernelError):
    """A remote exception whose class cannot be rebuilt here; the text says what it was."""


class InvalidProperty(KernelError):
    """An engine property that cannot be stored."""


class MissingBlockArgument(KernelError):
    """A call without the ``block`` argument that it needs."""


class MessageSizeError(KernelError):
    """A message larger than the limits allow."""


class ClientError(KernelError):
    """A client used in a way that cannot work."""


class FileTimeoutError(KernelError):
    """A file that should have appeared did not."""


class StopLocalExecution(KernelError):
    """Raised by ``remote()``: the body of the with-statement runs on the engines."""


class Backpressure(KernelError):
    """Too much is queued already; wait for results before sending more."""


class TaskAborted(KernelError):
    """The task was aborted before it had a result."""


class TaskTimeout(KernelError):
    """The task could not be started in time."""


class TaskRejectError(KernelError):
    """Raised by a task to say: not on this engine."""


class DependencyError(KernelError):
    """A task was not run, since a task that it waited for has failed, was cancelled, or cannot be found."""


class PeerError(KernelError):
    """Another rank of the same task has failed, so what this rank waits for will not come."""


class InternalError(KernelError):
    """Something in ipmpi went wrong that nobody foresaw. What it concerned has ended, the rest goes on."""


def internal_error(cause: BaseException, where: str = "") -> InternalError:
    """The error for whoever has to hear of an exception that nobody foresaw."""
    place = f" {where}" if where else ""
    said = f"{type(cause).__name__}: {cause}"[:500]
    error = InternalError(f"an error in ipmpi{place} that was not foreseen ({said}); please report this")
    error.__cause__ = cause
    return error


ErrorEntry = tuple[type[BaseException], BaseException, TracebackType | None]


class CompositeError(KernelError):
    """One or more engines raised: which, what, and their tracebacks.

    Attributes:
        message: what was called.
        elist: one ``(type, value, traceback)`` per failure, in the order of the engines. A value that came
            from an engine carries ``_ipython_engine_info`` (``{'engineid', 'method', 'args'}``) and
            ``_ipython_traceback_text`` (the engine's own formatted traceback).
    """

    def __init__(self, message: str, elist: Sequence[ErrorEntry]) -> None:
        super().__init__(message, elist)
        self.message = message
        self.elist: list[ErrorEntry] = []
        for entry in elist:
            value = entry[1]
            self.elist.extend(value.elist if isinstance(value, CompositeError) else [entry])

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message, [(t, v, None) for t, v, _ in self.elist]))

    @staticmethod
    def _label(value: BaseException) -> str:
        info = getattr(value, "_ipython_engine_info", None)
        return f"[{info['engineid']}:{info['method']}]: " if info else "[Engine Exception]"

    def __str__(self) -> str:
        lines = [f"{self._label(value)}{kind.__name__}: {value}" for kind, value, _ in self.elist]
        return "\n".join([self.message, *lines])

    def _entry(self, excid: int) -> ErrorEntry:
        try:
            return self.elist[excid]
        except IndexError:
            raise IndexError(f"an exception with index {excid} does not exist") from None

    def print_tracebacks(self, excid: int | None = None) -> None:
        """Print the engines' tracebacks: of failure number ``excid``, or of all."""
        for kind, value, _ in self.elist if excid is None else [self._entry(excid)]:
            text = getattr(value, "_ipython_traceback_text", None) or f"{kind.__name__}: {value}"
            print(f"{self._label(value)}\n{text}", file=sys.stdout)

    def raise_exception(self, excid: int = 0) -> None:
        """Raise failure number ``excid`` as the exception it was on the engine."""
        _, value, traceback = self._entry(excid)
        raise value.with_traceback(traceback)
