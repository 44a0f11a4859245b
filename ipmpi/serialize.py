"""Objects to bodies and back: pickle protocol 5 with large buffers beside the stream.

A body is a list of *segments*: the pickle stream, then the buffers that stayed where they were. Nothing large
is copied, so a segment shows later changes of the array that it belongs to; send it before you change that.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Final

from ipmpi import byvalue, limits, returned
from ipmpi.errors import SerializationError

Buffer = bytes | bytearray | memoryview

OUT_OF_BAND: Final = 4 * limits.KIB
"""Buffers from this size on become segments; a smaller one costs less to copy than to send on its own."""

PROTOCOL: Final = 5

ATOMS: Final[frozenset[type]] = frozenset({int, float, complex, bool, str, bytes, type(None)})
"""Types whose pickles hold no look-up and no buffer: plain pickle does, which is much faster."""


def dumps(obj: object, *, what: str = "object") -> list[Buffer]:
    """The segments of ``obj``: the stream, then flat memoryviews of its large buffers (no copies).

    Contiguous numpy arrays stay where they are, others are copied into the stream. Functions and classes of
    ``__main__``, lambdas and closures travel by value, everything else importable by name.

    Args:
        obj: what to send.
        what: how error messages call the whole, say ``"'x'"`` or ``"the result of apply"``.

    Raises:
        SerializationError: some part cannot be pickled; the message says which one, and why.
    """
    if type(obj) in ATOMS:
        return [pickle.dumps(obj, PROTOCOL)]
    try:
        return _dump(byvalue.ByReference, obj)
    except MemoryError:
        raise
    except Exception:
        pass  # also when plain pickle cannot: cloudpickle knows more kinds of objects
    try:
        return _dump(byvalue.by_value_pickler(), obj)
    except MemoryError:
        raise
    except Exception as error:
        raise SerializationError(_explain(obj, what, error)) from error


def loads(segments: Sequence[Buffer]) -> Any:
    """The object that :func:`dumps` took apart; raises whatever its unpickling raises.

    Arrays use the memory of the segments, and are writable where a segment is (and the original was).
    """
    return unpickled(segments[0], segments[1:])


def unpickled(stream: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """The object of a pickle stream and its buffers. Classes of this process that come back stay as they are."""
    if b"cloudpickle" in bytes_of(stream):
        return returned.Unpickler(io.BytesIO(stream), buffers=buffers).load()
    return pickle.loads(stream, buffers=buffers)


def bytes_of(data: Buffer) -> bytes | bytearray:
    """The same data as something that can be searched, without a copy where it is that already."""
    return bytes(data) if isinstance(data, memoryview) else data


def in_one_piece(segments: Sequence[Buffer]) -> bytes:
    """What :func:`dumps` took apart as one pickle, for ``pickle.loads``: small things that travel in a batch."""
    return bytes(segments[0]) if len(segments) == 1 else pickle.dumps(_Segments(segments), PROTOCOL)


def by_value(function: Callable[..., Any]) -> types.FunctionType:
    """A copy of ``function`` that :func:`dumps` sends by value, whatever module it came from.

    Raises:
        TypeError: it is not a function made by ``def`` or ``lambda``.
    """
    if not isinstance(function, types.FunctionType):
        raise TypeError("function object expected")
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = function.__annotations__
    copy.__qualname__ = function.__qualname__
    copy.__doc__ = function.__doc__
    copy.__dict__.update(function.__dict__)
    copy.__module__ = "__main__"
    return copy


def stays_here(why: str) -> Callable[[Any, typing.SupportsIndex], typing.NoReturn]:
    """The ``__reduce_ex__`` of a class whose objects cannot leave their process.

    Args:
        why: a sentence, and what to do instead.
    """

    def refuse(self: Any, _protocol: typing.SupportsIndex) -> typing.NoReturn:
        raise SerializationError(f"{_with_article(type(self).__name__)} cannot be sent or pickled: {why}")

    _REFUSALS.add(refuse)
    return refuse


_REFUSALS: Final[set[object]] = set()


def _dump(pickler: byvalue.Pickler, obj: object) -> list[Buffer]:
    buffers: list[Buffer] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < OUT_OF_BAND or len(buffers) >= limits.SEGMENTS - 1:
            return True
        buffers.append(raw)
        return False

    stream = io.BytesIO()
    pickler(stream, protocol=PROTOCOL, buffer_callback=in_band).dump(obj)
    return [stream.getvalue(), *buffers]


# --- Which part cannot be sent -------------------------------------------------------------------------

_Part = tuple[str, object, object]
"""A label with ``{}`` for a key, the key, and the part itself."""

_DEEPEST: Final = 30


def _explain(obj: object, what: str, error: Exception) -> str:
    name = what if what != "object" else _noun(obj)
    if isinstance(error, RecursionError) or "recursion" in str(error):
        return f"cannot send {name}: it is nested too deeply to be pickled; send it in a flatter form"
    seen: set[int] = set()
    for _ in range(_DEEPEST):
        if type(obj).__reduce_ex__ in _REFUSALS:
            return f"cannot send {name}: {error}"
        seen.add(id(obj))
        found = _first_bad([part for part in _parts(obj) if id(part[2]) not in seen])
        if found is None:
            break
        (label, key, obj), error = found
        name = f"{label.format(_short(key))} of {name}"
    return f"cannot send {name}: {_reason(obj, error)}; leave it out, or create it on the side where it is used"


def _first_bad(parts: list[_Part]) -> tuple[_Part, Exception] | None:
    """The first part that cannot be sent, found by halving: one part in a long list takes few dumps."""
    while len(parts) > 1:
        first, second = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        parts = second if _failure([part[2] for part in first]) is None else first
    error = _failure(parts[0][2]) if parts else None
    return None if error is None else (parts[0], error)


def _failure(obj: object) -> Exception | None:
    try:
        _dump(byvalue.by_value_pickler(), obj)
    except Exception as error:
        return error
    return None


def _parts(obj: object) -> list[_Part]:
    if isinstance(obj, dict):
        return [("{}", key, value) for key, value in obj.items()] + [("key {}", key, key) for key in obj]
    if isinstance(obj, (list, tuple)):
        return [("item {}", number, value) for number, value in enumerate(obj)]
    if isinstance(obj, (set, frozenset)):
        return [("element {}", value, value) for value in obj]
    if isinstance(obj, types.FunctionType):
        return _parts_of_function(obj)
    if isinstance(obj, types.MethodType):
        return [("the object", None, obj.__self__)]
    try:
        attributes = vars(obj)
    except TypeError:
        return []
    return [("attribute {}", name, value) for name, value in attributes.items()]


def _parts_of_function(function: types.FunctionType) -> list[_Part]:
    code = function.__code__
    parts: list[_Part] = [("default value {}", value, value) for value in function.__defaults__ or ()]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            parts.append(("variable {}", name, cell.cell_contents))
        except ValueError:  # a cell that is still empty
            continue
    used = (name for name in names_used(code) if name in function.__globals__)
    parts.extend(("variable {}", name, function.__globals__[name]) for name in used)
    return parts


def names_used(code: types.CodeType) -> list[str]:
    """The global and attribute names in ``code`` and in the functions inside it, each once."""
    names = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(dict.fromkeys(names_used(constant)))
    return list(names)


def _noun(obj: object) -> str:
    if isinstance(obj, (types.FunctionType, type)):
        return f"the {'class' if isinstance(obj, type) else 'function'} {obj.__name__}"
    builtin: dict[type, str] = {dict: "dictionary", list: "list", tuple: "tuple", set: "set", frozenset: "set"}
    return f"the {builtin.get(type(obj), f'{_type_name(obj)} object')}"


def _type_name(obj: object) -> str:
    kind = type(obj)
    outside = kind.__module__ not in ("builtins", "__main__")
    return f"{kind.__module__}.{kind.__qualname__}" if outside else kind.__qualname__


def _with_article(name: str) -> str:
    return f"{'an' if name.strip('_').lower()[:1] in tuple('aeiou') else 'a'} {name}"


def _short(key: object) -> str:
    try:
        text = repr(key)
    except Exception:
        text = f"<{_type_name(key)}>"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _reason(obj: object, error: Exception) -> str:
    kind = _type_name(obj)
    sentence = f"{_with_article(kind)} object cannot be pickled"
    detail = str(error)
    # The usual message says just that; anything else (a __reduce__ that raises, a recursion) is news.
    usual = detail.startswith(("cannot pickle ", "can't pickle ")) and type(obj).__name__ in detail
    return sentence if usual else f"{sentence} ({type(error).__name__}: {detail})"


# --- Serialized objects of the original's interface ------------------------------------------------------


class Serialized:
    """An object in the form in which it travels: one buffer, what it is, and its shape if it is an array."""

    def __init__(
        self, data: Buffer, type_descriptor: str, metadata: dict[str, Any] | None = None, key: str = ""
    ) -> None:
        self._data = data
        self._type_descriptor = type_descriptor
        self._metadata = dict(metadata or {})
        self.key = key

    def getData(self) -> Buffer:
        """The pickle, or the elements of the array in C order."""
        return self._data

    def getDataSize(self, units: float = 10.0**6) -> float:
        """Size of the data in ``units`` of bytes, megabytes if not said."""
        return memoryview(self._data).nbytes / units

    def getTypeDescriptor(self) -> str:
        """``'pickle'`` or ``'ndarray'``."""
        return self._type_descriptor

    def getMetadata(self) -> dict[str, Any]:
        """``{'shape': ..., 'dtype': ...}`` of an array, else ``{}``."""
        return self._metadata

    def __reduce_ex__(self, protocol: typing.SupportsIndex) -> tuple[Any, ...]:
        data = pickle.PickleBuffer(self._data) if int(protocol) >= PROTOCOL else bytes(self._data)
        return (type(self), (data, self._type_descriptor, self._metadata, self.key))


def serialize(obj: object, key: str) -> Serialized:
    """The serialized form of ``obj``, to be pushed under the name ``key``; contiguous arrays are not copied.

    Raises:
        SerializationError: ``obj`` cannot be pickled.
    """
    numpy = sys.modules.get("numpy")  # who has an array has numpy
    if numpy is not None and type(obj) is numpy.ndarray:
        array: Any = obj
        if not array.dtype.hasobject and array.dtype.names is None:
            flat = numpy.ascontiguousarray(array).reshape(-1).view("u1") if array.size else b""
            return Serialized(memoryview(flat), "ndarray", {"shape": array.shape, "dtype": array.dtype.str}, key)
    segments = dumps(obj, what=repr(key))
    return Serialized(in_one_piece(segments), "pickle", key=key)


def unserialize(serialized: Serialized) -> Any:
    """The object; an array uses the memory of the serialized data."""
    data = serialized.getData()
    if serialized.getTypeDescriptor() == "pickle":
        return unpickled(data)
    import numpy

    metadata = serialized.getMetadata()
    return numpy.frombuffer(data, dtype=metadata["dtype"]).reshape(metadata["shape"])


class _Segments:
    """Pickles segments so that unpickling gives back the object that they are of."""

    def __init__(self, segments: Sequence[Buffer]) -> None:
        self._segments = segments

    def __reduce__(self) -> tuple[Any, ...]:
        return (loads, ([bytearray(segment) for segment in self._segments],))
