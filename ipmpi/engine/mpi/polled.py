"""Subclasses of mpi4py's communicators whose calls poll instead of blocking.

Each blocking call starts its nonblocking counterpart and tests it repeatedly. Calls without one (Split, Dup,
Create_cart, ...) are made after a polled barrier of all ranks. Not replaced are: Create_group, Create_intercomm
and dynamic processes; windows and files; pickled collectives between groups; and the class methods of
``MPI.Request``: ``comm.Request.Waitall(requests)`` polls, ``MPI.Request.Waitall(requests)`` does not.

mpi4py.MPI is an argument, since importing it ends the process where there is no MPI.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .pickled import ObjectCollectives
from .polling import ASKS
from .requests import Requests

_NEIGHBORS = ("Neighbor_allgather", "Neighbor_allgatherv", "Neighbor_alltoall", "Neighbor_alltoallv")
_COLLECTIVES = (
    *("Barrier", "Bcast", "Gather", "Gatherv", "Scatter", "Scatterv", "Allgather", "Allgatherv", "Alltoall"),
    *("Alltoallv", "Alltoallw", "Reduce", "Allreduce", "Reduce_scatter", "Reduce_scatter_block", "Scan", "Exscan"),
    *_NEIGHBORS,
    "Neighbor_alltoallw",
)
_COLLECTIVE_TWINS = {name: f"I{name.lower()}" for name in _COLLECTIVES}
_SEND_TWINS = {name: f"I{name.lower()}" for name in ("Send", "Ssend", "Rsend")}
_SEND_TWINS |= {"send": "isend", "ssend": "issend"}
"""Blocking call -> the nonblocking one with the same arguments. Bsend and bsend do not block."""
_STARTS = (
    *_SEND_TWINS.values(),
    *("Ibsend", "Isendrecv", "Isendrecv_replace", "ibsend"),
    *("Send_init", "Ssend_init", "Bsend_init", "Rsend_init", "Psend_init"),
    *(f"{name}_init" for name in _COLLECTIVES),
)
_RECEIVES = ("Irecv", "irecv", "Recv_init", "Precv_init")
_LOOKS = ("Iprobe", "iprobe")
_PROBES = {"Probe": "Iprobe", "probe": "iprobe", "Mprobe": "Improbe", "mprobe": "improbe"}
_CREATES = (
    *("Dup", "Dup_with_info", "Clone", "Create", "Split", "Split_type", "Sub", "Merge"),
    *("Create_cart", "Create_graph", "Create_dist_graph", "Create_dist_graph_adjacent"),
)
_SAME_RANKS = ("Dup", "Idup")
_COPIES = ("Dup", "Dup_with_info", "Clone")
_CREATES_ALONE = ("Create_group", "Create_intercomm")


class PolledCommunicators:
    """Makes the polled subclasses of mpi4py's communicators, once per rank."""

    def __init__(self, mpi: Any, requests: Requests) -> None:
        self._mpi = mpi
        self._requests = requests
        self._recorder = requests.recorder
        self._hidden_key: int | None = None
        self._itself: Any = None
        self.kept_handles: set[int] = set()
        self.attributes: dict[int, set[int]] = {}
        """Attribute keys that user code has set on a communicator that is reused."""
        self.on_made: Callable[[Any], None] = lambda comm: None
        """Called with each communicator that user code has made of a labelled one."""
        self.hinted: set[int] = set()
        """Communicators that got an Info object, which MPI cannot remove."""
        self._collectives = ObjectCollectives(mpi, self._hidden)
        # The order matters: a Cartcomm is a Topocomm is an Intracomm.
        bases = (mpi.Cartcomm, mpi.Graphcomm, mpi.Distgraphcomm, mpi.Topocomm, mpi.Intracomm, mpi.Intercomm)
        self._classes = [(base, type(base.__name__, (base,), self._members(base))) for base in bases]

    def wrap(self, comm: Any, label: str = "") -> Any:
        """The same communicator as an instance of its polled class; ``label`` is its name in records of calls."""
        kinds = (polled for base, polled in self._classes if comm and isinstance(comm, base))
        polled = next(kinds, None)
        if polled is None:
            return comm
        wrapped = polled(comm)
        wrapped.label = label
        return wrapped

    def _hidden(self, comm: Any) -> Any:
        """Return a duplicate for messages that user code must not see. Collective, the first time."""
        if self._hidden_key is None:

            def free(_comm: Any, _key: int, hidden: Any) -> None:
                self._mpi.Comm.Free(hidden)

            self._hidden_key = self._mpi.Comm.Create_keyval(None, free)
        hidden = comm.Get_attr(self._hidden_key)
        if hidden is None:
            hidden = comm.Dup()  # a polled one, which others can end and which leaves the interpreter to others
            self._mpi.Comm.Set_attr(comm, self._hidden_key, hidden)
        return hidden

    def hidden_of(self, comm: Any) -> Any:
        """Return the duplicate that :meth:`_hidden` made, or None."""
        return None if self._hidden_key is None else comm.Get_attr(self._hidden_key)

    def _members(self, base: Any) -> dict[str, Any]:
        """Return the methods of a polled class by name."""
        members: dict[str, Any] = {
            "__doc__": base.__doc__,
            "__module__": __name__,
            "Request": self._requests.plain,
            "collectives": 0,  # how many were begun here
            "label": "",
            "is_lost": False,
        }

        def put(names: Any, make: Callable[..., Callable[..., Any]]) -> None:
            for name in names:
                plain = getattr(base, name, None)
                if plain is not None:
                    twin = getattr(base, names[name]) if isinstance(names, dict) else plain
                    members[name] = functools.wraps(plain)(make(twin))

        put(_COLLECTIVE_TWINS, functools.partial(self._blocking, collective=True))
        put(_SEND_TWINS, self._blocking)
        put(tuple(_COLLECTIVE_TWINS.values()), functools.partial(self._starting, collective=True))
        put(_STARTS, self._starting)
        put(_RECEIVES, functools.partial(self._starting, receives=True))
        put(_LOOKS, self._looking)
        put(("Improbe", "improbe"), self._matching)
        put(_PROBES, self._probing)
        for name in (*_CREATES, *_CREATES_ALONE):
            put((name,), functools.partial(self._creating, name))
        if base is not self._mpi.Intercomm:
            put(_COPIES, self._copying)
        put(("Recv",), self._receiving)
        put(("recv",), self._receiving_objects)
        put(("Sendrecv",), self._exchanging)
        put(("sendrecv",), self._exchanging_objects)
        put(("Sendrecv_replace",), self._replacing)
        put(("Idup", "Idup_with_info"), self._duplicating)
        put(("Free", "Disconnect"), self._freeing)
        put(("Set_attr",), self._attaching)
        put(("Set_info",), self._hinting)
        if base is not self._mpi.Intercomm:
            for name in ObjectCollectives.NAMES:
                put((name,), functools.partial(self._collective, name))
        if self._recorder is not None:
            self._record(members)
        return members

    def _record(self, members: dict[str, Any]) -> None:
        """Have these methods record their calls, which is all that they share: so it is done last."""
        assert self._recorder is not None
        collectives = {*_COLLECTIVE_TWINS, *_CREATES, *ObjectCollectives.NAMES}
        starts = {*_COLLECTIVE_TWINS.values(), *_STARTS, *_RECEIVES}
        waits = {
            *_SEND_TWINS,
            *_PROBES,
            *_CREATES_ALONE,
            "Recv",
            "recv",
            "Sendrecv",
            "sendrecv",
            "Sendrecv_replace",
        }
        for name in (collectives | starts | waits) & members.keys():
            collective = name in collectives or name in _COLLECTIVE_TWINS.values()
            members[name] = self._recorder.recorded(name, members[name], collective, name in starts)

    # --- makers of methods ---------------------------------------------------------------------------------

    def _blocking(self, twin: Any, collective: bool = False) -> Callable[..., None]:
        look, wait, drop = self._requests.watch.look, self._requests.watch.wait, self._requests.drop

        # As Requests.settle, but in one function and with the first tests here: all ranks of a small collective
        # wait for the slowest.
        def call(comm: Any, *args: Any, **kwargs: Any) -> None:
            look()
            if collective:
                comm.collectives += 1
            request = twin(comm, *args, **kwargs)
            try:
                ask = request.Test
                for _ in ASKS:
                    if ask():
                        return
                wait(ask)
            except BaseException:
                drop(request, (args, kwargs), False)
                raise

        return call

    def _starting(self, plain: Any, receives: bool = False, collective: bool = False) -> Callable[..., Any]:
        requests = self._requests

        def call(comm: Any, *args: Any, **kwargs: Any) -> Any:
            requests.watch.look()
            if collective:
                comm.collectives += 1
            return requests.wrap(plain(comm, *args, **kwargs), (args, kwargs), receives)

        return call

    def _looking(self, plain: Any) -> Callable[..., Any]:
        look = self._requests.watch.look

        def call(comm: Any, *args: Any, **kwargs: Any) -> Any:
            look()
            return plain(comm, *args, **kwargs)

        return call

    def _matching(self, plain: Any) -> Callable[..., Any]:
        requests = self._requests

        def call(comm: Any, *args: Any, **kwargs: Any) -> Any:
            requests.watch.look()
            message = plain(comm, *args, **kwargs)
            return None if message is None else requests.message(message)

        return call

    def _probing(self, twin: Any) -> Callable[..., Any]:
        requests = self._requests

        def call(comm: Any, *args: Any, **kwargs: Any) -> Any:
            requests.watch.look()
            found = requests.watch.wait(lambda: twin(comm, *args, **kwargs))
            return requests.message(found) if isinstance(found, self._mpi.Message) else found

        return call

    def _creating(self, name: str, plain: Any) -> Callable[..., Any]:
        """MPI has no nonblocking Split etc.: enter it once all ranks have arrived, so that it is short."""
        watch, together = self._requests.watch, name in _CREATES

        def call(comm: Any, *args: Any, **kwargs: Any) -> Any:
            watch.look()
            interrupt = None
            if together:
                comm.collectives += 1
                arrived = self._mpi.Comm.Ibarrier(comm)
                try:
                    interrupt = watch.wait_for_all(arrived.Test)
                except BaseException:
                    self._requests.drop(arrived, None, receives=False)
                    raise
            created = self.wrap(plain(comm, *args, **kwargs))
            self._name(created, comm, name)
            if interrupt is not None:
                raise interrupt
            return created

        return call

    def _copying(self, _plain: Any) -> Callable[..., Any]:
        """Dup and the like, without a call that others must enter at the same time."""
        requests, twin, with_info = self._requests, self._mpi.Comm.Idup, self._mpi.Comm.Idup_with_info

        def call(comm: Any, info: Any = None) -> Any:
            requests.watch.look()
            comm.collectives += 1
            created, request = twin(comm) if info is None else with_info(comm, info)
            requests.settle(request, created)
            self._name(created, comm, "Dup")
            return created

        return call

    def _name(self, created: Any, parent: Any, method: str) -> None:
        """Give a communicator the same label at all its ranks, and no other communicator that label."""
        if not created or not parent.label:
            return
        number = "" if method in _CREATES_ALONE else f"#{parent.collectives}"
        created.label = f"{parent.label}.{method}{number}"
        if method not in _SAME_RANKS and not created.Is_inter() and not parent.Is_inter():
            mine, theirs = created.Get_group(), parent.Get_group()
            created.label += f"@{mine.Translate_ranks([0], theirs)[0]}"
            mine.Free()
            theirs.Free()
        self.on_made(created)

    def _duplicating(self, plain: Any) -> Callable[..., Any]:
        requests = self._requests

        def call(comm: Any, *args: Any, **kwargs: Any) -> Any:
            requests.watch.look()
            comm.collectives += 1
            created, request = plain(comm, *args, **kwargs)
            self._name(created, comm, "Idup")
            return created, requests.wrap(request, created)

        return call

    def _freeing(self, plain: Any) -> Callable[..., None]:
        """Ignore the freeing of the task's own communicator, which the next task on these ranks reuses."""

        def call(comm: Any) -> None:
            if comm.handle not in self.kept_handles:
                plain(comm)

        return call

    def _attaching(self, plain: Any) -> Callable[..., None]:
        def call(comm: Any, keyval: int, attrval: Any) -> None:
            plain(comm, keyval, attrval)
            if comm.handle in self.kept_handles:
                self.attributes.setdefault(comm.handle, set()).add(keyval)

        return call

    def _hinting(self, plain: Any) -> Callable[..., None]:
        def call(comm: Any, info: Any) -> None:
            if comm.handle in self.kept_handles:
                self.hinted.add(comm.handle)
            plain(comm, info)

        return call

    def _collective(self, name: str, _plain: Any) -> Callable[..., Any]:
        act = getattr(self._collectives, name)

        def call(comm: Any, *args: Any, **kwargs: Any) -> Any:
            comm.collectives += 1
            return act(comm, *args, **kwargs)

        return call

    def _exchanging(self, _plain: Any) -> Callable[..., None]:
        requests, plain, any_tag = self._requests, self._mpi.Comm, self._mpi.ANY_TAG

        def call(
            comm: Any,
            sendbuf: Any,
            dest: int,
            sendtag: int = 0,
            recvbuf: Any = None,
            source: int = self._mpi.ANY_SOURCE,
            recvtag: int = any_tag,
            status: Any = None,
        ) -> None:
            requests.watch.look()
            receive = plain.Irecv(comm, recvbuf, source, recvtag)
            try:
                send = plain.Isend(comm, sendbuf, dest, sendtag)
                requests.settle(send, sendbuf)
            except BaseException:
                requests.drop(receive, recvbuf, receives=True)
                raise
            requests.settle(receive, recvbuf, status, receives=True)

        return call

    def _exchanging_objects(self, _plain: Any) -> Callable[..., Any]:
        requests, plain, any_tag = self._requests, self._mpi.Comm, self._mpi.ANY_TAG

        def call(
            comm: Any,
            sendobj: Any,
            dest: int,
            sendtag: int = 0,
            recvbuf: Any = None,
            source: int = self._mpi.ANY_SOURCE,
            recvtag: int = any_tag,
            status: Any = None,
        ) -> Any:
            requests.watch.look()
            send = plain.isend(comm, sendobj, dest, sendtag)
            try:
                received = comm.recv(recvbuf, source, recvtag, status)
            except BaseException:
                requests.drop(send, None, receives=False)
                raise
            requests.settle(send, None)
            return received

        return call

    def _replacing(self, _plain: Any) -> Callable[..., None]:
        """Receive into our own memory, and copy it into place when the old contents have been sent.

        Only MPI can interpret a buffer (count, datatype, offset), so the copy is a message to this rank itself.
        """
        requests, plain, mpi = self._requests, self._mpi.Comm, self._mpi

        def call(
            comm: Any,
            buf: Any,
            dest: int,
            sendtag: int = 0,
            source: int = mpi.ANY_SOURCE,
            recvtag: int = mpi.ANY_TAG,
            status: Any = None,
        ) -> None:
            requests.watch.look()
            status = mpi.Status() if status is None else status
            send = plain.Isend(comm, buf, dest, sendtag)
            try:
                message = requests.watch.wait(lambda: plain.Improbe(comm, source, recvtag, status))
                arrived = bytearray(status.Get_count(mpi.BYTE))
                requests.settle(message.Irecv([arrived, mpi.PACKED]), arrived, status)
            except BaseException:
                requests.drop(send, buf, receives=False)
                raise
            requests.settle(send, buf)
            if status.Get_source() != mpi.PROC_NULL:
                self._itself = self._itself or mpi.COMM_SELF.Dup()
                self._itself.Sendrecv([arrived, mpi.PACKED], 0, 0, buf, 0, 0)

        return call

    def _receiving(self, _plain: Any) -> Callable[..., None]:
        requests, start, every = self._requests, self._mpi.Comm.Irecv, self._mpi.ANY_SOURCE
        any_tag = self._mpi.ANY_TAG

        def call(comm: Any, buf: Any, source: int = every, tag: int = any_tag, status: Any = None) -> None:
            requests.watch.look()
            requests.settle(start(comm, buf, source, tag), buf, status, receives=True)

        return call

    def _receiving_objects(self, _plain: Any) -> Callable[..., Any]:
        requests, plain, every = self._requests, self._mpi.Comm, self._mpi.ANY_SOURCE
        any_tag = self._mpi.ANY_TAG

        def call(comm: Any, buf: Any = None, source: int = every, tag: int = any_tag, status: Any = None) -> Any:
            requests.watch.look()
            if buf is not None:
                return requests.settle_object(plain.irecv(comm, buf, source, tag), status, receives=True)
            # Only the message itself tells its length.
            message = requests.watch.wait(lambda: plain.improbe(comm, source, tag))
            return requests.settle_object(message.irecv(), status)

        return call
