"""Collectives of Python objects, over the polled calls of :mod:`ipmpi.engine.mpi.comm`.

mpi4py's own pickled collectives block. These do the same with pickles and the upper-case calls, which do not. What
they give back is mpi4py's: fresh copies, also of what a rank sent to itself, and reductions that combine in the
same order. Small objects travel in slots of fixed size, so that most calls take one collective, not two.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

_SLOT = 256
"""Bytes per rank in which an object travels at once; the first eight say how long its pickle is."""
_SLOTS = 256
"""Ranks up to which slots are used: among more, small objects would make large messages."""
_BCAST_SLOT = 1024
_LENGTH = struct.Struct("=q")
_BCAST_HEAD = struct.Struct("=qq")

Operation = Callable[[Any, Any], Any]


def fold(items: list[Any], combine: Operation) -> Any:
    """Combine neighbours, then neighbours of these: the order in which a binomial tree does it."""
    items = list(items)
    step = 1
    while step < len(items):
        for at in range(0, len(items) - step, 2 * step):
            items[at] = combine(items[at], items[at + step])
        step *= 2
    return items[0]


def fold_up_to(items: list[Any], combine: Operation) -> Any:
    """Combine all items as the last of that many ranks does in a scan by recursive doubling."""
    end = len(items) - 1
    result = items[end]
    step = 1
    while end:
        if end & step:
            end -= step
            result = combine(fold(items[end : end + step], combine), result)
        step *= 2
    return result


class ObjectCollectives:
    """The lower-case collectives; each takes the communicator, then what mpi4py's method takes."""

    NAMES = (
        *("barrier", "bcast", "gather", "scatter", "allgather", "alltoall"),
        *("reduce", "allreduce", "scan", "exscan", "neighbor_allgather", "neighbor_alltoall"),
    )

    def __init__(self, mpi: Any, hidden: Callable[[Any], Any]) -> None:
        self._byte = mpi.BYTE
        self._length = mpi.INT64_T
        self._sum = mpi.SUM
        self._pickle = mpi.pickle
        self._allocate = mpi.buffer.allocate
        self._hidden = hidden

    def barrier(self, comm: Any) -> None:
        """Wait until all ranks are here."""
        comm.Barrier()

    def bcast(self, comm: Any, obj: Any, root: int = 0) -> Any:
        """The root's object. Large buffers, such as NumPy arrays, travel as they are, outside the pickle."""
        is_root = comm.Get_rank() == root
        slot = bytearray(_BCAST_SLOT)
        room = _BCAST_SLOT - _BCAST_HEAD.size
        data: Any = b""
        buffers: list[Any] = []
        if is_root:
            data, buffers = self._pickle.dumps_oob(obj)
            buffers = [memoryview(buffer) for buffer in buffers]
            lengths = array("q", [buffer.nbytes for buffer in buffers])
            data = b"".join((lengths.tobytes(), data)) if buffers else data
            _BCAST_HEAD.pack_into(slot, 0, len(data), len(buffers))
            if len(data) <= room:
                slot[_BCAST_HEAD.size : _BCAST_HEAD.size + len(data)] = data
        comm.Bcast([slot, self._byte], root)
        length, count = _BCAST_HEAD.unpack_from(slot)
        if length > room:
            data = data if is_root else self._allocate(length)
            comm.Bcast([data, self._byte], root)
        else:
            data = memoryview(slot)[_BCAST_HEAD.size : _BCAST_HEAD.size + length]
        if count and not is_root:
            buffers = [self._allocate(nbytes) for nbytes in memoryview(data)[: 8 * count].cast("q")]
        for buffer in buffers:
            comm.Bcast([buffer, self._byte], root)
        if is_root:
            # A copy, as mpi4py gives: the root's result shares no memory with what it sent.
            buffers = [bytearray(buffer) for buffer in buffers]
        return self._pickle.loads_oob(memoryview(data)[8 * count :], buffers)

    def gather(self, comm: Any, sendobj: Any, root: int = 0) -> list[Any] | None:
        """At the root every rank's object, by rank; None elsewhere."""
        data = self._pickle.dumps(sendobj)
        length = [array("q", [len(data)]), self._length]
        if comm.Get_rank() != root:
            comm.Gather(length, None, root)
            comm.Gatherv([data, self._byte], None, root)
            return None
        lengths = array("q", bytes(8 * comm.Get_size()))
        comm.Gather(length, [lengths, self._length], root)
        gathered = self._allocate(sum(lengths))
        comm.Gatherv([data, self._byte], self._spec(gathered, lengths), root)
        return self._load(gathered, lengths)

    def scatter(self, comm: Any, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """This rank's one of the root's objects."""
        own = array("q", [0])
        if comm.Get_rank() == root:
            pickles, lengths = self._dump(sendobj, comm.Get_size())
            comm.Scatter([lengths, self._length], [own, self._length], root)
            sent = self._spec(b"".join(pickles), lengths)
        else:
            comm.Scatter(None, [own, self._length], root)
            sent = None
        data = self._allocate(own[0])
        comm.Scatterv(sent, [data, self._byte], root)
        return self._pickle.loads(data)

    def allgather(self, comm: Any, sendobj: Any) -> list[Any]:
        """Every rank's object, by rank."""
        data = self._pickle.dumps(sendobj)
        small, lengths = self._exchange_slots(comm, data)
        if small is not None:
            return small
        gathered = self._allocate(sum(lengths))
        comm.Allgatherv([data, self._byte], self._spec(gathered, lengths))
        return self._load(gathered, lengths)

    def alltoall(self, comm: Any, sendobj: Sequence[Any]) -> list[Any]:
        """What each rank has for this one, by rank."""
        size = comm.Get_size()
        return self._swap(sendobj, size, size, comm.Alltoall, comm.Alltoallv)

    def neighbor_allgather(self, comm: Any, sendobj: Any) -> list[Any]:
        """Every neighbour's object."""
        incoming, outgoing = comm.indegree, comm.outdegree
        objects = [sendobj] * outgoing
        return self._swap(objects, outgoing, incoming, comm.Neighbor_alltoall, comm.Neighbor_alltoallv)

    def neighbor_alltoall(self, comm: Any, sendobj: Sequence[Any]) -> list[Any]:
        """What each neighbour has for this rank."""
        incoming, outgoing = comm.indegree, comm.outdegree
        return self._swap(sendobj, outgoing, incoming, comm.Neighbor_alltoall, comm.Neighbor_alltoallv)

    # --- reductions ----------------------------------------------------------------------------------------

    def reduce(self, comm: Any, sendobj: Any, op: Operation | None = None, root: int = 0) -> Any:
        """At the root all ranks' objects combined; None elsewhere."""
        if not 0 <= root < comm.Get_size():
            comm.Bcast([bytearray(1), self._byte], root)  # raises what MPI has to say of such a root
        data = self._pickle.dumps(sendobj)
        small, _ = self._exchange_slots(comm, data)
        if small is not None:
            return fold(small, op or self._sum) if comm.Get_rank() == root else None
        return self._reduce_by_tree(comm, data, op or self._sum, root)

    def allreduce(self, comm: Any, sendobj: Any, op: Operation | None = None) -> Any:
        """All ranks' objects combined."""
        data = self._pickle.dumps(sendobj)
        small, _ = self._exchange_slots(comm, data)
        if small is not None:
            return fold(small, op or self._sum)
        return self.bcast(comm, self._reduce_by_tree(comm, data, op or self._sum, 0))

    def scan(self, comm: Any, sendobj: Any, op: Operation | None = None) -> Any:
        """The objects of the ranks up to this one combined."""
        data = self._pickle.dumps(sendobj)
        small, _ = self._exchange_slots(comm, data)
        if small is not None:
            return fold_up_to(small[: comm.Get_rank() + 1], op or self._sum)
        return self._scan_by_doubling(comm, data, op or self._sum, [self._pickle.loads(data)])[0]

    def exscan(self, comm: Any, sendobj: Any, op: Operation | None = None) -> Any:
        """The objects of the ranks before this one combined; None at rank 0."""
        data = self._pickle.dumps(sendobj)
        small, _ = self._exchange_slots(comm, data)
        rank = comm.Get_rank()
        if small is not None:
            return fold_up_to(small[:rank], op or self._sum) if rank else None
        before = self._scan_by_doubling(comm, data, op or self._sum, [])
        return before[0] if before else None

    def _reduce_by_tree(self, comm: Any, data: bytes, combine: Operation, root: int) -> Any:
        """Large objects: no rank holds more than two of them."""
        comm = self._hidden(comm)
        rank, size = comm.Get_rank(), comm.Get_size()
        result = self._pickle.loads(data)
        step = 1
        while step < size and not rank & step:
            if rank + step < size:
                result = combine(result, comm.recv(source=rank + step))
            step *= 2
        if rank:
            comm.send(result, rank - step)
        if root:
            if rank == 0:
                comm.send(result, root)
            elif rank == root:
                return comm.recv(source=0)
        return result if rank == root else None

    def _scan_by_doubling(self, comm: Any, data: bytes, combine: Operation, result: list[Any]) -> list[Any]:
        """Large objects again: ``result``, combined with those of all lower ranks; empty if there is nothing."""
        comm = self._hidden(comm)
        rank, size = comm.Get_rank(), comm.Get_size()
        block = self._pickle.loads(data)
        step = 1
        while step < size:
            other = rank ^ step
            if other < size:
                theirs = comm.sendrecv(block, other, source=other)
                if other < rank:
                    # Not the same object for both: an operation may change its arguments.
                    copy = self._pickle.loads(self._pickle.dumps(theirs))
                    result = [combine(copy, result[0]) if result else copy]
                block = combine(block, theirs) if other > rank else combine(theirs, block)
            step *= 2
        return result

    # --- pickles -------------------------------------------------------------------------------------------

    def _exchange_slots(self, comm: Any, data: bytes) -> tuple[list[Any] | None, array[int]]:
        """All ranks' objects if all fit into slots, else None; and the lengths of their pickles."""
        size = comm.Get_size()
        length = _SLOT if size <= _SLOTS else _LENGTH.size
        slot, slots = bytearray(length), bytearray(length * size)
        _LENGTH.pack_into(slot, 0, len(data))
        if len(data) <= length - _LENGTH.size:
            slot[_LENGTH.size : _LENGTH.size + len(data)] = data
        comm.Allgather([slot, self._byte], [slots, self._byte])
        view = memoryview(slots)
        starts = range(0, length * size, length)
        lengths = array("q", [_LENGTH.unpack_from(view, start)[0] for start in starts])
        if max(lengths) > length - _LENGTH.size:
            return None, lengths
        loads = self._pickle.loads
        at = _LENGTH.size
        return [loads(view[s + at : s + at + n]) for s, n in zip(starts, lengths, strict=True)], lengths

    def _swap(
        self, objects: Sequence[Any] | None, outgoing: int, incoming: int, fixed: Any, varying: Any
    ) -> list[Any]:
        pickles, sent = self._dump(objects, outgoing)
        lengths = array("q", bytes(8 * incoming))
        fixed([sent, self._length], [lengths, self._length])
        arrived = self._allocate(sum(lengths))
        varying(self._spec(b"".join(pickles), sent), self._spec(arrived, lengths))
        return self._load(arrived, lengths)

    def _dump(self, objects: Sequence[Any] | None, count: int) -> tuple[list[bytes], array[int]]:
        """The pickles of so many objects, and their lengths."""
        objects = [None] * count if objects is None else list(objects)
        if len(objects) != count:
            raise ValueError(f"expecting {count} items, got {len(objects)}")
        pickles = [self._pickle.dumps(obj) for obj in objects]
        return pickles, array("q", [len(data) for data in pickles])

    def _load(self, data: Any, lengths: array[int]) -> list[Any]:
        """Objects from pickles that lie one behind the other. A length of 0 is a neighbour that does not exist."""
        view = memoryview(data)
        starts = accumulate(lengths, initial=0)
        loads = self._pickle.loads
        return [loads(view[start : start + n]) if n else None for start, n in zip(starts, lengths, strict=False)]

    def _spec(self, data: Any, lengths: array[int]) -> list[Any]:
        """A buffer of pieces, as the calls with a v take it."""
        return [data, lengths.tolist(), list(accumulate(lengths, initial=0))[:-1], self._byte]
