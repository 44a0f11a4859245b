"""What functions and classes consist of, so that two that do the same, in two processes, are found to be equal.

Of a function: its bytecode and constants, with those of functions inside it; defaults; the variables of enclosing
functions, globals and modules that it uses, and what these consist of in turn. Neither its name nor its place in a
file counts, so it may be moved.
"""

from __future__ import annotations

import builtins
import dis
import enum
import functools
import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

Part = tuple[str, object]
"""How messages call a part, and the part."""

_SAYS_NOTHING: Final = frozenset({
    "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__",
    "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__abstractmethods__",
    "_abc_impl", "__parameters__", "__orig_bases__", "__type_params__",
})  # fmt: skip
"""Attributes that do not change what a class does."""

_GLOBAL: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})


class Undefined(NamedTuple):
    """In place of the value of a name that has none here, or whose value is Python's own."""

    name: str


class ModuleNamed(NamedTuple):
    """A module that a function imports when it runs."""

    name: str


class _Used(NamedTuple):
    names: tuple[str, ...]
    imports: tuple[tuple[str, int, tuple[str, ...]], ...]
    """Name, level of a relative import, and what is imported from there."""


@functools.lru_cache(maxsize=1024)
def _used(code: types.CodeType) -> _Used:
    names: dict[str, None] = {}
    imports: dict[tuple[str, int, tuple[str, ...]], None] = {}
    level, taken = None, None  # what IMPORT_NAME takes from the stack: the last two constants
    for each in dis.get_instructions(code):
        if each.opname in _GLOBAL:
            names[str(each.argval)] = None
        elif each.opname == "IMPORT_NAME":
            whence = level if isinstance(level, int) else 0
            imports[str(each.argval), whence, taken if isinstance(taken, tuple) else ()] = None
        level, taken = taken, each.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = _used(constant)
            names.update(dict.fromkeys(inner.names))
            imports.update(dict.fromkeys(inner.imports))
    return _Used(tuple(sorted(names)), tuple(sorted(imports)))


def of_code(code: types.CodeType) -> tuple[Any, ...]:
    """Return what a code object does: all but its name, its place in a file, and its constants."""
    return (
        code.co_code, getattr(code, "co_exceptiontable", b""), code.co_flags, code.co_argcount,
        code.co_posonlyargcount, code.co_kwonlyargcount, code.co_names, code.co_varnames, code.co_freevars,
        code.co_cellvars,
    )  # fmt: skip


def of_function(function: types.FunctionType) -> Iterator[Part]:
    """Yield the parts of a function, always in the same order."""
    code = function.__code__
    yield "its code", code
    for number, value in enumerate(function.__defaults__ or ()):
        yield f"its default value number {number}", value
    for name, value in sorted((function.__kwdefaults__ or {}).items()):
        yield f"its default value of {name}", value
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            content: object = cell.cell_contents
        except ValueError:  # not assigned yet
            content = Undefined(name)
        yield f"the variable {name!r} of the function around it", content
    used = _used(code)
    for name in used.names:
        yield f"the global variable {name!r}", _global(function, name)
    for name in sorted({module for each in used.imports for module in _imported(function, *each)}):
        yield f"the module {name!r}", ModuleNamed(name)
    if function.__dict__:
        yield "its attributes", dict(function.__dict__)


def _global(function: types.FunctionType, name: str) -> object:
    space = function.__globals__
    if name in space:
        found: object = space[name]
        # A name of Python's own that somebody has assigned again is like any other.
        return Undefined(name) if found is getattr(builtins, name, _NOTHING) else found
    return Undefined(name)


_NOTHING: Final = object()


def _imported(function: types.FunctionType, name: str, level: int, taken: tuple[str, ...]) -> Iterator[str]:
    package = function.__globals__.get("__package__") or ""
    try:
        whole = importlib.util.resolve_name("." * level + name, package) if level else name
    except (ImportError, ValueError):  # the call itself will say so
        return
    yield whole
    yield from (f"{whole}.{each}" for each in taken if f"{whole}.{each}" in sys.modules)


def of_class(kind: type) -> Iterator[Part]:
    """Yield the parts of a class, always in the same order."""
    yield "its name", kind.__qualname__
    for base in kind.__bases__:
        yield f"its base {base.__name__}", base
    own = dict(vars(kind))
    if issubclass(kind, enum.Enum):
        yield "its members", [(name, member.value) for name, member in kind.__members__.items()]
        own = {name: value for name, value in own.items() if isinstance(value, types.FunctionType | property)}
    for name, value in sorted(own.items()):
        if name not in _SAYS_NOTHING:
            yield f"its attribute {name!r}", value
