"""What travels by value, and the picklers that see to it.

Plain pickle sends functions and classes as names. What was defined in ``__main__``, or inside a function, has a
name that means nothing on the other side; cloudpickle sends it with its code. A few kinds of callables, which both
of them send as names, are taken apart here.
"""

from __future__ import annotations

import copyreg
import functools
import pickle
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, Final

from ipmpi import raised

Pickler = Callable[..., pickle.Pickler]

_Cached: Final[type] = type(functools.lru_cache(lambda: None))
_DISPATCH: Final = functools.singledispatch(lambda _: None).__code__  # type: ignore[attr-defined]
"""The code of all generic functions that ``functools.singledispatch`` makes."""


class NotByReference(Exception):
    """Plain pickle would send a name that means nothing, or something else, on the other side."""


class ByReference(pickle.Pickler):
    """Plain pickle that refuses what must travel by value. Builtin containers never reach Python code here."""

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle; raises :class:`NotByReference`."""
        kind = type(obj)
        if issubclass(kind, BaseException):
            return raised.reduced(obj)
        named = kind is typing.TypeVar or issubclass(kind, type) or callable(obj)
        if named and needs_value(obj):
            raise NotByReference
        return NotImplemented


@functools.cache
def by_value_pickler() -> Pickler:
    """The pickler for everything that :class:`ByReference` refuses; cloudpickle is imported when it is needed."""
    import cloudpickle

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            reduced = _reduced(obj)
            return super().reducer_override(obj) if reduced is NotImplemented else reduced

    return ByValue


def needs_value(obj: Any) -> bool:
    """Whether a function, class or other callable travels by value: its name means nothing on the other side."""
    module = getattr(obj, "__module__", None)
    if module == "__main__":
        return True
    qualname = getattr(obj, "__qualname__", "")
    if isinstance(qualname, str) and "<" in qualname:  # <lambda>, or inside <locals>
        return True
    modules = registered_modules()
    return bool(modules) and isinstance(module, str) and _is_within(module, modules)


def registered_modules() -> frozenset[str]:
    """Names of the modules that the user has told cloudpickle to send by value."""
    cloudpickle = sys.modules.get("cloudpickle")  # without it nobody can have registered a module
    return _NONE if cloudpickle is None else frozenset(cloudpickle.list_registry_pickle_by_value())


_NONE: Final[frozenset[str]] = frozenset()


def _is_within(module: str, packages: frozenset[str]) -> bool:
    """Whether a module or one of the packages that it is in is among ``packages``, as cloudpickle has it."""
    while module:
        if module in packages:
            return True
        module = module.rpartition(".")[0]
    return False


def _reduced(obj: Any) -> Any:
    kind = type(obj)
    if issubclass(kind, BaseException):
        return raised.reduced(obj)
    if kind is _Cached and needs_value(obj):
        parameters = obj.cache_parameters()
        return cached, (obj.__wrapped__, parameters["maxsize"], parameters["typed"])
    if kind is types.FunctionType and obj.__code__ is _DISPATCH and needs_value(obj):
        return generic, (obj.registry[object], dict(obj.registry))
    if kind is functools.cached_property and needs_value(obj.func):
        state = {name: value for name, value in vars(obj).items() if name != "lock"}  # Python 3.11 and before
        return functools.cached_property, (obj.func,), state
    # A decorator's object, say, that is meant to be found as what it decorates.
    own = isinstance(kind.__reduce__, types.FunctionType) or isinstance(kind.__reduce_ex__, types.FunctionType)
    if own and callable(obj) and needs_value(obj) and isinstance(obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL), str):
        return copyreg.__newobj__, (kind,), _state(obj)  # type: ignore[attr-defined]
    return NotImplemented


def _state(obj: Any) -> Any:
    get = getattr(obj, "__getstate__", None)  # all objects have it since Python 3.11
    return getattr(obj, "__dict__", None) if get is None else get()


def cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Callable[..., Any]:
    """A function with an ``lru_cache`` of its own, which is empty."""
    return functools.lru_cache(maxsize, typed)(function)


def generic(default: Callable[..., Any], registered: dict[type, Callable[..., Any]]) -> Callable[..., Any]:
    """What ``functools.singledispatch`` makes of a function and those that were registered with it."""
    made = functools.singledispatch(default)
    for kind, function in registered.items():
        made.register(kind, function)
    return made
