"""The cache of pickled functions of tasks.

A function is sent once, and tasks refer to it by a key. Submitting a task takes a few microseconds, pickling a
function of ``__main__`` a hundred: so a pickle is reused as long as nothing in it can have changed.
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
"""Functions whose pickles are cached."""

_MISSING: Final = object()


def label_of(function: object) -> str:
    """Return the name of a function in status displays and error messages."""
    name = str(getattr(function, "__qualname__", type(function).__name__))[: limits.LABEL]
    return name.encode("utf-8", "backslashreplace").decode()[: limits.LABEL]


class Definition:
    """A pickled function.

    Attributes:
        key: hash of the pickle, by which tasks refer to it.
        pickle: bytes.
        label: its name in messages.
        space: id of the program whose globals it uses on engines; b"" for those of the engine.
        cache: values derived from the definition, by any key.
    """

    __slots__ = ("cache", "key", "label", "pickle", "space")

    def __init__(self, function: Callable[..., Any], space: bytes = b"") -> None:
        self.space = space
        self.label = label_of(function)
        self.pickle = serialize.in_one_piece(serialize.dumps(function, what=f"the function {self.label}"))
        if len(self.pickle) > limits.FUNCTION:
            raise SerializationError(
                f"the function {self.label} has {len(self.pickle)} bytes with all that it holds, of at most "
                f"{limits.FUNCTION}: push() the large part to the engines and use it there by name, or pass it as "
                "an argument"
            )
        self.key = hashlib.blake2b(self.pickle, digest_size=16).digest()
        self.cache: dict[Any, Any] = {}


class OfThisProgram:
    """A function that uses this program's globals on the engines, not those of other clients."""

    __slots__ = ("function",)

    space: Final = os.urandom(8)
    """Identifies this program to the engines."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise TypeError(f"a function is needed, or something else to call, not {shown(function)}")
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function here."""
        return self.function(*args, **kwargs)


class _Kept:
    """A function, its definition, and what its pickle depends on."""

    __slots__ = ("definition", "fingerprint", "function", "registered")

    def __init__(
        self, function: Any, definition: Definition, fingerprint: _Fingerprint | None, registered: frozenset[str]
    ) -> None:
        self.function = function
        self.definition = definition
        self.fingerprint = fingerprint
        self.registered = registered

    def is_current(self) -> bool:
        # Registering a module with cloudpickle changes whether its functions are pickled by value.
        return self.registered == byvalue.registered_modules() and (
            self.fingerprint is None or self.fingerprint.is_unchanged()
        )


class FunctionCache:
    """Definitions of functions; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By identity: equal functions may pickle differently, and not all are hashable.
        self._kept: OrderedDict[tuple[int, bytes], _Kept] = OrderedDict()
        self._by_key: OrderedDict[tuple[bytes, bytes], Definition] = OrderedDict()

    def define(self, function: Callable[..., Any]) -> Definition:
        """Return the definition of a function in its present state.

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
        fingerprint, may_keep = _fingerprint(function)
        with self._lock:
            # One definition per pickle, so that tasks can be grouped.
            definition = self._by_key.setdefault((definition.key, space), definition)
            self._by_key.move_to_end((definition.key, space))
            if may_keep:
                self._kept[name] = _Kept(function, definition, fingerprint, registered)
                self._kept.move_to_end(name)
            else:
                self._kept.pop(name, None)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            while len(self._by_key) > KEPT:
                self._by_key.popitem(last=False)
        return definition


# --- whether a pickle is still valid -----------------------------------------------------------------------


class _Fingerprint:
    """Everything that a pickle by value was made of, to compare by identity."""

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
        """Add a function; return False if it holds mutable objects, whose changes could not be seen."""
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
    except ValueError:  # not assigned yet
        return _MISSING


def _is_fixed(function: Any) -> bool:
    """Return whether this is a function or class that is pickled by name."""
    kind = type(function)
    if kind is types.BuiltinFunctionType:
        owner = function.__self__
        return owner is None or isinstance(owner, types.ModuleType)
    return (kind is types.FunctionType or issubclass(kind, type)) and not byvalue.needs_value(function)


def _fingerprint(function: Any) -> tuple[_Fingerprint | None, bool]:
    """Return what to compare before reusing the pickle (None: nothing), and whether it may be reused."""
    if _is_fixed(function):
        return None, True
    if type(function) is not types.FunctionType:
        return None, False
    fingerprint = _Fingerprint()
    return fingerprint, fingerprint.add(function)
