"""Values of a program that clients watch: what each rank does for them at its ticks."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from ..errors import ClientError
from ..protocol import rankmessages as rm
from ..protocol.steering import REDUCTIONS
from .ticking import NEVER


def _is_plain(value: object) -> bool:
    """Return whether this is a number, or an array of NumPy, whose conversion runs no code of others."""
    numpy = sys.modules.get("numpy")
    return type(value) in (bool, int, float) or (
        numpy is not None and (type(value) is numpy.ndarray or isinstance(value, numpy.generic))
    )


class Watch(NamedTuple):
    """What one client watches.

    Attributes:
        number: its number.
        name: of a published value.
        every: in how many steps it is told once.
        reduce: one of :data:`~ipmpi.protocol.steering.REDUCTIONS`, over all ranks and elements; "" for the
            value of rank 0.
        published: whether it has to be a number or an array of NumPy that the program itself has published: then
            nobody else's code runs, whoever asks.
    """

    number: int
    name: str
    every: int
    reduce: str
    published: bool = False


class Watching:
    """The watches of one rank. With ``reduce``, all ranks add up at the same tick, by MPI.

    No rank may be missing there. So a watch with ``reduce`` does not end when a rank is told to: at its next
    reduction each rank says whether it was told, and all of them end it if any was. An agent may have ended before
    it could tell its ranks; they say so in the same way.

    Args:
        values: the names of the program.
        published: those that it has published.
        step: returns the number of the step that has just ended.
        comm: a communicator of the ranks for this alone; None if this rank is alone.
        mpi: the module mpi4py.MPI.
        is_first: whether this rank tells the values.
        tell: gives the agent a message, if it listens at this moment.
        is_steered: returns whether this rank has an agent.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        published: Collection[str],
        step: Callable[[], int],
        comm: Any,
        mpi: Any,
        is_first: bool,
        tell: Callable[[rm.Sampled], object],
        is_steered: Callable[[], bool] = lambda: True,
    ) -> None:
        self._values = values
        self._published = published
        self._step = step
        self._comm = comm
        self._mpi = mpi
        self._is_first = is_first
        self._tell = tell
        self._is_steered = is_steered
        self._open: set[int] = set()
        """The numbers of the watches that nobody has ended."""

    def begin(self, watch: Watch) -> None:
        """Look whether this can be watched.

        All ranks answer alike, so that none of them adds up alone.

        Raises:
            ClientError: it cannot; the message says what can.
        """
        problem = self._problem(watch)
        problems = [problem] if self._comm is None else self._comm.allgather(problem)
        bad = [rank for rank, text in enumerate(problems) if text]
        if not bad:
            self._open.add(watch.number)
            return
        text = problems[bad[0]]
        if len(bad) < len(problems):
            good = problems.index("")
            text = f"rank {bad[0]} says: {text} (rank {good} has it: publish it on all ranks, at each step)"
        raise ClientError(text)

    def _problem(self, watch: Watch) -> str:
        if watch.name not in (self._published if watch.published else self._values):
            known = ", ".join(sorted(self._published)) or "nothing yet"
            return (
                f"the program has published no {watch.name!r} (it has published {known}): "
                f"s.publish({watch.name}=...) in its loop does"
            )
        value = self._values[watch.name]
        try:
            self._own(value, watch)
        except Exception as error:  # of any kind: a rank that raised here would be missing where all answer
            shape = getattr(value, "shape", ())
            if not watch.reduce and isinstance(shape, tuple) and shape:
                return (
                    f"{watch.name} is an array of shape {shape}: watch one number of it, as with "
                    f"reduce='max' (or {', '.join(REDUCTIONS[1:])})"
                )
            return f"{watch.name} is not a number that can be watched: {error}"
        return ""

    def duty(self, watch: Watch) -> Callable[[int], int]:
        """Return what is to be done at the ticks of a watch."""

        def sample(count: int) -> int:
            if self._ends(watch):
                self._open.discard(watch.number)
                return NEVER
            value = self._value(watch)
            if self._is_first:
                self._tell(rm.Sampled(watch.number, self._step(), value))
            return count + watch.every

        return sample

    def end(self, number: int) -> None:
        """End a watch: at its next tick."""
        self._open.discard(number)

    def _ends(self, watch: Watch) -> bool:
        """Return whether the watch has ended; with ``reduce`` on all ranks alike."""
        ended = watch.number not in self._open or not self._is_steered()
        if watch.reduce and self._comm is not None:
            ended = bool(self._comm.allreduce(int(ended), op=self._mpi.MAX))
        return ended

    def _value(self, watch: Watch) -> float:
        """Return the value; nan where it is none any more: no rank may be missing in a reduction."""
        try:
            own = self._own(self._values[watch.name], watch)
        except Exception:
            own = math.nan, 0.0
        if not watch.reduce or self._comm is None:
            total, count = own
        else:
            operation = {"max": self._mpi.MAX, "min": self._mpi.MIN}.get(watch.reduce, self._mpi.SUM)
            total = self._comm.allreduce(own[0], op=operation)
            count = self._comm.allreduce(own[1], op=self._mpi.SUM) if watch.reduce == "mean" else 1.0
        return total / count if watch.reduce == "mean" and count else total

    def _own(self, value: Any, watch: Watch) -> tuple[float, float]:
        """Return what this rank contributes, and of how many elements it is."""
        reduce = watch.reduce
        if watch.published and not _is_plain(value):
            raise TypeError(
                f"a monitor may watch numbers and arrays of NumPy, and this is of type {type(value).__name__}"
            )
        if not reduce:
            return float(value), 1.0
        import numpy

        array = numpy.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{array.dtype} cannot be ordered and added up")
        if not array.size:
            return {"max": -math.inf, "min": math.inf}.get(reduce, 0.0), 0.0
        if reduce in ("max", "min"):
            return float(getattr(array, reduce)()), float(array.size)
        return float(array.sum(dtype=float)), float(array.size)
