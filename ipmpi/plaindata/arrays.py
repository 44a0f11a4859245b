"""Arrays, scalars and dtypes of numpy, made of descriptions that are checked.

numpy's own functions believe what a pickle says about memory: a dtype with a field outside of its elements, for
example, would read and write what does not belong to the array.
"""

from __future__ import annotations

import math
import pickle
from typing import Any, Final

from .refused import Refused, check_types

OBJECTS: Final = "numpy.object_"
"""What to allow for arrays of objects. Their elements stay restricted."""

NUMPY: Final = frozenset({
    ("numpy", "dtype"), ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
})  # fmt: skip
"""What pickles of arrays name, before and since numpy 2."""


_ALIGNED: Final = 0x80
"""The flag of dtypes whose fields are aligned."""


class Arrays:
    """Makes arrays, scalars and dtypes, of descriptions that are checked.

    Args:
        objects: whether they may have objects as elements.
    """

    def __init__(self, objects: bool) -> None:
        import numpy  # not needed for other data

        self._numpy: Any = numpy
        self._objects = objects
        self.array, self.dtype = numpy.ndarray, numpy.dtype

    def named(self, name: str) -> object:
        """What a pickle gets for one of the names in ``NUMPY``."""
        found: object = {
            "dtype": self.dtype, "ndarray": self.array, "_reconstruct": self.empty, "scalar": self.scalar,
            "_frombuffer": self.of_buffer,
        }[name]  # fmt: skip
        return found

    def has(self, function: object) -> bool:
        """Whether it is one of these."""
        return (
            function is self.dtype
            or function is self.array
            or function in (self.empty, self.scalar, self.of_buffer)
        )

    def make(self, function: object, args: tuple[Any, ...]) -> Any:
        """Call one of them."""
        if function is self.dtype:
            return self.dtype_of(*args)
        if function is self.array:
            raise Refused("a call of numpy.ndarray")
        made: Any = function(*args)  # type: ignore[operator]
        return made

    def checked(self, dtype: Any) -> Any:
        """Return a dtype whose elements are not objects."""
        if not isinstance(dtype, self.dtype):
            raise Refused("an array without a dtype")
        if dtype.hasobject and not (self._objects and dtype.kind == "O"):
            raise Refused("an array of objects", OBJECTS)
        return dtype

    def dtype_of(self, spec: Any, align: Any = False, copy: Any = True) -> Any:
        """A new dtype, which :meth:`set_dtype` completes."""
        check_types((str,), spec)
        check_types((bool, int), align, copy)
        if len(spec) > 24 or spec[:1] not in tuple("bBiufcmMSUVOa?"):
            raise Refused(f"a dtype {spec[:40]!r}")
        return self.checked(self._numpy.dtype(spec, False, True))

    def set_dtype(self, dtype: Any, state: Any) -> None:
        """Give a new dtype byte order, unit or fields, if these fit."""
        check_types((tuple,), state)
        if not 8 <= len(state) <= 9:
            raise Refused("a dtype with a state of another length")
        _version, order, subdtype, names, fields = state[:5]
        if order not in ("<", ">", "|", "="):
            raise Refused("a dtype with another byte order")
        if names is None and fields is None and subdtype is None:
            wanted = self._numpy.dtype(dtype.str).newbyteorder(order) if order in "<>" else dtype
            if len(state) == 9 and state[8] is not None:
                wanted = self._with_unit(wanted, state[8])
        elif subdtype is not None:
            check_types((tuple,), subdtype)
            base, shape = subdtype
            wanted = self._numpy.dtype((self.checked(base), _shape(shape)))
        else:
            check_types((int,), state[5], state[7])
            if state[5] != dtype.itemsize:
                raise Refused("a dtype with another size than its name says")
            wanted = self._of_fields(dtype, names, fields, bool(state[7] & _ALIGNED))
        if wanted.itemsize != dtype.itemsize:
            raise Refused("a dtype with another size than its name says")
        dtype.__setstate__(wanted.__reduce__()[2])

    def _with_unit(self, dtype: Any, metadata: Any) -> Any:
        check_types((tuple,), metadata)
        if len(metadata) != 2 or type(metadata[1]) is not tuple or dtype.kind not in "mM":
            raise Refused("a dtype with metadata")
        unit, number, *_ = metadata[1]
        check_types((bytes, str), unit)
        check_types((int,), number)
        name = unit.decode("ascii") if isinstance(unit, bytes) else unit
        text = dtype.str if name == "generic" else f"{dtype.str[:3]}[{number}{name}]"
        return self._numpy.dtype(text)

    def _of_fields(self, dtype: Any, names: Any, fields: Any, aligned: bool) -> Any:
        check_types((tuple,), names)
        check_types((dict,), fields)
        formats, offsets = [], []
        for name in names:
            check_types((str,), name)
            field, offset, *_ = fields[name]
            check_types((int,), offset)
            formats.append(self.checked(field))
            offsets.append(offset)
        # numpy checks that they are inside of the item.
        described = {"names": list(names), "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize}
        return self.checked(self._numpy.dtype(described, align=aligned))

    def empty(self, kind: Any, shape: Any, typecode: Any) -> Any:
        """A new array, which :meth:`set_array` completes."""
        if kind is not self.array or shape != (0,) or typecode not in (b"b", "b"):
            raise Refused("an array of a class of its own")
        return self._numpy.ndarray((0,), "b")

    def set_array(self, array: Any, state: Any) -> None:
        """Give a new array its dtype, shape and elements, if these fit."""
        check_types((tuple,), state)
        if len(state) != 5 or array.shape != (0,):
            raise Refused("an array with a state of another length")
        version, shape, dtype, is_fortran, data = state
        check_types((int, bool), version, is_fortran)
        self.checked(dtype)
        count = math.prod(_shape(shape))
        if dtype.hasobject:
            check_types((list,), data)
            if len(data) != count:
                raise Refused("an array with fewer elements than its shape says")
        else:
            check_types((bytes,), data)
            if len(data) != count * dtype.itemsize:
                raise Refused("an array with fewer bytes than its shape says")
        array.__setstate__((1, _shape(shape), dtype, bool(is_fortran), data))

    def of_buffer(self, data: Any, dtype: Any, shape: Any, order: Any = "C", axes: Any = None) -> Any:
        """An array that uses a buffer of the pickle."""
        check_types((bytes, bytearray, memoryview, pickle.PickleBuffer), data)
        if self.checked(dtype).hasobject or order not in ("C", "F", "K"):
            raise Refused("an array of objects in a buffer")
        flat = self._numpy.frombuffer(data, dtype=dtype) if memoryview(data).nbytes else self._none(dtype, shape)
        if order == "K" and axes is not None:
            return flat.reshape(_shape(shape)).transpose(_shape(axes))
        return flat.reshape(_shape(shape), order="C" if order == "K" else order)

    def _none(self, dtype: Any, shape: Any) -> Any:
        if math.prod(_shape(shape)) * dtype.itemsize:
            raise Refused("an array with fewer bytes than its shape says")
        if not dtype.itemsize:
            raise Refused("an array of elements without a size")
        return self._numpy.empty(0, dtype)

    def scalar(self, dtype: Any, data: Any = b"") -> Any:
        """One element."""
        check_types((bytes,), data)
        if self.checked(dtype).hasobject or len(data) != dtype.itemsize:
            raise Refused("a scalar with fewer bytes than its dtype says")
        return self._numpy.frombuffer(data, dtype=dtype).copy()[0] if data else self._numpy.zeros((), dtype)[()]


def _shape(shape: Any) -> tuple[int, ...]:
    check_types((tuple, list), shape)
    check_types((int,), *shape)
    if len(shape) > 64 or any(not 0 <= each < 1 << 62 for each in shape):
        raise Refused("an array of an impossible shape")
    return tuple(shape)
