"""Separate globals for each program that uses an executor, a pool or joblib.

Such a program expects its functions to see its own globals, whatever other clients have assigned on the engines.
So it has a namespace of its own on each engine. Names that its functions use and do not bring are looked up in the
engine's namespace, so that large data can be pushed and used by name.
"""

from __future__ import annotations

import builtins
import types
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ipmpi import serialize
from ipmpi.engine.session.functions import FunctionHome, FunctionUnpickler
from ipmpi.serialize import Buffer

_MAIN: Final = "__main__"
_MISSING: Final = object()


class ProgramHome(FunctionHome):
    """Gives functions of one program its own globals.

    Args:
        engine_names: the engine's namespace.
    """

    def __init__(self, engine_names: dict[str, Any]) -> None:
        self._engine_names = engine_names
        self._used: set[str] = set()
        self._borrowed: dict[str, Any] = {}
        super().__init__({"__name__": _MAIN, "__builtins__": builtins})

    def unpickler(self, segments: Sequence[Buffer]) -> FunctionUnpickler:
        """See :meth:`FunctionHome.unpickler`."""
        return _ProgramUnpickler(self, self._names, segments, self._engine_names)

    def uses(self, code: types.CodeType) -> None:
        """Functions of the program have this code."""
        self._used.update(name for name in serialize.names_used(code) if not hasattr(builtins, name))

    def borrow(self) -> None:
        """Copy the engine's present values of names that functions use and did not bring."""
        names, borrowed = self._names, self._borrowed
        for name in self._used:
            value = self._engine_names.get(name, _MISSING)
            if name in names and names[name] is not borrowed.get(name, _MISSING):
                continue  # the program's own
            if value is _MISSING:
                names.pop(name, None)
                borrowed.pop(name, None)
            else:
                names[name] = borrowed[name] = value

    def look_up(self, expression: str) -> Any:
        """As :meth:`FunctionHome.look_up`, among the names of the engine, which users of clients know."""
        return eval(compile(expression, "<Reference>", "eval", dont_inherit=True), self._engine_names)

    def bring(self, carried: Mapping[str, Any]) -> None:
        """Add the globals of a function to the program's names, except those that the program has assigned."""
        for name in carried.keys() & self._borrowed.keys():
            if self._names.get(name, _MISSING) is self._borrowed.pop(name):
                del self._names[name]
        super().bring(carried)


class _ProgramUnpickler(FunctionUnpickler):
    """Records the names that functions use."""

    def __init__(
        self, home: ProgramHome, names: dict[str, Any], segments: Sequence[Buffer], engine_names: dict[str, Any]
    ) -> None:
        super().__init__(home, names, segments)
        self._program = home
        self._engine_names = engine_names

    def find_class(self, module: str, name: str, /) -> Any:
        if module == _MAIN and name not in self._names and name in self._engine_names:
            return self._engine_names[name]
        return super().find_class(module, name)

    def _make_function(self, code: types.CodeType, carried: dict[str, Any], *rest: Any) -> types.FunctionType:
        if carried.get("__name__") == _MAIN:
            self._program.uses(code)
        return super()._make_function(code, carried, *rest)
