"""The names that clients see in a program that is steered, and what they may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

import msgspec

from .. import parameters, serialize
from ..engine.session.namespace import CommandAnswer, Namespace
from ..parameters import Declared
from ..protocol import operations
from ..protocol.frames import Buffer

Place = Any
"""A NumPy array, or a memoryview, of one value: where a program in C keeps a parameter."""


class Parameters(MutableMapping[str, Any]):
    """The parameters that were declared; assigning one checks its type and shape.

    An array is changed in place, so a program may keep a reference to it.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._places: dict[str, Place] = {}
        self.declared: dict[str, Declared] = {}

    def declare(self, name: str, value: Any, place: Place = None) -> None:
        """Add one; with ``place`` its value is there, and not here."""
        self.declared[name] = parameters.declare(value)
        self._values[name] = value
        if place is not None:
            self._places[name] = place

    def withdraw(self, name: str) -> None:
        """Take one back, if it was declared."""
        for known in (self.declared, self._values, self._places):
            known.pop(name, None)

    def __getitem__(self, name: str) -> Any:
        place = self._places.get(name)
        return self._values[name] if place is None else place[0]

    def check(self, name: str, value: Any) -> Any:
        """Return ``value`` as the type of this parameter; AttributeError, TypeError or ValueError if it is not."""
        if name not in self.declared:
            raise AttributeError(parameters.unknown(name, self.declared))
        return parameters.checked(name, self.declared[name], value)

    def __setitem__(self, name: str, value: Any) -> None:
        value = self.check(name, value)
        declared = self.declared[name]
        if name in self._places:
            self._places[name][0] = value
        elif declared.kind == parameters.ARRAY and self._values[name].flags.writeable:
            self._values[name][...] = value
        else:
            self._values[name] = value

    def __contains__(self, name: object) -> bool:
        return name in self.declared

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"the program needs its parameter {name!r}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.declared)

    def __len__(self) -> int:
        return len(self.declared)

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        """Travel as a dict of the values: places mean nothing elsewhere."""
        return dict, (dict(self),)

    def __repr__(self) -> str:
        return repr(dict(self))


Steer = Callable[[operations.Steer, Callable[[], Any]], Any]
"""Does what a client asks of the program; the second argument returns what came with it."""


class ProgramNamespace(Namespace):
    """The names of a program: what it publishes, and what clients put there.

    Args:
        mpi: the module mpi4py.MPI, or None.
        steer: does what only programs can do.
        before_change: called with method, operation and body before what may change the program.
    """

    def __init__(
        self,
        mpi: object | None,
        steer: Steer,
        is_change: Callable[[bytes], bool],
        before_change: Callable[[str, bytes, Sequence[Buffer]], None],
    ) -> None:
        super().__init__(-1, mpi)
        # Figures that are open are the program's own.
        self.displays.close_figures = False
        self._steer_program = steer
        self._is_change = is_change
        self._before_change = before_change

    def run(self, method: str, operation: bytes, body: Sequence[Buffer], number: int = 0) -> CommandAnswer:
        """See :meth:`Namespace.run`."""
        try:
            if self._is_change(operation):
                self._before_change(method, operation, body)
        except msgspec.DecodeError:
            pass  # the answer says so
        return super().run(method, operation, body, number)

    def _steer(self, operation: operations.Steer, body: Sequence[Buffer]) -> CommandAnswer:
        result = self._steer_program(operation, lambda: self.home.loads(body) if body else None)
        if result is None:
            return CommandAnswer(True, operations.encode(operations.Nothing()), [])
        return CommandAnswer(
            True,
            operations.encode(operations.Value()),
            serialize.dumps(result, what=f"the answer to {operation.action}"),
        )
