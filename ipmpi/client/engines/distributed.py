"""Arrays that are spread over engines, without moving them."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from ... import limits
from ...arrays import local
from ...arrays.layout import Layout, divided
from ...arrays.selection import Selection, part_in, select
from ...arrays.summary import Extreme, Summary, combined, placed
from ...engine.mpi import arrayfiles, spreading
from ...engine.mpi.team import Place, Refused
from ...errors import (
    ClientError,
    CompositeError,
    ConnectionError,
    EngineLost,
    InvalidEngineID,
    NoEnginesRegistered,
)
from ...memory import available_bytes
from ...ranges import ranges
from ...reference import ENGINE, Reference
from ..display.liveplot import EndOfPlot, LivePlot, screen_here
from ..session import given
from .arrayplot import plot
from .arraystats import ArrayStats
from .arrayxarray import to_xarray
from .spread import Spread, ghost_cells, spread_of

if TYPE_CHECKING:
    import numpy

MUCH: Final = 256 * limits.MIB
"""Bytes above which ``numpy.asarray`` warns that an array comes over the network."""

Groups = Sequence[tuple[list[int], Callable[..., Any], tuple[Any, ...]]]
"""For each group of engines a function and its arguments."""


SPACE: Final = Reference("(lambda: 0).__globals__")
"""The namespace itself, for functions that assign to names in it, or look one up later than before the call."""

_REFUSED: Final = {
    "NameError": NameError, "TypeError": TypeError, "ValueError": ValueError, "ImportError": ImportError,
    "OSError": OSError,
}  # fmt: skip


def checked(found: list[Any]) -> list[Any]:
    """Return what engines have returned.

    Raises:
        NameError, TypeError, ValueError, OSError, ImportError, ClientError: what they did not want to do.
    """
    refused = next((each for each in found if isinstance(each, Refused)), None)
    if refused is not None:
        raise _REFUSED.get(refused.kind, ClientError)(refused.text)
    return found


def name_for_blocks(name: str, to: Any) -> str:
    """Return the name under which an array in new blocks is kept: ``to``, or its own.

    Raises:
        TypeError, ValueError: ``to`` is no text, or the array has no name but an expression.
    """
    if to is not None:
        return given.text(to, "to, the name of the new blocks,")
    if not name.isidentifier():
        raise ValueError(f"{given.shown(name)} is no name to keep the new blocks under: give one with to=")
    return name


class Reach(Protocol):
    """The engines of an array, as its handle reaches them."""

    def run(self, groups: Groups, changes: bool = False) -> list[Any]:
        """Call functions on engines; return the values of all engines, in this order.

        ``changes``: they change something there.
        """

    def place(self, engines: Sequence[int]) -> Place:
        """Return the ranks of engines, for functions that use MPI; ClientError if they are of several sets."""


class DistributedArray:
    """A handle of an array of which each engine has a block; nothing moves before something is asked for.

    ``T[10:20, ::4]`` gets these elements as a NumPy array, from the engines that have some of them. Integers,
    slices and ``...`` work as in NumPy. Assignment does not: use ``execute``.

    Every method runs on the engines after what they have been given before, and waits. If an engine's array has
    got another shape or dtype since the handle was made, it raises ``CompositeError``; another array of the same
    shape is simply used.

    Thread-safety: all methods may be called from any thread.

    Attributes:
        name: of the array on the engines.
        shape: of the whole array, without ghost cells.
        dtype: its numpy.dtype.
        blocks: which engine has which part.
    """

    def __init__(self, reach: Reach, name: str, layout: Layout, expected: local.Expected) -> None:
        import numpy

        self._reach = reach
        self._expected = expected
        self.name = name
        self.shape = layout.shape
        self.dtype = numpy.dtype(expected.dtype)
        self.blocks = layout.blocks

    def __repr__(self) -> str:
        engines = ranges([block.engine for block in self.blocks])
        return f"<DistributedArray {self.name!r}: {self.dtype} {self.shape} on engines [{engines}]>"

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Any:
        raise TypeError(f"going through a distributed array would ask for each row: use {self.name}.gather()")

    # --- Elements -----------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        """Get some elements.

        Returns:
            A NumPy array; a NumPy scalar if there is an integer for every dimension, as in NumPy.

        Raises:
            IndexError, TypeError: the index is not possible; see :class:`DistributedArray`.
            MemoryError: there is not enough memory here for the result.
            CompositeError: an engine's array is not what it was.
        """
        return self.at_step(index)[0]

    def at_step(self, index: Any = ...) -> tuple[Any, int | None]:
        """Get some elements of an array of a program with a loop, and the number of the step that comes next.

        That is the same on all ranks. It is None if the engines are no such program.

        Args:
            index: as in ``T[index]``.

        Raises:
            IndexError, TypeError, MemoryError, CompositeError: as ``T[index]``.
        """
        import numpy

        selection = select(index, self.shape)
        self._check_memory(selection)
        parts = [(block, part) for block in self.blocks if (part := part_in(selection, block)) is not None]
        # One command for all of them: they see the array between the same two commands, or steps of a program.
        sources = {block.engine: part.source for block, part in parts}
        call = ([*sources], local.piece, (Reference(self.name), self._expected, sources, Reference(ENGINE)))
        result = numpy.empty(selection.counts, self.dtype)
        found = self._reach.run([call]) if parts else []
        for (_, part), (piece, _) in zip(parts, found, strict=True):
            result[part.target] = piece
        whole = result.reshape(selection.shape)
        given = index if isinstance(index, tuple) else (index,)
        is_array = selection.kept or any(each is Ellipsis for each in given)
        return whole if is_array else whole[()], found[0][1] if found else None

    def _check_memory(self, selection: Selection) -> None:
        size, free = math.prod(selection.counts) * self.dtype.itemsize, available_bytes()
        if free and 2 * size > free:  # the pieces come, and are put together
            raise MemoryError(
                f"these elements of {self.name} have {size:,} bytes, and putting them together here takes twice "
                f"as much: there are {free:,} bytes free. Ask for fewer, {self.name}.sample() for instance"
            )

    def gather(self) -> numpy.ndarray[Any, Any]:
        """Get the whole array, as ``T[...]`` does."""
        found: numpy.ndarray[Any, Any] = self[...]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> numpy.ndarray[Any, Any]:
        """Get the whole array, for ``numpy.asarray(T)``; warns above 256 MB."""
        if copy is False:
            raise ValueError(f"{self.name} is on the engines: an array of it here is a copy")
        if self.nbytes > MUCH:
            warnings.warn(
                f"all of {self.name}, {self.nbytes:,} bytes, comes from the engines: T.sample(), T.stats() and "
                "slices need less, and T.gather() does it without this warning",
                stacklevel=2,
            )
        found = self.gather()
        return found if dtype is None else found.astype(dtype)

    def sample(self, max_bytes: int = limits.MIB) -> numpy.ndarray[Any, Any]:
        """Get elements at equal distances, of every dimension, that together have at most ``max_bytes``.

        Raises:
            TypeError, ValueError: ``max_bytes`` is no integer, or less than one element has.
        """
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int):
            raise TypeError(f"max_bytes is a number of bytes, not {max_bytes!r}")
        if max_bytes < self.dtype.itemsize:
            raise ValueError(f"an element has {self.dtype.itemsize} bytes: max_bytes={max_bytes} is not enough")
        step = self.step_for(max_bytes // self.dtype.itemsize)
        found: numpy.ndarray[Any, Any] = self[(slice(None, None, step),) * self.ndim]
        return found

    def step_for(self, most: int) -> int:
        """Return the least step with which at most ``most`` elements are left."""
        low, high = 1, max(self.shape, default=1) or 1
        while low < high:
            middle = (low + high) // 2
            if math.prod(-(-length // middle) for length in self.shape) <= most:
                high = middle
            else:
                low = middle + 1
        return low

    def plot(self, ax: Any = None, *, ranks: bool = False, at: int | None = None) -> Any:
        """Draw the array with matplotlib: 1 dimension as a line, 2 as an image, 3 as an image of a slice.

        No more elements move than there are pixels. The image is that of ``imshow``: rows go from top to bottom.

        Args:
            ax: the Axes to draw into; None for the current ones of pyplot.
            ranks: whether to draw the borders of the blocks, and the ids of their engines.
            at: for 3 dimensions, the index of the slice along the first one; None for the middle.

        Returns:
            The Axes.

        Raises:
            ClientError: there is no matplotlib here.
            ValueError: the array has no elements, or more than 3 dimensions.
            TypeError: it has complex numbers.
            IndexError: there is no such slice.
        """
        return plot(self, ax, ranks, at)

    def plot_live(
        self, every: float = 1.0, *, ranks: bool = False, at: int | None = None, file: str | None = None
    ) -> LivePlot:
        """Draw the array again and again, while it changes.

        In a notebook, the figure in the output of the cell is replaced, while you go on. In a terminal that shows
        pictures, it takes the place of all else until Ctrl-C. Elsewhere it is in a file, which is replaced. No
        more elements move than there are pixels; a program with a loop is held only while its ranks copy them.

        Args:
            every: seconds from one picture to the next; more if drawing takes more than half of that.
            ranks: as of :meth:`plot`.
            at: as of :meth:`plot`.
            file: the path of a file to draw to, a PNG.

        Returns:
            A :class:`~ipmpi.client.LivePlot`: ``stop()`` ends it. It ends by itself with the engines, the program
            or the connection.

        Raises:
            ClientError, ValueError, TypeError, IndexError, CompositeError: as :meth:`plot`.
        """
        seconds = given.seconds(every, "every")
        if seconds is None:
            raise TypeError("every must be a number of seconds above 0, not None")
        path = None if file is None else given.path(file, "file")
        made = LivePlot(lambda axes: self._draw_again(axes, ranks, at), screen_here(path), seconds)
        made.begin()
        return made

    def _draw_again(self, axes: Any, ranks: bool, at: int | None) -> None:
        try:
            plot(self, axes, ranks, at)
        except (InvalidEngineID, NoEnginesRegistered, EngineLost, ConnectionError) as error:
            raise EndOfPlot(str(error)) from error
        except CompositeError as error:
            if all(issubclass(each[0], EngineLost) for each in error.elist):
                raise EndOfPlot(str(error.elist[0][1])) from error
            raise

    # --- Reductions ---------------------------------------------------------------------------------------

    def stats(self) -> ArrayStats:
        """Compute minimum, maximum, mean and standard deviation on the engines; NaNs are counted and left out.

        Raises:
            TypeError: the elements are complex numbers.
        """
        if self.dtype.kind == "c":
            raise TypeError(
                f"{self.name} has complex numbers, which have no order: make an array of their size on the "
                f"engines, mec.execute('size = abs({self.name})')"
            )
        found: list[Summary] = self._all(local.summarized)
        whole = combined(placed(summary, block) for summary, block in zip(found, self.blocks, strict=True))
        return ArrayStats(whole)

    def max(self) -> Extreme:
        """Return the largest element that is not NaN, with its position and engine.

        Raises:
            TypeError: the elements are complex numbers.
            ValueError: there is none.
        """
        return self._extreme(self.stats().max)

    def min(self) -> Extreme:
        """Return the smallest element; see :meth:`max`."""
        return self._extreme(self.stats().min)

    def _extreme(self, extreme: Extreme | None) -> Extreme:
        if extreme is None:
            raise ValueError(
                f"{self.name} has no elements but NaN" if self.size else f"{self.name} has no elements"
            )
        return extreme

    def hist(
        self, bins: int | Sequence[float] = 10, range: tuple[float, float] | None = None
    ) -> tuple[numpy.ndarray[Any, Any], numpy.ndarray[Any, Any]]:
        """Count the elements in bins on the engines, as ``numpy.histogram`` of the whole array; NaNs are left out.

        Args:
            bins: how many, or their edges.
            range: the ends of the bins; minimum and maximum if it is None.

        Returns:
            The counts, and the edges.

        Raises:
            ValueError: what ``numpy.histogram`` does not take either.
        """
        import numpy

        kind = numpy.dtype("u1") if self.dtype.kind == "b" else self.dtype
        ends: Any = range
        if range is None and isinstance(bins, int):
            stats = self.stats()
            if stats.min is None or stats.max is None:
                ends = (0.0, 1.0)
            else:  # of the array's own type, as NumPy rounds edges by it
                ends = (kind.type(stats.min.value), kind.type(stats.max.value))
        edges = numpy.histogram(numpy.empty(0, kind), bins, ends)[1]
        counts = self._all(local.counted, bins, ends)
        return numpy.sum(counts, axis=0), edges

    def _all(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        engines = [block.engine for block in self.blocks]
        return self._reach.run([(engines, function, (Reference(self.name), self._expected, *args))])

    # --- Other libraries ----------------------------------------------------------------------------------

    def to_xarray(self, dims: Sequence[str] | None = None, coords: Mapping[str, Any] | None = None) -> Any:
        """Return the array as an ``xarray.DataArray``, which gets elements from the engines when it needs them.

        ``da.sel(x=slice(0, 1))`` gets nothing, and ``da.sel(x=slice(0, 1)).values`` what was selected, as it is on
        the engines then. ``da.mean()`` and the like get all elements; see :meth:`stats`.

        Args:
            dims: the names of the dimensions.
            coords: coordinates, as of ``xarray.DataArray``.

        Raises:
            TypeError, ValueError: an argument is not possible.
            ClientError: there is no xarray here.
        """
        return to_xarray(self, dims, coords)

    def save(self, path: str | os.PathLike[str], name: str | None = None, *, overwrite: bool = False) -> None:
        """Write the array to a file of HDF5 on the engines' file system, as one dataset.

        Where h5py was built with MPI, all engines write at once. Elsewhere the first engine of the array writes;
        the others send it their blocks by MPI, in pieces of 16 MiB.

        Args:
            path: of the file, relative to the current folder of the engines. What else is in it stays.
            name: of the dataset; by default that of the array.
            overwrite: whether to replace a dataset of that name.

        Raises:
            TypeError, ValueError: an argument is not possible, there is such a dataset, or an engine's array is
                not what it was.
            ImportError: h5py is not installed there.
            OSError: the file cannot be opened.
            ClientError: the engines share no communicator.
            CompositeError: writing failed.
        """
        file, dataset = given.path(path, "path"), self._dataset(name)
        if not isinstance(overwrite, bool):
            raise TypeError(f"overwrite must be True or False: {given.shown(overwrite)}")
        engines = [block.engine for block in self.blocks]
        place = self._reach.place(engines)
        args = (place, Reference(self.name), self._expected, self.blocks, self.shape, file, dataset, overwrite)
        self._reach.run([(engines, arrayfiles.save, args)])

    def load(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        """Read the elements from a dataset of HDF5, as of :meth:`save`; each engine reads its own, without MPI.

        It may have been written by another number of engines. Ghost cells stay as they are.

        Args:
            path: of the file, which all engines must see.
            name: of the dataset; by default that of the array.

        Raises:
            TypeError, ValueError: an argument is not possible.
            CompositeError: an engine has no h5py (ClientError), cannot read the file (OSError), or finds no
                dataset of that name (KeyError), or one of another shape (ValueError) or kind of numbers
                (TypeError).
        """
        file, dataset = given.path(path, "path"), self._dataset(name)
        array, engines = Reference(self.name), [block.engine for block in self.blocks]
        args = (array, self._expected, self.blocks, self.shape, file, dataset, Reference(ENGINE))
        self._reach.run([(engines, arrayfiles.load, args)], changes=True)

    def _dataset(self, name: Any) -> str:
        chosen = given.text(self.name if name is None else name, "name, that of the dataset,")
        if not chosen.strip("/") or "\0" in chosen:
            raise ValueError(f"name must be that of a dataset: {given.shown(name)}")
        return chosen

    # --- Other blocks -------------------------------------------------------------------------------------

    def redistribute(
        self,
        *,
        axis: int | None = None,
        grid: Sequence[int] | None = None,
        halo: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
        to: str | None = None,
    ) -> DistributedArray:
        """Spread the array over the same engines in blocks of nearly equal sizes, by MPI.

        Args:
            axis: blocks follow each other along this dimension, by default the first one.
            grid: blocks form a Cartesian grid of these dimensions, the last one fastest.
            halo: ghost cells around each block, as in :meth:`EngineView.array`. They get the elements that are
                there, or zero beyond the ends of the array.
            to: the name of the new blocks. None for the same name, which then stands for them.

        Returns:
            A handle of the array in the new blocks.

        Raises:
            TypeError, ValueError: an argument is not possible, or an engine's array is not what it was.
            ClientError: the engines share no communicator.
        """
        spread, kept = spread_of(axis, grid, None, None, None, halo), name_for_blocks(self.name, to)
        return self._redistributed(spread, kept)

    def _redistributed(self, spread: Spread, to: str) -> DistributedArray:
        engines = [block.engine for block in self.blocks]
        layout = divided(self.shape, spread.grid_of(self.ndim, len(engines)), engines)
        halo = ghost_cells(spread.halo, self.ndim)
        place = self._reach.place(engines)
        array = Reference(self.name)
        args = (SPACE, place, array, self._expected, self.blocks, layout.blocks, self.shape, halo, to)
        self._reach.run([(engines, spreading.redistribute, args)], changes=True)
        shapes = frozenset(
            tuple(size + sum(cells) for size, cells in zip(block.shape, halo, strict=True))
            for block in layout.blocks
        )
        return DistributedArray(self._reach, to, layout, local.Expected(shapes, self._expected.dtype, halo))
