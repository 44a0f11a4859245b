"""Requests and messages of MPI whose waits poll, and the cleanup of open requests.

A rank that leaves a task may leave open requests: a posted receive, a collective that others never entered. MPI
may still write to their buffers. So requests and buffers are kept until they have completed, if necessary forever.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from .polling import Watch
from .recording import Recorder

_STUCK_PER_SWEEP = 16
"""Number of requests to test per sweep, of those that may never complete."""
_MANY = 256
"""Number of dropped requests in one task from which on they are tested."""


class Requests:
    """The requests of one rank's gang tasks: waits for them, and keeps those that are left open."""

    def __init__(self, mpi: Any, watch: Watch, recorder: Recorder | None = None) -> None:
        self.mpi = mpi
        self.watch = watch
        self.recorder = recorder
        self._dropped: deque[tuple[Any, bool, Any]] = deque()
        self._stuck: deque[tuple[Any, Any]] = deque()
        self._many = _MANY
        self._given: list[weakref.ref[Any]] = []
        self._many_given = _MANY
        self.plain = _request_class(self, mpi.Request)
        self.persistent = _request_class(self, mpi.Prequest)
        self.message = _message_class(self)

    def wrap(self, request: Any, uses: Any, receives: bool = False) -> Any:
        """Return a request whose Wait polls. ``uses``: its buffers, as mpi4py does not keep all."""
        kind = self.persistent if isinstance(request, self.mpi.Prequest) else self.plain
        wrapped = kind(request)
        wrapped.uses, wrapped.receives = uses, receives
        if len(self._dropped) > self._many:
            self._forget_completed()
        self._given.append(weakref.ref(wrapped))
        if len(self._given) > self._many_given:
            self._given = [one for one in self._given if one()]
            self._many_given = 2 * len(self._given) + _MANY
        return wrapped

    def settle(self, request: Any, uses: Any, status: Any = None, receives: bool = False) -> None:
        """Wait for a request of our own."""
        try:
            self.watch.wait(request.Test if status is None else lambda: request.Test(status))
        except BaseException:
            self.drop(request, uses, receives)
            raise

    def settle_object(self, request: Any, status: Any = None, receives: bool = False) -> Any:
        """Wait for a pickled object."""
        try:
            return self.watch.wait(lambda: (answer := request.test(status))[0] and answer)[1]
        except BaseException:
            self.drop(request, None, receives)
            raise

    def drop(self, request: Any, uses: Any, receives: bool) -> None:
        """Keep a request that was dropped; may be called from any thread, as by the garbage collector."""
        if request:
            self._dropped.append((request, receives, uses))

    def _forget_completed(self) -> None:
        """Remove completed requests, for tasks that never wait for their sends."""
        for _ in range(len(self._dropped)):
            request, receives, uses = self._dropped.popleft()
            with contextlib.suppress(self.mpi.Exception):
                request.Test()
            self.drop(request, uses, receives)
        self._many = 2 * len(self._dropped) + _MANY

    def sweep(self) -> bool:
        """Remove completed requests, and cancel receives without a message.

        Returns:
            Whether requests of the ended task are still open.
        """
        is_open = any(self._is_open(one()) for one in self._given)
        self._given.clear()
        stuck = len(self._stuck)
        while self._dropped:
            request, receives, uses = self._dropped.popleft()
            with contextlib.suppress(self.mpi.Exception):
                if receives:
                    request.Cancel()
            self._keep(request, uses)
        is_open = is_open or len(self._stuck) > stuck
        for _ in range(min(len(self._stuck), _STUCK_PER_SWEEP)):
            self._keep(*self._stuck.popleft())
        return is_open

    def _is_open(self, request: Any) -> bool:
        """Return whether user code still has this request, and MPI may complete it later."""
        if not isinstance(request, self.mpi.Prequest):
            return bool(request)
        with contextlib.suppress(self.mpi.Exception):
            return not (not request or self.mpi.Request.Test(request))
        return True

    def _keep(self, request: Any, uses: Any) -> None:
        with contextlib.suppress(self.mpi.Exception):
            if request.Test():
                return
        if request:
            self._stuck.append((request, uses))


def _request_class(requests: Requests, base: Any) -> Any:
    """Return a subclass of mpi4py's Request or Prequest that polls instead of waiting."""
    watch = requests.watch
    members: dict[str, Any] = {"__doc__": base.__doc__, "__module__": __name__, "uses": None, "receives": False}
    members["begun"] = None  # see Recorder

    def looking(name: str) -> None:
        """Add a test: the original call, after a check of the flag."""
        plain = getattr(base, name)

        @functools.wraps(plain)
        def call(*args: Any, **kwargs: Any) -> Any:
            watch.look()
            return plain(*args, **kwargs)

        bound = getattr(plain, "__self__", None) is not None
        members[name] = staticmethod(call) if bound else call

    def waiting(name: str, question: str, answer: Callable[[Any], Any], is_there: Callable[[Any], Any]) -> None:
        """Add a wait: call ``question`` until ``is_there``, and return the part ``answer`` of its value."""
        plain = getattr(base, name)
        ask = getattr(base, question)

        @functools.wraps(plain)
        def call(*args: Any, **kwargs: Any) -> Any:
            watch.look()
            found: Any = watch.wait(lambda: (said,) if is_there(said := ask(*args, **kwargs)) else None)
            return answer(found[0])

        recorded = call if requests.recorder is None else requests.recorder.recorded_wait(name, call)
        bound = getattr(plain, "__self__", None) is not None
        members[name] = staticmethod(recorded) if bound else recorded

    for name in ("Test", "Testany", "Testall", "Testsome", "test", "testany", "testall", "testsome"):
        looking(name)
    waiting("Wait", "Test", bool, bool)
    waiting("Waitall", "Testall", bool, bool)
    waiting("Waitany", "Testany", lambda said: said[0], lambda said: said[1])
    waiting("Waitsome", "Testsome", lambda said: said, lambda said: said is None or len(said))
    waiting("wait", "test", lambda said: said[1], lambda said: said[0])
    waiting("waitall", "testall", lambda said: said[1], lambda said: said[0])
    waiting("waitany", "testany", lambda said: (said[0], said[2]), lambda said: said[1])
    waiting("waitsome", "testsome", lambda said: said, lambda said: said[0] is None or len(said[0]))

    def collected(self: Any) -> None:
        # The buffers must outlive the request: MPI still accesses them.
        if self:
            requests.drop(base(self), self.uses, self.receives)

    members["__del__"] = collected
    return type(base.__name__, (base,), members)


def _message_class(requests: Requests) -> Any:
    """Return a subclass of mpi4py's Message: receiving a large one still needs its sender."""
    base: Any = requests.mpi.Message

    class Message(base):  # type: ignore[misc, valid-type, unused-ignore]
        __doc__ = base.__doc__

        def Recv(self, buf: Any, status: Any = None) -> None:
            requests.watch.look()
            requests.settle(base.Irecv(self, buf), buf, status)

        def Irecv(self, buf: Any) -> Any:
            return requests.wrap(base.Irecv(self, buf), buf)

        def recv(self, status: Any = None) -> Any:
            requests.watch.look()
            return requests.settle_object(base.irecv(self), status)

        def irecv(self) -> Any:
            return requests.wrap(base.irecv(self), None)

    return Message
