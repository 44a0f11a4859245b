"""What a program has of steering: its loop, its parameters, and what it shows."""

from __future__ import annotations

import itertools
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, NamedTuple

from ..arrays import published
from ..engine.mpi.world import World
from ..errors import ClientError
from ..protocol import operations
from ..record import Change, Record
from .connection import Connection, local_words
from .names import Parameters, ProgramNamespace
from .recording import Journal, is_change
from .ticking import NEVER, Ticker
from .watching import Watch, Watching


class TickWords(NamedTuple):
    """Addresses of 8-byte words in memory, by which a program in C ticks without Python.

    A tick counts ``n`` from 0. If ``n < *due``: store ``2 * n`` to ``step``, a full memory barrier, and if then
    ``*sent <= *received``, the tick is done. In all other cases Python's ``tick(step)`` has to be called instead,
    which counts by itself: see :meth:`Steering.set_count`.
    """

    step: int
    sent: int
    received: int
    due: int
    label: int


class Published(NamedTuple):
    """How a value that the program shows is a part of a global array (None: not told)."""

    offset: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    halo: int | tuple[int, ...] = 0


_WHOLE: Final = Published()


class SteeringWarning(UserWarning):
    """Something about steering is wrong, and the program goes on without it."""


class Steering:
    """One rank's side of a program that is steered; made by :func:`ipmpi.steering.attach`.

    Its parameters are its attributes: ``s.dt``. Use it in a with-statement, or call :meth:`detach` at the end.
    Only the thread that has attached may use it.

    Attributes:
        params: the parameters by name; assigning one checks its type and shape.
        published: the names of what the program shows, and what it has told of each.
        stop_requested: whether a client has called ``stop()``; :meth:`loop` then ends by itself.
        rank: this rank's number in the communicator.
        size: how many ranks there are.
        comm: the communicator of mpi4py for what clients ask of all ranks; None if there is none.
    """

    def __init__(
        self,
        parameters: dict[str, Any],
        world: World,
        connection: Connection | None = None,
        *,
        program: str = "program",
        replay: Record | None = None,
    ) -> None:
        self.params = Parameters()
        self.published: dict[str, Published] = {}
        self.stop_requested = False
        self.program = program
        self._connection = connection
        self.rank, self.size, self.comm = world.rank, world.size, world.comm
        self._thread = threading.get_ident()
        self._journal = Journal()
        self._checkpoint: Callable[[int], Any] | None = None
        self._is_over = False
        self._namespace = namespace = ProgramNamespace(world.mpi, self.asked, is_change, self.note_change)
        namespace.home.give({"params": self.params})
        self._shown = namespace.names
        for name, value in parameters.items():
            self.declare(name, value)
        if connection is None:
            words, lock = local_words()
            self._ticker = Ticker(words, lock, lambda: None, lambda stop: None)
        else:
            self._ticker = connection.begin(namespace)
        tell = (lambda message: None) if connection is None else connection.tell
        self._watching = Watching(
            self._shown, self.published, lambda: self._ticker.step - 1, self.comm, world.mpi, self.rank == 0, tell,
            lambda: self._ticker.agent is not None,
        )  # fmt: skip
        self.tick = self._ticker.tick
        if replay is not None:
            self._replay(replay)

    def show_arrays(self) -> None:
        """Have functions that clients send find out how the arrays of this program are spread."""
        published.provide(self.published, lambda: self._ticker.step)

    # --- the loop ----------------------------------------------------------------------------------------------

    def loop(self, *bounds: int) -> Iterator[int]:
        """Yield the numbers of steps, as ``range(*bounds)`` does; without bounds, for ever.

        Each one is a tick: what clients have asked for is done before the step begins, at the same step on all
        ranks. It ends early when a client has called ``stop()``.
        """
        tick = self._ticker.tick
        for step in range(*bounds) if bounds else itertools.count():
            tick(step)
            if self.stop_requested:
                return
            yield step

    @property
    def step(self) -> int:
        """The number of the step that comes next, or is under way."""
        return self._ticker.step

    @property
    def count(self) -> int:
        """The number of the last tick, counted from 0; -1 before the first one."""
        return self._ticker.count

    def set_count(self, count: int) -> None:
        """Say that ``count`` ticks, less one, were done without Python: see :class:`TickWords`."""
        self._ticker.count = count

    def tick_words(self) -> TickWords:
        """Return where a program in C finds what it needs to tick without Python."""
        return TickWords(*self._ticker.addresses())

    def __enter__(self) -> Steering:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:
            self.detach()
        else:
            self._leave(f"it has raised {type(error).__name__} before step {self.step + 1}")

    def detach(self) -> None:
        """End steering: what clients have asked for at this step is done, and the program goes on without it.

        Call it on all ranks after the same number of steps.
        """
        if not self._is_over:
            self._ticker.last_tick()
            self._leave(f"its loop has ended at step {self.step - self.stop_requested}")

    def _leave(self, why: str) -> None:
        if not self._is_over:
            self._is_over = True
            if self._connection is not None:
                self._connection.leave(f"the program goes on without being steered: {why}")

    @property
    def is_over(self) -> bool:
        """Whether it was detached."""
        return self._is_over

    # --- parameters and values ---------------------------------------------------------------------------------

    def declare(self, name: str, value: Any, place: Any = None) -> None:
        """Add a parameter.

        Args:
            name: its name, also as an attribute.
            value: its value, which says of what type and shape it is.
            place: a NumPy array or memoryview with one element, where a program in C keeps it.

        Raises:
            ClientError: the name is none, or has another meaning here.
        """
        if not name.isidentifier() or hasattr(type(self), name) or name in self.__dict__:
            raise ClientError(
                f"{name!r} cannot be the name of a parameter: it is "
                + ("not an identifier of Python" if not name.isidentifier() else "a name of steering itself")
            )
        self.params.declare(name, value, place)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["params"][name]
        except KeyError:
            raise AttributeError(
                f"{name!r} is no parameter of this program: attach({name}=...) would declare it"
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        params = self.__dict__.get("params")
        if params is not None and name in params:
            params[name] = value
        else:
            object.__setattr__(self, name, value)

    def publish(
        self,
        *,
        offset: tuple[int, ...] | None = None,
        shape: tuple[int, ...] | None = None,
        halo: int | tuple[int, ...] = 0,
        **values: Any,
    ) -> None:
        """Show values to clients under these names, by reference: nothing is copied or sent until somebody asks.

        Args:
            offset: of arrays that are blocks of a global array: where this block begins in it, without its halo.
            shape: the shape of the global array.
            halo: how many cells at each side of the block are copies of others' cells.
            values: by name.
        """
        if offset is None and shape is None and not halo:
            self._shown.update(values)
            self.published.update(dict.fromkeys(values, _WHOLE))
            return
        for name, value in values.items():
            if not hasattr(value, "__array_interface__"):
                warnings.warn(
                    f"publish({name}=...) with offset=, shape= or halo= takes an array, and this is of type "
                    f"{type(value).__name__}: it is not published",
                    SteeringWarning,
                    stacklevel=2,
                )
                continue
            self._shown[name] = value
            self.published[name] = Published(offset, shape, halo)

    def withdraw(self, name: str) -> None:
        """Take back a parameter or a value, before its memory is gone; nothing happens if there is none."""
        self.params.withdraw(name)
        self.published.pop(name, None)
        self._shown.pop(name, None)

    def on_checkpoint(self, function: Callable[[int], Any]) -> Callable[[int], Any]:
        """Have ``function(step)`` called on all ranks when a client calls ``checkpoint()``; also a decorator."""
        self._checkpoint = function
        return function

    def record(self) -> Record:
        """Return what was changed on this rank so far."""
        return Record(self.program, self.size, self._journal.changes, self._journal.is_complete)

    # --- what clients ask --------------------------------------------------------------------------------------

    def note_change(self, method: str, operation: bytes, body: Any) -> None:
        """Something is about to change the program."""
        self._journal.note(self._ticker.count, self._ticker.step, self.rank, method, operation, body)

    def asked(self, operation: operations.Steer, load: Callable[[], Any]) -> Any:
        """Do what a client asks; return the answer."""
        action = getattr(self, f"_do_{operation.action}", None)
        if action is None:
            raise ClientError(f"this program cannot {operation.action}: install the same release of ipmpi here")
        return action(operation, load)

    def _do_state(self, _operation: operations.Steer, _load: Callable[[], Any]) -> dict[str, Any]:
        ticker = self._ticker
        return {
            "program": self.program, "step": ticker.step, "tick": ticker.count, "paused": ticker.is_paused,
            "hold_at": ticker.hold_at, "params": dict(self.params), "ranks": self.size,
            "declared": {name: tuple(declared) for name, declared in self.params.declared.items()},
            "published": sorted(self.published), "checkpoint": self._checkpoint is not None,
            "stopped": self.stop_requested,
        }  # fmt: skip

    def _do_pause(self, operation: operations.Steer, load: Callable[[], Any]) -> dict[str, Any]:
        self._ticker.keep_paused(True)
        return self._do_state(operation, load)

    def _do_resume(self, operation: operations.Steer, load: Callable[[], Any]) -> dict[str, Any]:
        self._ticker.keep_paused(False)
        return self._do_state(operation, load)

    def _do_step(self, operation: operations.Steer, load: Callable[[], Any]) -> dict[str, Any]:
        self._ticker.keep_paused(False, self._ticker.count + operation.number)
        return self._do_state(operation, load)

    def _do_stop(self, operation: operations.Steer, load: Callable[[], Any]) -> dict[str, Any]:
        self.stop_requested = True
        return self._do_resume(operation, load)

    def _do_set(self, operation: operations.Steer, load: Callable[[], Any]) -> dict[str, Any]:
        values = load()
        for name, value in values.items():  # all of them or none
            self.params.check(name, value)
        self.params.update(values)
        return self._do_state(operation, load)

    def _do_call(self, _operation: operations.Steer, load: Callable[[], Any]) -> Any:
        function, args, kwargs = load()
        return function(*args, **kwargs)

    def _do_checkpoint(self, _operation: operations.Steer, _load: Callable[[], Any]) -> Any:
        if self._checkpoint is None:
            raise ClientError(
                f"the program {self.program} has no function that writes a checkpoint: it registers one by "
                "s.on_checkpoint(function), which is called with the number of the step"
            )
        return self._checkpoint(self._ticker.step)

    def _do_watch(self, operation: operations.Steer, _load: Callable[[], Any]) -> int:
        if operation.watch is None:
            raise ClientError("a watch without a name: install the same release of ipmpi here and there")
        asked = operation.watch
        watch = Watch(operation.number, asked.name, asked.every, asked.reduce, asked.published)
        self._watching.begin(watch)
        first = self._ticker.count + 1
        self._ticker.add_duty(operation.number, first + -first % watch.every, self._watching.duty(watch))
        return self._ticker.step

    def _do_unwatch(self, operation: operations.Steer, _load: Callable[[], Any]) -> None:
        self._watching.end(operation.number)

    def _do_record(self, _operation: operations.Steer, _load: Callable[[], Any]) -> bytes:
        return self.record().dumps()

    # --- replay ------------------------------------------------------------------------------------------------

    def _replay(self, record: Record) -> None:
        if record.ranks != self.size:
            raise ClientError(
                f"the record is of {record.ranks} ranks, and the program has {self.size} now: start as many"
            )
        left = record.of_rank(self.rank)
        if not left:
            return

        def apply(count: int) -> int:
            while left and left[0].tick <= count:
                self._apply(left.pop(0))
            return left[0].tick if left else NEVER

        self._ticker.add_duty("replay", left[0].tick, apply)

    def _apply(self, change: Change) -> None:
        answer = self._namespace.run(change.method, change.operation, [bytearray(part) for part in change.body])
        if not answer.ok:
            outcome = operations.decode_outcome(answer.outcome)
            text = f"{outcome.type_name}: {outcome.text}" if isinstance(outcome, operations.Failed) else ""
            print(
                f"ipmpi: {change.method} at step {change.step} of the record has failed: {text}", file=sys.stderr
            )
