"""Communicators that user code has made of that of all ranks: they are made again with it.

A failure may have left any of them in the middle of a call. Each stands for a communicator with the same ranks
and the same Cartesian topology afterwards, if all its ranks still have it; the others are refused.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Final

LOST: Final = (
    "this communicator was made from one that a failed command has left in the middle of its calls, and could not "
    "be made again: an intercommunicator, a graph, or one that not all its ranks still have. Create it anew"
)

Told = tuple[int, dict[str, tuple[tuple[int, ...], int]]]
"""What a rank tells the others: how many collectives it has begun, and its communicators by label: their ranks,
and how many collectives it has begun there."""


class Derived:
    """Those of this rank, without keeping them alive."""

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        self._made: dict[str, weakref.ref[Any]] = {}
        self._many = 64

    def add(self, comm: Any) -> None:
        """One was made."""
        self._made[comm.label] = weakref.ref(comm)
        if len(self._made) > self._many:
            self._made = {label: one for label, one in self._made.items() if one()}
            self._many = 2 * len(self._made) + 64

    def there(self) -> dict[str, Any]:
        """Return those that user code still has, by label."""
        found = ((label, one()) for label, one in self._made.items())
        return {label: comm for label, comm in found if comm}

    def described(self, world: Any) -> dict[str, tuple[tuple[int, ...], int]]:
        """Return what to tell the others of those that can be made again. ``world``: the group of all ranks."""
        told = {}
        for label, comm in self.there().items():
            if type(comm).__name__ in ("Intracomm", "Cartcomm"):
                group = comm.Get_group()
                ranks = tuple(self._mpi.Group.Translate_ranks(group, None, world))
                group.Free()
                told[label] = ranks, comm.collectives
        return told

    def make_again(self, fresh: Any, everybody: Sequence[Told], world_ranks: Sequence[int]) -> None:
        """Replace them; collective.

        Args:
            fresh: the new communicator.
            everybody: what each of its ranks has told, by rank.
            world_ranks: the rank in the world of each of its ranks.
        """
        place = {rank: number for number, rank in enumerate(world_ranks)}
        mine = self.there()
        known = [told for _, told in everybody]
        own = known[fresh.Get_rank()]
        for label in sorted(own):
            ranks = own[label][0]
            theirs = [known[place[rank]].get(label) if rank in place else None for rank in ranks]
            if all(one is not None and one[0] == ranks for one in theirs) and label in mine:
                comm = mine.pop(label)
                become(self._mpi, comm, self._create(fresh, [place[rank] for rank in ranks], comm))
                comm.collectives = max(one[1] for one in theirs if one is not None)
        self._refuse(mine.values())

    def _create(self, fresh: Any, ranks: list[int], old: Any) -> Any:
        whole = self._mpi.Comm.Get_group(fresh)
        chosen = whole.Incl(ranks)
        # No two of them are made at a time by the same rank, so messages of one cannot be taken for another's.
        created = self._mpi.Intracomm.Create_group(fresh, chosen, 0)
        chosen.Free()
        whole.Free()
        if not isinstance(old, self._mpi.Cartcomm):
            return created
        dims, periods, _ = old.Get_topo()
        cart = created.Create_cart(dims, periods, reorder=False)
        created.Free()
        return cart

    def _refuse(self, comms: Iterable[Any]) -> None:
        for comm in comms:
            become(self._mpi, comm, self._mpi.COMM_NULL)
            comm.is_lost = True
            self._made.pop(comm.label, None)


def become(mpi: Any, comm: Any, other: Any) -> None:
    """Have an object of mpi4py stand for the communicator of another one."""
    import ctypes  # imported here, as most ranks do not need it

    ctypes.memmove(mpi._addressof(comm), mpi._addressof(other), mpi._sizeof(mpi.Comm))
