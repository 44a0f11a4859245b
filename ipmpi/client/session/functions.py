"""The functions of tasks, pickled as seldom as possible.

A function travels beside its tasks, named by a key. Submitting one task takes a few microseconds, pickling a
function of ``__main__`` a hundred: so a pickle is used again, as long as nothing can have changed that it holds.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from ... import byvalue, limits, serialize
from ...errors import SerializationError
from .given import shown

KEPT: Final = 128
"""Functions whose pickles are kept for the next time."""

_MISSING: Final = object()


def label_of(function: object) -> str:
    """How status displays and error messages call a function."""
    name = str(getattr(function, "__qualname__", type(function).__name__))[: limits.LABEL]
    return name.encode("utf-8", "backslashreplace").decode()[: limits.LABEL]


class Definition:
    """A pickled function.

    Attributes:
        key: what tasks call it by: a hash of the pickle.
        pickle: in one piece.
        label: its name, for people.
        space: of the program whose globals it sees on engines; b"" for those of the engine.
        cache: for whoever makes something of a definition again and again; it ends with the definition.
    """

    __slots__ = ("cache", "key", "label", "pickle", "space")

    def __init__(self, function: Callable[..., Any], space: bytes = b"") -> None:
        self.space = space
        self.label = label_of(function)
        self.pickle = serialize.in_one_piece(serialize.dumps(function, what=f"the function {self.label}"))
        if len(self.pickle) > limits.FUNCTION:
            raise SerializationError(
                f"the function {self.label} has {len(self.pickle)} bytes with all that it holds, and a task's "
                f"function may have {limits.FUNCTION}: push() the large part to the engines and use it there by "
                "name, or give it as an argument"
            )
        self.key = hashlib.blake2b(self.pickle, digest_size=16).digest()
        self.cache: dict[Any, Any] = {}


class OfThisProgram:
    """A function that is to see this program's globals on the engines, whatever others have put there."""

    __slots__ = ("function",)

    space: Final = os.urandom(8)
    """Names this program to the engines."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise TypeError(f"a function is needed, or something else to call, not {shown(function)}")
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function here."""
        return self.function(*args, **kwargs)


class _Kept:
    """A function, its definition, and what the pickle depends on."""

    __slots__ = ("definition", "function", "registered", "watched")

    def __init__(
        self, function: Any, definition: Definition, watched: _Watched | None, registered: frozenset[str]
    ) -> None:
        self.function = function
        self.definition = definition
        self.watched = watched
        self.registered = registered

    def is_current(self) -> bool:
        # What cloudpickle was told to send by value is no name any more.
        return self.registered == byvalue.registered_modules() and (
            self.watched is None or self.watched.is_unchanged()
        )


class FunctionShelf:
    """Definitions of functions; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By identity: two functions that are equal need not pickle alike, and not all can be hashed.
        self._kept: OrderedDict[tuple[int, bytes], _Kept] = OrderedDict()
        self._by_key: OrderedDict[tuple[bytes, bytes], Definition] = OrderedDict()

    def define(self, function: Callable[..., Any]) -> Definition:
        """The definition of a function as it is now.

        Raises:
            SerializationError: it cannot be pickled, or is too large; the message says what to do.
        """
        if not callable(function):
            raise TypeError(f"a function is needed, or something else to call, not {shown(function)}")
        space = b""
        if isinstance(function, OfThisProgram):
            space, function = function.space, function.function
        name = id(function), space
        kept = self._kept.get(name)
        if kept is not None and kept.function is function and kept.is_current():
            with self._lock:
                if name in self._kept:
                    self._kept.move_to_end(name)
            return kept.definition
        registered = byvalue.registered_modules()
        definition = Definition(function, space)
        watched, may_keep = _watch(function)
        with self._lock:
            # The same pickle is the same definition, so that tasks can go together.
            definition = self._by_key.setdefault((definition.key, space), definition)
            self._by_key.move_to_end((definition.key, space))
            if may_keep:
                self._kept[name] = _Kept(function, definition, watched, registered)
                self._kept.move_to_end(name)
            else:
                self._kept.pop(name, None)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            while len(self._by_key) > KEPT:
                self._by_key.popitem(last=False)
        return definition


# --- Whether a pickle made before is still good ------------------------------------------------------------


class _Watched:
    """Everything that the pickle of a function by value was made of, where all of it can be compared."""

    __slots__ = ("cells", "functions", "names")

    def __init__(self) -> None:
        self.functions: list[tuple[types.FunctionType, object, object, object]] = []
        self.names: list[tuple[dict[str, Any], str, object]] = []
        self.cells: list[tuple[types.CellType, object]] = []

    def is_unchanged(self) -> bool:
        for function, code, defaults, keywords in self.functions:
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not keywords
                or function.__dict__
            ):
                return False
        for names, name, value in self.names:
            if names.get(name, _MISSING) is not value:
                return False
        return all(_content(cell) is value for cell, value in self.cells)

    def add(self, function: types.FunctionType) -> bool:
        """Take note of a function; False if something that it holds may change without being another object."""
        if any(function is known for known, *_ in self.functions):
            return True
        if function.__dict__:
            return False
        defaults, keywords = function.__defaults__, function.__kwdefaults__
        self.functions.append((function, function.__code__, defaults, keywords))
        own: dict[str, Any] = keywords or {}
        named = [(function.__globals__, name) for name in serialize.names_used(function.__code__)]
        names = [
            (space, name, space.get(name, _MISSING)) for space, name in [*named, *((own, key) for key in own)]
        ]
        cells = [(cell, _content(cell)) for cell in function.__closure__ or ()]
        self.names += names
        self.cells += cells
        values = [*(defaults or ()), *(value for *_, value in names), *(value for _, value in cells)]
        return all(self._is_stable(value) for value in values)

    def _is_stable(self, value: Any) -> bool:
        kind = type(value)
        if value is _MISSING or kind in serialize.ATOMS:
            return True
        if kind is tuple or kind is frozenset:
            return all(self._is_stable(item) for item in value)
        if kind is types.ModuleType:
            return sys.modules.get(value.__name__) is value
        if kind is types.FunctionType and byvalue.needs_value(value):
            return self.add(value)
        return _is_fixed(value)


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was assigned yet
        return _MISSING


def _is_fixed(function: Any) -> bool:
    """Whether this is a function or class of which only the name is sent."""
    kind = type(function)
    if kind is types.BuiltinFunctionType:
        owner = function.__self__
        return owner is None or isinstance(owner, types.ModuleType)
    return (kind is types.FunctionType or issubclass(kind, type)) and not byvalue.needs_value(function)


def _watch(function: Any) -> tuple[_Watched | None, bool]:
    """What to compare before the pickle is used again (None: nothing), and whether it may be."""
    if _is_fixed(function):
        return None, True
    if type(function) is not types.FunctionType:
        return None, False
    watched = _Watched()
    return watched, watched.add(function)
