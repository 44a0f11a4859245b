"""Arrays that are spread over ranks, in files of HDF5."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from ... import limits
from ...arrays.layout import Block, Position
from ...arrays.local import Expected, own
from ...arrays.pieces import pieces
from ...errors import ClientError
from .team import Place, Refused, Team, act

_PIECE: Final = 16 * limits.MIB
"""Bytes that the first rank receives at a time, where only one can write."""


def save(
    place: Place, found: Any, expected: Expected, blocks: Sequence[Block], shape: Position, path: str,
    dataset: str, overwrite: bool,
) -> Refused | str:  # fmt: skip
    """Write an array to a file: all ranks at once if h5py can do that, else the first one for all.

    Args:
        place: the ranks, in the order of the blocks.
        found: this rank's array now, with its ghost cells.
        expected: what it should be.
        blocks: of the array.
        shape: of the whole array.
        path: of the file; it is added to if it is there.
        dataset: the name in it.
        overwrite: whether a dataset of that name is replaced.

    Returns:
        ``"parallel"`` or ``"serial"``.
    """  # fmt: skip

    def do(team: Team) -> Refused | str:
        rank = team.comm.Get_rank()
        problem = _changed(found, expected)
        # Loading h5py takes a rank some tenths of a second: where only the first one writes, the others do not.
        is_parallel = team.comm.bcast(_is_parallel() if rank == 0 else None) and all(
            team.comm.allgather(_is_parallel())
        )
        file = None
        if problem is None and rank == 0 and not is_parallel:
            file, problem = _opened(path, dataset, shape, expected.dtype, overwrite)
        problem = team.wrong(problem)
        if problem is not None:
            if file is not None:
                file.close()
            return problem
        mine = own(found, expected)
        if is_parallel:
            return _save_together(team, mine, blocks[rank], shape, path, dataset, overwrite) or "parallel"
        if file is None:
            _send(team, mine)
        else:
            try:
                with file:
                    _receive(team, mine, blocks, file[dataset])
            except RuntimeError as error:  # of h5py, if the file cannot be closed
                raise OSError(f"{path}: {error}") from error
        return "serial"

    return act(place, do, is_private=True)  # type: ignore[no-any-return]


def _changed(found: Any, expected: Expected) -> Refused | None:
    try:
        own(found, expected)
    except ValueError as error:
        return Refused("ValueError", str(error))
    return None


def _is_parallel() -> bool:
    try:
        import h5py
    except ImportError:
        return False
    return bool(h5py.get_config().mpi)


def _opened(
    path: str, dataset: str, shape: Position, dtype: str, overwrite: bool, **how: Any
) -> tuple[Any, Refused | None]:
    """Open the file and make the dataset."""
    try:
        import h5py
    except ImportError as error:
        return None, Refused("ImportError", NO_H5PY.format(error))
    try:
        file = h5py.File(os.path.expanduser(path), "a", **how)
    except OSError as error:
        return None, Refused("OSError", f"{path}: {error}")
    try:
        if dataset in file:
            if not overwrite:
                file.close()
                text = f"{path} has a {dataset} already: give another name, or overwrite=True to replace it"
                return None, Refused("ValueError", text)
            del file[dataset]
        file.create_dataset(dataset, shape, dtype)
    except Exception as error:  # h5py raises nearly all of the built-in ones
        file.close()
        return None, Refused("OSError", f"{path}: no dataset {dataset} can be made: {error}")
    return file, None


NO_H5PY: Final = "files of HDF5 are written with h5py, which is not here: pip install h5py ({})"


def _save_together(
    team: Team, mine: Any, block: Block, shape: Position, path: str, dataset: str, overwrite: bool
) -> Refused | None:
    file, problem = _opened(path, dataset, shape, mine.dtype.str, overwrite, driver="mpio", comm=team.comm)
    problem = team.wrong(problem)
    if problem is None:
        # Independent writes of pieces: collective ones of more than 2 GiB fail in ROMIO.
        for part in pieces(block.shape, _PIECE // mine.itemsize):
            file[dataset][_moved(part, block)] = mine[part]
    if file is not None:
        file.close()
    return problem


def _send(team: Team, mine: Any) -> None:
    import numpy

    for part in pieces(mine.shape, _PIECE // mine.itemsize):
        piece = numpy.ascontiguousarray(mine[part])
        team.comm.Send(piece.reshape(-1).view(numpy.uint8), 0)


def _receive(team: Team, mine: Any, blocks: Sequence[Block], dataset: Any) -> None:
    import numpy

    for rank, block in enumerate(blocks):
        for part in pieces(block.shape, _PIECE // mine.itemsize):
            if rank == 0:
                dataset[_moved(part, block)] = mine[part]
                continue
            piece = numpy.empty([each.stop - each.start for each in part], mine.dtype)
            team.comm.Recv(piece.reshape(-1).view(numpy.uint8), rank)
            dataset[_moved(part, block)] = piece


def _moved(part: tuple[slice, ...], block: Block) -> tuple[slice, ...]:
    """Return slices of a block as slices of the whole array."""
    return tuple(slice(at + each.start, at + each.stop) for at, each in zip(block.offset, part, strict=True))


def load(
    found: Any, expected: Expected, blocks: Sequence[Block], shape: Position, path: str, dataset: str, engine: int
) -> None:
    """Read the elements of this engine from a file, into the array that it has; without MPI.

    Raises:
        ClientError: there is no h5py here.
        OSError: the file cannot be read.
        KeyError: it has no such dataset.
        ValueError: the dataset has another shape, or the array is not what it was.
        TypeError: its numbers do not fit into the dtype of the array.
    """
    import numpy

    try:
        import h5py
    except ImportError as error:
        raise ClientError(NO_H5PY.format(error).replace("written", "read")) from None
    mine, block = own(found, expected), next(each for each in blocks if each.engine == engine)
    with h5py.File(os.path.expanduser(path), "r") as file:
        if not isinstance(file.get(dataset), h5py.Dataset):
            raise KeyError(f"{path} has no dataset {dataset}; it has {', '.join(sorted(file)) or 'none'}")
        there = file[dataset]
        if there.shape != shape:
            raise ValueError(f"{dataset} in {path} has shape {there.shape}, and the array has {shape}")
        if not numpy.can_cast(there.dtype, mine.dtype, "same_kind"):
            raise TypeError(f"{dataset} in {path} has dtype {there.dtype}, and the array has {mine.dtype}")
        for part in pieces(block.shape, _PIECE // mine.itemsize):
            mine[part] = there[_moved(part, block)]
