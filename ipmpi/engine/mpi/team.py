"""The ranks that clients call together, by MPI: clients send functions that use this by name.

A rank that raises ends the waits of the others, and costs all of them a communicator. So what is wrong with a
value is told to the others first; then each of them returns a :class:`Refused`, and the client raises it once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from ...communicator import shared
from ...ranges import engines_named

PIECE: Final = 1 << 30
"""Bytes of one message: MPI counts with 31 bits."""


class Place(NamedTuple):
    """The engines of a call.

    Attributes:
        engines: their ids, in the order of the targets.
        ranks: theirs in their set.
    """

    engines: tuple[int, ...]
    ranks: tuple[int, ...]


class Refused(NamedTuple):
    """Why nothing was done; the same at all ranks.

    Attributes:
        kind: the name of the built-in exception to raise; or ``"ClientError"``.
        text: its message.
    """

    kind: str
    text: str


class Team(NamedTuple):
    """The ranks of a call, of which this process is one.

    Attributes:
        comm: their communicator; ranks are in the order of the targets.
        mpi: the module mpi4py.MPI.
        engines: their ids.
    """

    comm: Any
    mpi: Any
    engines: tuple[int, ...]

    def wrong(self, problem: Refused | None) -> Refused | None:
        """Return the first problem that a rank has; ``problem`` is that of this one. Collective."""
        told = self.comm.allgather(problem)
        first = next((each for each in told if each is not None), None)
        if first is None:
            return None
        same = [engine for engine, each in zip(self.engines, told, strict=True) if each == first]
        return Refused(first.kind, f"on {engines_named(same)}: {first.text}")


def act(place: Place, do: Callable[[Team], Any], is_private: bool = False) -> Any:
    """Return what ``do`` returns for the team of these ranks; a :class:`Refused` if they have no communicator.

    Args:
        place: the ranks, of which this is one.
        do: called with the team at each rank.
        is_private: whether messages of the user's own must not meet those of ``do``.
    """
    given = shared()
    if given is None:
        return Refused(
            "ClientError",
            "engines do this by MPI, and these share no communicator: they were started without an MPI launcher, "
            "with --mpi none, or without mpi4py",
        )
    mine, theirs = given.whole.Get_group(), given.comm.Get_group()
    ranks = list(mine.Translate_ranks(list(place.ranks), theirs))
    mine.Free()
    theirs.Free()
    if min(ranks) < 0:
        gone = [engine for engine, rank in zip(place.engines, ranks, strict=True) if rank < 0]
        return Refused("ClientError", f"{engines_named(gone)} have left the communicator of the others")
    with _communicator(given.comm, ranks, is_private) as comm:
        return do(Team(comm, given.mpi, place.engines))


@contextlib.contextmanager
def _communicator(comm: Any, ranks: Sequence[int], is_private: bool) -> Iterator[Any]:
    if not is_private and list(ranks) == list(range(comm.Get_size())):
        yield comm
        return
    whole = comm.Get_group()
    some = whole.Incl(ranks)
    own = comm.Create_group(some)
    yield own  # after a failure it is left to those who make communicators again
    own.Free()
    some.Free()
    whole.Free()
