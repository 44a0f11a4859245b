"""Arrays that are spread over engines, and collectives of what engines have under the same name."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ... import limits, serialize
from ...engine.mpi import collectives
from ...engine.mpi.team import Place
from ...errors import ClientError
from ...protocol import operations
from ...ranges import ranges
from ...reference import Reference
from ..session import given, replies
from ..session.calls import label_of
from ..session.ownframes import all_raise_at_call
from ..session.session import Submission
from ..session.targets import Targets, choose
from .arrayspread import distributed_array
from .control import EngineControl
from .distributed import SPACE, DistributedArray, Groups, checked, name_for_blocks
from .objects import Keys, keys_of, names_of
from .spread import spread_of

_OPERATIONS: Final = ", ".join(collectives.OPERATIONS)


def placed(engines: Iterable[Mapping[str, Any]], wanted: list[int] | None, what: str) -> Place:
    """Return the ranks of engines.

    Args:
        engines: what the controller knows of them all.
        wanted: those of the call; None for all.
        what: the call, for messages.

    Raises:
        InvalidEngineID, NoEnginesRegistered: one is not there, or none is.
        ValueError: none is wanted.
        ClientError: they are of several sets.
    """
    known = {each["id"]: each for each in engines}
    chosen = choose(wanted, sorted(known))
    if not chosen:
        raise ValueError("there are no engines among these targets")
    members: dict[Any, list[int]] = {}
    for engine in chosen:
        members.setdefault(known[engine]["set"], []).append(engine)
    if len(members) > 1:
        sets = " and ".join(f"[{ranges(each)}]" for each in itertools.islice(members.values(), 3))
        raise ClientError(
            f"{what} is done by MPI, which engines of one set have in common, and these are of {len(members)} "
            f"sets: {sets}. Name the engines of one of them with targets="
        )
    return Place(tuple(chosen), tuple(known[engine]["rank"] for engine in chosen))


class _Reached:
    """Calls functions on the engines of an array of this name."""

    def __init__(self, view: EngineArrays, name: str) -> None:
        self._view = view
        self._name = name

    def run(self, groups: Groups, changes: bool = False) -> list[Any]:
        """See :class:`~ipmpi.client.engines.distributed.Reach`."""
        return self._view._run_groups(groups, self._name, changes)

    def place(self, engines: Sequence[int]) -> Place:
        """See :class:`~ipmpi.client.engines.distributed.Reach`."""
        return placed(self._view.cluster_info()["engines"], list(engines), f"what is asked of {self._name}")


@all_raise_at_call
class EngineArrays(EngineControl):
    """Base of :class:`EngineView`: arrays that are spread over engines, and MPI on names.

    :class:`EngineView` describes ``targets`` and the exceptions that all methods raise. These methods always wait.
    """

    def array(
        self,
        name: str,
        targets: Targets | None = None,
        *,
        axis: int | None = None,
        grid: Sequence[int] | None = None,
        comm: str | None = None,
        offset: str | None = None,
        shape: Sequence[int] | None = None,
        halo: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
    ) -> DistributedArray:
        """Return a handle of an array of which each engine has a block. Always waits; nothing but shapes moves.

        Without ``axis``, ``grid``, ``comm`` or ``offset``, the blocks follow each other along the first dimension,
        in the order of the targets, as after :meth:`scatter`.

        Args:
            name: of the block on each engine, a NumPy array of numbers.
            targets: the engines that have blocks.
            axis: the dimension along which blocks follow each other.
            grid: blocks form a Cartesian grid of these dimensions, the last one fastest.
            comm: the name of a communicator on the engines that ``Create_cart`` has made: blocks are where it
                says.
            offset: the name of the position of the block's first own element in the whole array.
            shape: of the whole array, with ``offset``; by default the smallest that contains all blocks.
            halo: ghost cells around each block: a number, or a number or a pair (before, behind) for each
                dimension.

        Raises:
            TypeError, ValueError: arguments are not possible, or the blocks do not make up one array; the message
                names engines and shapes.
            CompositeError: a name is not there (NameError).
        """
        array = Reference(given.source(name, "the name of the array"))
        spread = spread_of(axis, grid, comm, offset, shape, halo)
        wanted = self._wanted(targets)
        engines = self._calls.ids() if wanted is None else wanted
        return distributed_array(_Reached(self, array.name), array.name, engines, spread)

    # --- Collectives --------------------------------------------------------------------------------------

    def bcast(
        self, names: Keys | Mapping[str, Any], root: int | None = None, targets: Targets | None = None
    ) -> None:
        """Give all engines what one of them has, by MPI; arrays and other objects alike.

        Objects of this process are sent once, to that engine, and by MPI to the others.

        Args:
            names: one name, a sequence of names, or a dict of names and objects of this process.
            root: the engine that has them; None for the first of the targets.
            targets: the engines, of one set.

        Raises:
            TypeError, ValueError: an argument is not possible.
            NameError: the engine has no such name.
            ClientError: the engines share no communicator: use :meth:`push`.
            SerializationError: an object cannot be pickled; the message names it.
        """
        objects = names_of(names) if isinstance(names, Mapping) else {}
        keys = list(objects) if isinstance(names, Mapping) else keys_of(names)[0]
        place, index = self._place(targets, root, "bcast")
        if objects:
            self.push(objects, targets=[place.engines[index]], block=True)
        self._together("bcast", (keys,), collectives.bcast, place, keys, index)

    def reduce(
        self,
        name: str,
        op: str = "sum",
        *,
        root: int | None = None,
        to: str | None = None,
        targets: Targets | None = None,
    ) -> Any:
        """Combine the values of engines by MPI, arrays element by element; the result comes from one of them.

        Args:
            name: of the value on each engine, or an expression, such as ``'x.sum()'``. Arrays must have equal
                shapes and dtypes.
            op: ``'sum'``, ``'prod'``, ``'min'``, ``'max'``, ``'land'``, ``'lor'``, ``'lxor'``, ``'band'``,
                ``'bor'`` or ``'bxor'``. The dtype stays; bools are counted by the first two. What minimum and
                maximum make of NaN depends on the MPI library.
            root: the engine that gets the result; None for the first of the targets.
            to: the name under which the result is kept there; None to return it.
            targets: the engines, of one set.

        Returns:
            The result; None with ``to``.

        Raises:
            TypeError, ValueError: an argument is not possible, or the values do not fit together.
            NameError: an engine has no such name.
            ClientError: the engines share no communicator: combine what :meth:`pull` returns.
        """
        value, operation = self._reduced(name, op, to)
        place, index = self._place(targets, root, "reduce")
        found = self._together("reduce", (value, op), collectives.reduce, place, value, operation, index, to)
        return found[index]

    def allreduce(self, name: str, op: str = "sum", *, to: str, targets: Targets | None = None) -> None:
        """Combine the values of engines by MPI, and keep the result on all of them.

        Args:
            name: as in :meth:`reduce`.
            op: as in :meth:`reduce`.
            to: the name under which the result is kept; it may be ``name`` itself.
            targets: the engines, of one set.

        Raises:
            TypeError, ValueError, NameError, ClientError: as :meth:`reduce`.
        """
        value, operation = self._reduced(name, op, given.text(to, "to, the name of the result,"))
        place, _ = self._place(targets, None, "allreduce")
        self._together("allreduce", (value, op), collectives.reduce, place, value, operation, None, to)

    def alltoall(self, name: str, *, to: str, targets: Targets | None = None) -> None:
        """Give each engine its part of the value of every engine, by MPI.

        Args:
            name: of the value on each engine, or an expression: an array whose first dimension is divided among
                the engines, of the same shape and dtype everywhere; or a list with an item for each engine.
            to: the name under which each keeps what it gets, in the order of the engines: an array of the same
                shape, or a list. It may be ``name`` itself.
            targets: the engines, of one set, in their order.

        Raises:
            TypeError, ValueError: an argument is not possible, or the values cannot be divided.
            NameError: an engine has no such name.
            ClientError: the engines share no communicator.
        """
        value = Reference(given.source(name, "the name of the value")).name
        given.text(to, "to, the name of the result,")
        place, _ = self._place(targets, None, "alltoall")
        self._together("alltoall", (value,), collectives.alltoall, place, value, to)

    def redistribute(
        self,
        name: str,
        targets: Targets | None = None,
        *,
        axis: int | None = None,
        grid: Sequence[int] | None = None,
        halo: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
        to: str | None = None,
    ) -> DistributedArray:
        """Spread an array whose blocks follow each other along the first dimension in another way, by MPI.

        It is ``mec.array(name).redistribute(...)``; an array that is spread otherwise has that method, too.

        Args:
            name: of the block on each engine.
            targets: the engines that have blocks, and will have the new ones.
            axis: as :meth:`DistributedArray.redistribute`; so are the others.
            grid: how many blocks there shall be along each dimension.
            halo: ghost cells of the new blocks.
            to: the name of the new blocks.

        Raises:
            TypeError, ValueError, CompositeError: as :meth:`array` and :meth:`DistributedArray.redistribute`.
            ClientError: the engines share no communicator.
        """
        spread = spread_of(axis, grid, None, None, None, halo)
        kept = name_for_blocks(Reference(given.source(name, "the name of the array")).name, to)
        return self.array(name, targets)._redistributed(spread, kept)

    def _reduced(self, name: Any, op: Any, to: Any) -> tuple[str, str]:
        value = Reference(given.source(name, "the name of the value")).name
        if not isinstance(op, str) or op not in collectives.OPERATIONS:
            raise given.WrongValue(f"op is one of {_OPERATIONS}: {given.shown(op)}")
        if to is not None:
            given.text(to, "to, the name of the result,")
        return value, op

    def _place(self, targets: Targets | None, root: Any, method: str) -> tuple[Place, int]:
        """Return the ranks of a call, and the index of its root among them."""
        chosen = (
            None if root is None else given.whole_number(root, "root, the id of an engine,", 0, limits.MAX_ENGINES)
        )
        wanted = self._wanted(targets)
        place = placed(self.cluster_info()["engines"], wanted, f"{method}()")
        if chosen is None:
            return place, 0
        if chosen not in place.engines:
            raise ValueError(f"root={chosen} is none of the engines of this call, [{ranges(place.engines)}]")
        return place, place.engines.index(chosen)

    def _together(self, method: str, shown: tuple[Any, ...], function: Any, place: Place, *args: Any) -> list[Any]:
        """Call a function on all engines of a place, in one command: then a failure of one ends the others."""
        body = serialize.dumps((function, (SPACE, place, *args), {}), what="the call")
        submission = Submission(operations.Apply(), list(place.engines), method, label_of(method, *shown), body)
        found: list[Any] = self._calls.command(
            self, submission, lambda arrived: replies.values(arrived, method, shown), True
        )
        return checked(found)

    def _run_groups(self, groups: Groups, name: str, changes: bool) -> list[Any]:
        method = "array"
        submissions = [
            Submission(
                operations.Apply(not changes), engines, method, label_of(method, name),
                serialize.dumps((function, args, {}), what="the call"),
            )
            for engines, function, args in groups
        ]  # fmt: skip
        found: list[Any] = self._calls.commands(
            self, submissions, lambda arrived: replies.values(arrived, method, (name,)), True, method
        )
        return checked(found)
