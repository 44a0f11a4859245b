"""Checks of ``targets`` and ``block``, and the engines that they select (no I/O)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from ... import limits
from ...errors import InvalidEngineID, NoEnginesRegistered
from .given import WrongType, shown

Targets = int | str | Sequence[int]
"""An engine id, a list of them, or ``'all'``."""


def as_engine_id(value: Any) -> int | None:
    """Return ``value`` as an engine id (NumPy integers are accepted); None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def parse_targets(targets: Any) -> list[int] | None:
    """Return the engine ids in ``targets``; None for ``'all'``.

    Raises:
        WrongType: it is of another type.
        ValueError: it has an engine twice.
        InvalidEngineID: it is another string than ``'all'``, or an item is not an engine id.
    """
    if isinstance(targets, str):
        if targets == "all":
            return None
        raise InvalidEngineID(_not_targets(targets))
    single = as_engine_id(targets)
    if single is not None:
        return [_existing(single)]
    if not is_list(targets):
        raise WrongType(f"targets must be a str, list, tuple or int: {shown(targets)}")
    if len(targets) > limits.MAX_ENGINES:
        raise ValueError(f"targets names {len(targets)} engines; one controller has at most {limits.MAX_ENGINES}")
    ids = [engine for engine in map(as_engine_id, targets) if engine is not None]
    if len(ids) != len(targets):
        raise InvalidEngineID(_not_targets(targets))
    if len(set(ids)) != len(ids):
        raise ValueError(f"targets names an engine twice: {shown(targets)}. One command runs once on each engine")
    return [_existing(engine) for engine in ids]


def is_list(value: Any) -> bool:
    """Return whether this is a list, a tuple, or a NumPy array with dimensions."""
    return isinstance(value, (list, tuple, range)) or (
        hasattr(value, "__array__") and len(getattr(value, "shape", ())) == 1
    )


def _existing(engine: int) -> int:
    if 0 <= engine <= limits.ENGINE_ID:
        return engine
    raise InvalidEngineID(f"engine ids are integers from 0 on, not {shown(engine)}: see get_ids()")


def _not_targets(targets: Any) -> str:
    return f"targets argument is not an int, list of ints or 'all': {shown(targets)}"


def parse_block(block: Any) -> bool:
    """Return ``block``; raises WrongType unless it is True or False."""
    if block is True or block is False:
        return block
    raise WrongType(f"block must be True or False: {shown(block)}")


def choose(wanted: list[int] | None, registered: list[int]) -> list[int]:
    """Return the wanted engines (None: all), if all are registered.

    Raises:
        InvalidEngineID: one is not registered.
        NoEnginesRegistered: all are wanted, and there are none.
    """
    if wanted is None:
        if not registered:
            raise NoEnginesRegistered(
                "There are no engines registered. Start some (ipcluster local -n 4, or mpirun -n 4 ipengine). "
                "If you did, they could not reach the controller: Check the logs in ~/.ipython/log for the reason."
            )
        return registered
    missing = set(wanted).difference(registered)
    if missing:
        raise InvalidEngineID(f"engine with id {min(missing)} does not exist")
    return wanted


def select(key: Any, registered: Callable[[], list[int]]) -> list[int]:
    """Return the engine ids that an index selects: ``[3]``, ``[0:4]``, ``[-1]``, ``[[1, 3]]``.

    A number is an engine id, whose existence is not checked here. Slices and negative numbers index the list of
    registered ids; only for these ``registered`` is called.

    Raises:
        TypeError: the index is of another type.
        IndexError: a negative number is out of range.
    """
    if isinstance(key, slice):
        return registered()[key]
    ids = [as_engine_id(item) for item in (key if is_list(key) else [key])]
    chosen = [engine for engine in ids if engine is not None]
    if isinstance(key, (list, tuple)) and key and all(isinstance(item, str) for item in key):
        # Also reached by dict(mec): keys() is a list of names for each engine.
        raise TypeError(
            "these are names: pull(names) gets their values on each engine. A client is not a mapping, since each "
            "engine has names of its own; so dict(mec) is not possible: see keys() and pull()"
        )
    if len(chosen) != len(ids):
        raise TypeError("__getitem__ only takes strs (names), engine ids, lists of engine ids and slices")
    if all(engine >= 0 for engine in chosen):
        return parse_targets(chosen) or []
    now = registered()
    if -min(chosen) > len(now):
        raise IndexError(f"engine index {shown(min(chosen))} is out of range: there are {len(now)} engines")
    return parse_targets([engine if engine >= 0 else now[engine] for engine in chosen]) or []
