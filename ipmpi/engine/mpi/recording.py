"""What the calls of polled communicators write into the ring of MPI calls (mpi4py.MPI is an argument)."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ...errors import PeerError
from ...protocol.mpicalls import ANY, NOBODY
from ..rank.callring import NONE, CallRing
from .derived import LOST
from .polling import Watch

Method = Callable[..., Any]

_FIRST, _SECOND = ("sendbuf", 0), ("recvbuf", 1)
_BUF = ("buf", 0)
_Place = tuple[str, int]
"""An argument: its name and its position."""

_BUFFERS: dict[str, Sequence[_Place]] = {
    "Bcast": (_BUF,),
    "Scatter": (_SECOND,),
    **dict.fromkeys(("Gather", "Allgather", "Alltoall"), (_FIRST,)),
    **dict.fromkeys(("Reduce", "Allreduce", "Scan", "Exscan"), (_FIRST, _SECOND)),
    **dict.fromkeys(("Send", "Ssend", "Rsend", "Bsend", "Isend", "Issend", "Irsend", "Ibsend"), (_BUF,)),
    **dict.fromkeys(("Recv", "Irecv"), (_BUF,)),
}
"""The buffer whose count is the same at all ranks, and one that tells it where the first is MPI.IN_PLACE.

Not the calls with a v, nor Reduce_scatter: there each rank may have a count of its own.
"""
_BUFFERS |= {f"I{name.lower()}": places for name, places in _BUFFERS.items() if name[0] != "I"}

_ROOTS: dict[str, _Place] = {
    **dict.fromkeys(("Bcast", "Ibcast", "bcast", "gather", "scatter"), ("root", 1)),
    **dict.fromkeys(("Gather", "Gatherv", "Scatter", "Scatterv"), ("root", 2)),
    **dict.fromkeys(("Igather", "Igatherv", "Iscatter", "Iscatterv", "reduce"), ("root", 2)),
    **dict.fromkeys(("Reduce", "Ireduce"), ("root", 3)),
}

_SENDS = ("send", "ssend", "bsend", "isend", "issend", "ibsend", "Send", "Ssend", "Rsend", "Bsend")
_PEERS: dict[str, tuple[_Place, _Place, int]] = {
    **dict.fromkeys((*_SENDS, "Isend", "Issend", "Irsend", "Ibsend"), (("dest", 1), ("tag", 2), 0)),
    **dict.fromkeys(("Recv", "recv", "Irecv", "irecv"), (("source", 1), ("tag", 2), ANY)),
    **dict.fromkeys(("Probe", "probe", "Mprobe", "mprobe"), (("source", 0), ("tag", 1), ANY)),
    **dict.fromkeys(("Sendrecv", "sendrecv"), (("source", 4), ("recvtag", 5), ANY)),
    "Sendrecv_replace": (("source", 3), ("recvtag", 4), ANY),
}
"""Where the other rank and the tag of a message are, and what they are if they are not given.

Of two messages it is the one that is received.
"""

_TOLD = 1.0
"""Seconds in which the agent tells that a rank has ended, after MPI has noticed."""

Described = tuple[int, str, int, int, int]
"""Count, type, root, peer and tag."""
_NOTHING: Described = (NONE, "", NONE, NONE, NONE)


class Begun(NamedTuple):
    """The call that has made a request: its name, communicator, and number there, and what it was given."""

    name: str
    label: str
    number: int
    described: Described


_UNKNOWN = Begun("", "", 0, _NOTHING)


class Recorder:
    """Puts the calls of communicators into a ring.

    Calls inside of a call are not recorded: user code has made the outer one only.
    """

    def __init__(self, mpi: Any, ring: CallRing, watch: Watch) -> None:
        self._mpi = mpi
        self._ring = ring
        self._watch = watch
        names = ("ERR_PROC_FAILED", "ERR_PROC_FAILED_PENDING", "ERR_REVOKED", "ERR_OTHER")
        self._of_a_death = {getattr(mpi, name) for name in names if hasattr(mpi, name)}
        self._inside = False
        self._numbers = {mpi.ANY_SOURCE: ANY, mpi.ANY_TAG: ANY, mpi.PROC_NULL: NOBODY}
        self._types: dict[Any, str] = {}

    def recorded(self, name: str, method: Method, collective: bool = False, starts: bool = False) -> Method:
        """Return a method of communicators that records its calls.

        Args:
            name: its name in mpi4py.
            method: the method that does the work.
            collective: whether it counts in ``comm.collectives``.
            starts: whether it returns a request, which learns what it is part of.
        """
        ring, describe = self._ring, self._describer(name)
        getframe = sys._getframe

        @functools.wraps(method)
        def call(comm: Any, *args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return method(comm, *args, **kwargs)
            self._inside = True
            try:
                number = comm.collectives + 1 if collective else 0
                described = describe(args, kwargs)
                at = ring.entered(name, comm.label, number, *described, frame=getframe(1))
                try:
                    result = method(comm, *args, **kwargs)
                except self._mpi.Exception as error:
                    self._explain(comm, error)
                    raise
                finally:
                    ring.left(at)
                if starts:
                    result.begun = Begun(name, comm.label, number, described)
                return result
            finally:
                self._inside = False

        return call

    def _explain(self, comm: Any, error: Any) -> None:
        """Raise PeerError if an error of MPI comes from the end of another rank, of which the agent soon tells."""
        if comm.is_lost:
            raise PeerError(LOST) from error
        end = time.monotonic() + (_TOLD if error.Get_error_class() in self._of_a_death else 0.0)
        while time.monotonic() < end:
            try:
                self._watch.look()
            except PeerError as failure:
                raise failure from error
            time.sleep(0.01)

    def recorded_wait(self, name: str, method: Method) -> Method:
        """Return a method of requests that records how long it waits. A class method has a list of requests."""
        ring = self._ring
        getframe = sys._getframe

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return method(*args, **kwargs)
            self._inside = True
            try:
                of = args[0] if args else None
                first = next((one for one in of if one), None) if isinstance(of, list | tuple) else of
                begun: Begun = getattr(first, "begun", None) or _UNKNOWN
                shown = f"{name} ({begun.name})" if begun.name else name
                at = ring.entered(shown, begun.label, begun.number, *begun.described, frame=getframe(1))
                try:
                    return method(*args, **kwargs)
                finally:
                    ring.left(at)
            finally:
                self._inside = False

        return call

    def _describer(self, name: str) -> Callable[[tuple[Any, ...], dict[str, Any]], Described]:
        buffers, root, peer = _BUFFERS.get(name, ()), _ROOTS.get(name), _PEERS.get(name)
        if not buffers and root is None and peer is None:
            return lambda args, kwargs: _NOTHING
        numbers, in_place = self._numbers, type(self._mpi.IN_PLACE)

        def describe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Described:
            count, kind = NONE, ""
            for place in buffers:
                buffer = _argument(args, kwargs, place, None)
                if buffer is not None and type(buffer) is not in_place:
                    count, kind = self._measure(buffer)
                    break
            at_root = NONE if root is None else _number(_argument(args, kwargs, root, 0))
            if peer is None:
                return count, kind, at_root, NONE, NONE
            other = _number(_argument(args, kwargs, peer[0], ANY))
            tag = _number(_argument(args, kwargs, peer[1], peer[2]))
            return count, kind, at_root, numbers.get(other, other), numbers.get(tag, tag)

        return describe

    def _measure(self, buffer: Any) -> tuple[int, str]:
        """Return items and their type, as far as they can be told quickly."""
        try:
            if type(buffer) in (list, tuple):
                return self._measure_specified(buffer)
            kind = buffer.dtype  # numpy, and arrays on GPUs
            name = self._types.get(kind)
            if name is None:
                name = self._types[kind] = str(kind)
            return buffer.size, name
        except Exception:
            pass  # user code may have any object here
        try:
            view = memoryview(buffer)
            return view.nbytes // view.itemsize, view.format
        except Exception:
            return NONE, ""

    def _measure_specified(self, buffer: Sequence[Any]) -> tuple[int, str]:
        """Return the same of ``[data, type]`` and ``[data, count, type]``."""
        last = buffer[-1]
        name = last if isinstance(last, str) else str(last.Get_name())
        if len(buffer) == 3 and isinstance(buffer[1], int):
            return buffer[1], name
        return (self._measure(buffer[0])[0] if len(buffer) == 2 else NONE), name


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: _Place, default: Any) -> Any:
    name, position = place
    return args[position] if len(args) > position else kwargs.get(name, default)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else NONE
