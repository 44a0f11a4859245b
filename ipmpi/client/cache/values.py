"""Digests of values: equal for equal values, in any process, on any machine.

Numbers, texts and containers count by type and content: ``1``, ``1.0`` and ``True`` differ. The order of dicts
and sets does not count, that of lists and tuples does. Arrays count by dtype, shape and elements; how they lie in
memory does not count. Functions and classes count by what they consist of (:mod:`.codeparts`). All other objects
count by class and by what pickle would send of them.
"""

from __future__ import annotations

import collections
import contextlib
import copyreg
import functools
import hashlib
import marshal
import operator
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from ... import serialize
from ...reference import Reference
from . import codeparts, modules
from .codeparts import ModuleNamed, Undefined

SIZE: Final = 16
"""Bytes of a digest."""

_MARSHAL: Final = 2
"""The last version of marshal's format in which nothing depends on which objects are shared or interned."""

_CACHED: Final[type] = type(functools.lru_cache(lambda: None))
_DESCRIPTORS: Final = (
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
    types.GetSetDescriptorType, types.MemberDescriptorType,
)  # fmt: skip


class NotComparable(Exception):
    """Nothing tells whether a value is equal to one of another process.

    Attributes:
        path: what it is, from the inside out.
        reason: the rest of a sentence that begins with it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def __str__(self) -> str:
        return f"{' of '.join(self.path)} {self.reason}" if self.path else self.reason


class Values:
    """Computes digests of values; not thread-safe.

    An object that occurs twice is looked at once, so it must not change while this is used.
    """

    def __init__(self) -> None:
        self._depths: dict[int, int] = {}
        self._known: dict[int, tuple[object, bytes]] = {}
        self._visits = 0
        self._reach = sys.maxsize
        """The least depth of an object that contains itself through what was looked at last."""

    def digest(self, value: Any) -> bytes:
        """Return the digest of a value.

        Raises:
            NotComparable: it has none.
            NoState: it belongs to a module whose state cannot be told.
        """
        if type(value) in serialize.ATOMS:
            return _sum(b"atom", marshal.dumps(value, _MARSHAL))
        name = id(value)
        known = self._known.get(name)
        if known is not None:
            return known[1]
        depth = self._depths.get(name)
        if depth is not None:  # the value contains itself
            self._reach = min(self._reach, depth)
            return _sum(b"around", b"%d" % (len(self._depths) - depth))
        before, self._reach = self._reach, sys.maxsize
        self._depths[name] = own = len(self._depths)
        self._visits += 1
        visit = self._visits
        try:
            found = self._of_kind(value)
        except RecursionError:
            raise NotComparable("is nested too deeply to be compared") from None
        finally:
            del self._depths[name]
        reach, self._reach = self._reach, min(before, self._reach if self._reach < own else sys.maxsize)
        # What is inside a circle depends on where one enters it. It is looked at once all the same, since the
        # ways through many objects that know each other are countless: later, the number of the visit counts.
        self._known[name] = (value, found if reach >= own else _sum(b"again", b"%d" % visit))
        return found

    def _part(self, label: str, value: object) -> bytes:
        try:
            return self.digest(value)
        except NotComparable as error:
            error.path.append(label)
            raise

    def _all(self, kind: bytes, parts: Iterable[codeparts.Part]) -> bytes:
        return _sum(kind, *(self._part(label, value) for label, value in parts))

    def _unordered(self, kind: bytes, parts: Iterable[codeparts.Part]) -> bytes:
        return _sum(kind, *sorted(self._part(label, value) for label, value in parts))

    # --- by type ---------------------------------------------------------------------------------------------

    def _of_kind(self, value: Any) -> bytes:
        kind = type(value)
        special = _SPECIAL.get(kind)
        if special is not None:
            return special(self, value)
        if isinstance(value, type):
            return self._of_class(value)
        if isinstance(value, _DESCRIPTORS):
            return _sum(b"descriptor", self.digest(value.__objclass__), value.__name__.encode())
        numpy = sys.modules.get("numpy")  # who has an array has numpy
        if numpy is not None:
            if kind is numpy.ndarray:
                return self._of_array(value)
            if isinstance(value, numpy.generic):
                return _sum(b"scalar", self._of_array(numpy.asarray(value)))
            if isinstance(value, numpy.dtype):
                return self._of_dtype(value)
        return self._of_object(value)

    def _of_list(self, value: list[Any] | tuple[Any, ...]) -> bytes:
        kind = type(value).__name__.encode()
        if serialize.ATOMS.issuperset(map(type, value)):
            return _sum(kind, marshal.dumps(tuple(value), _MARSHAL))
        return self._all(kind + b" of", ((f"item {number}", item) for number, item in enumerate(value)))

    def _of_dict(self, value: Mapping[Any, Any]) -> bytes:
        pairs = [
            self._part(f"the key {_short(key)}", key) + self._part(_short(key), item)
            for key, item in _in_order(value)
        ]
        return _sum(b"dict", *sorted(pairs))

    def _of_set(self, value: Iterable[Any]) -> bytes:
        return self._unordered(
            type(value).__name__.encode(), ((f"element {_short(each)}", each) for each in value)
        )

    def _of_bytes(self, value: bytearray) -> bytes:
        return _sum(b"bytearray", bytes(value))

    def _of_array(self, array: Any) -> bytes:
        head = _sum(b"array", self._of_dtype(array.dtype), repr(tuple(map(int, array.shape))).encode())
        if array.dtype.names is not None:  # bytes between the fields have no meaning
            return _sum(head, *(self._of_array(array[name]) for name in array.dtype.names))
        if array.dtype.hasobject:
            return _sum(head, self._part("its elements", array.ravel().tolist()))
        flat = array if array.flags.c_contiguous else array.copy(order="C")
        return _sum(head, flat.reshape(-1).view("u1").data if flat.size and flat.dtype.itemsize else b"")

    def _of_dtype(self, dtype: Any) -> bytes:
        if dtype.subdtype is not None:
            return _sum(b"dtype of arrays", self._of_dtype(dtype.base), repr(dtype.shape).encode())
        if dtype.names is None:
            return _sum(b"dtype", dtype.str.encode())
        parts: list[bytes] = []
        for name in dtype.names:
            field = dtype.fields[name]
            parts += [marshal.dumps((name, int(field[1])), _MARSHAL), self._of_dtype(field[0])]
        return _sum(b"dtype of fields", b"%d" % dtype.itemsize, *parts)

    # --- code ------------------------------------------------------------------------------------------------

    def _of_code(self, code: types.CodeType) -> bytes:
        own = marshal.dumps(codeparts.of_code(code), _MARSHAL)
        return _sum(b"code", own, *(self._part(f"the constant {_short(each)}", each) for each in code.co_consts))

    def _of_function(self, function: types.FunctionType) -> bytes:
        known = modules.installed(function.__module__ or "")
        if known and modules.has(function.__module__, function.__qualname__, function):
            return _sum(b"installed", known.encode(), function.__qualname__.encode())
        parts = [
            _sum(label.encode("utf-8", "backslashreplace"), self._part(label, value))
            for label, value in codeparts.of_function(function)
        ]
        return _sum(b"function", *parts)

    def _of_method(self, method: types.MethodType) -> bytes:
        return self._all(b"method", [("the method's function", method.__func__), ("its object", method.__self__)])

    def _of_builtin(self, function: Any) -> bytes:
        owner = function.__self__
        if owner is None or isinstance(owner, types.ModuleType):
            return self._named(function.__module__ or "builtins", function.__qualname__)
        return _sum(b"method", function.__name__.encode(), self._part("its object", owner))

    def _of_class(self, kind: type) -> bytes:
        known = modules.installed(kind.__module__)
        # A class that was made in C may have no name in its module, and consists of nothing else.
        if known and (_is_of_c(kind) or modules.has(kind.__module__, kind.__qualname__, kind)):
            return _sum(b"installed", known.encode(), kind.__qualname__.encode())
        parts = [
            _sum(label.encode("utf-8", "backslashreplace"), self._part(label, value))
            for label, value in codeparts.of_class(kind)
        ]
        return _sum(b"class", *parts)

    def _of_property(self, value: property) -> bytes:
        return self._all(b"property", [("its function", each) for each in (value.fget, value.fset, value.fdel)])

    def _of_wrapped(self, value: Any) -> bytes:
        return _sum(type(value).__qualname__.encode(), self._part("its function", value.__func__))

    def _of_lru_cache(self, value: Any) -> bytes:
        return _sum(b"lru_cache", self._part("its function", value.__wrapped__))

    def _of_cached_property(self, value: Any) -> bytes:
        return _sum(b"cached_property", self._part("its function", value.func))

    def _of_module(self, module: types.ModuleType) -> bytes:
        return self._named(module.__name__)

    def _of_imported(self, module: ModuleNamed) -> bytes:
        with contextlib.suppress(modules.NoState):  # one that cannot be found: the call itself will say so
            return _sum(b"imported", self._named(module.name))
        return _sum(b"imported", module.name.encode())

    def _named(self, module: str, name: str = "") -> bytes:
        """What can be found by a name, by the state of its module."""
        known = modules.installed(module)
        state = known.encode() if known else modules.contents(module)
        return _sum(b"named", state, name.encode("utf-8", "backslashreplace"))

    def _of_undefined(self, value: Undefined) -> bytes:
        return _sum(b"undefined", value.name.encode("utf-8", "backslashreplace"))

    # --- other objects ---------------------------------------------------------------------------------------

    def _refuse_reference(self, value: Reference) -> bytes:
        raise NotComparable(f"is {value!r}, whose value only engines know")

    def _of_object(self, value: Any) -> bytes:
        """As pickle takes an object apart."""
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            taken: Any = reduce(value) if reduce is not None else value.__reduce_ex__(serialize.PROTOCOL - 1)
        except RecursionError:
            raise
        except Exception:
            raise NotComparable(
                f"is {_a(type(value))} object, which has no content that could be compared in another process"
            ) from None
        if isinstance(taken, str):
            module = getattr(value, "__module__", None) or getattr(type(value), "__module__", "")
            return self._named(str(module), taken)
        whole: list[Any] = [*taken, None, None, None, None]
        make, arguments, state, items, pairs, setter = whole[:6]
        parts: list[bytes] = [self._part("its class", make)]
        parts += [self._part("its content", each) for each in arguments]
        parts.append(self._state(state))
        parts.append(b"" if items is None else self._part("its items", list(items)))
        parts.append(b"" if pairs is None else self._pairs(value, pairs))
        if setter is not None:
            parts.append(self._part("its class", setter))
        return _sum(b"object", *parts)

    def _state(self, state: Any) -> bytes:
        if type(state) is not dict:
            return self._part("its content", state)
        pairs = (self._part(f"attribute {_short(name)}", [name, value]) for name, value in _in_order(state))
        return _sum(b"attributes", *sorted(pairs))

    def _pairs(self, value: object, pairs: Iterator[tuple[Any, Any]]) -> bytes:
        if isinstance(value, collections.OrderedDict):
            return self._part("its items", list(pairs))
        return self._part("its items", dict(pairs))


_SPECIAL: Final[dict[type, Callable[[Values, Any], bytes]]] = {
    list: Values._of_list,
    tuple: Values._of_list,
    dict: Values._of_dict,
    types.MappingProxyType: Values._of_dict,
    set: Values._of_set,
    frozenset: Values._of_set,
    bytearray: Values._of_bytes,
    types.CodeType: Values._of_code,
    types.FunctionType: Values._of_function,
    types.MethodType: Values._of_method,
    types.BuiltinFunctionType: Values._of_builtin,
    types.ModuleType: Values._of_module,
    property: Values._of_property,
    staticmethod: Values._of_wrapped,
    classmethod: Values._of_wrapped,
    functools.cached_property: Values._of_cached_property,
    _CACHED: Values._of_lru_cache,
    ModuleNamed: Values._of_imported,
    Undefined: Values._of_undefined,
    Reference: Values._refuse_reference,
}


def _is_of_c(kind: type) -> bool:
    """Whether neither a class nor its bases have code or data in Python, as far as its attributes show."""
    return "__dict__" not in vars(kind) and "__weakref__" not in vars(kind) and "__slots__" not in vars(kind)


def _sum(kind: bytes, *parts: bytes | memoryview) -> bytes:
    """The digest of parts, each of which counts with its length."""
    whole = hashlib.blake2b(b"%d %b" % (len(kind), kind), digest_size=SIZE)
    for part in parts:
        whole.update(b"%d " % memoryview(part).nbytes)
        whole.update(part)
    return whole.digest()


def _in_order(pairs: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """The items, in an order that does not depend on that of insertion, if the keys are texts."""
    return sorted(pairs.items(), key=operator.itemgetter(0)) if set(map(type, pairs)) == {str} else pairs.items()


def _a(kind: type) -> str:
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[:1].lower() in tuple('aeiou') else 'a'} {name}"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}..."
