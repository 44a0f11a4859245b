"""Parameters of a program that is steered: what a new value may be, checked at the client and on every rank."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from .ranges import engines_named

ARRAY: Final = "array"
_PLAIN: Final = {"bool": bool, "int": int, "float": float, "complex": complex, "str": str}


class Declared(NamedTuple):
    """What kind of value a parameter has: a type by name, or ``array`` with its dtype and shape."""

    kind: str
    dtype: str = ""
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.kind != ARRAY:
            return self.kind
        shape = "x".join(map(str, self.shape)) or "0-dimensional"
        return (
            f"array of {self.dtype}, {shape}" if len(self.shape) != 1 else f"array of {self.shape[0]} {self.dtype}"
        )


def declare(value: object) -> Declared:
    """Return what ``value`` is."""
    kind: type = type(value)
    if kind.__module__ == "numpy" or hasattr(value, "__array_interface__"):
        dtype, shape = value.dtype, tuple(value.shape)  # type: ignore[attr-defined]
        if shape or not hasattr(value, "item") or kind.__name__ == "ndarray":
            return Declared(ARRAY, str(dtype), shape)
        value = value.item()
    for name, plain in _PLAIN.items():
        if isinstance(value, plain):
            return Declared(name)
    before = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return Declared(before + kind.__qualname__)


def checked(name: str, declared: Declared, value: object) -> Any:
    """Return ``value`` as the type of the parameter.

    Raises:
        TypeError: it has another type.
        ValueError: it has another shape.
    """
    if declared.kind == ARRAY:
        return _as_array(name, declared, value)
    if hasattr(value, "item") and not getattr(value, "shape", None):
        value = value.item()
    given = declare(value)
    if given.kind == declared.kind:
        return value
    if declared.kind in ("float", "complex") and given.kind in ("int", "float"):
        try:
            return _PLAIN[declared.kind](value)
        except OverflowError:
            raise ValueError(f"{name} is a {declared}, and {_shown(value)} is too large for one") from None
    if declared.kind == "int" and isinstance(value, float) and math.isfinite(value) and value == int(value):
        raise TypeError(f"{name} is an int, and {value!r} is a float: {name} = {int(value)} would do")
    raise TypeError(f"{name} is of type {declared}, and {_shown(value)} is of type {given}")


def _as_array(name: str, declared: Declared, value: object) -> Any:
    import numpy

    try:
        found = numpy.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is an {declared}: {error}") from None
    if found.shape != declared.shape:
        raise ValueError(f"{name} is an {declared}, and the new value has the shape {found.shape}")
    if not numpy.can_cast(found.dtype, declared.dtype, "same_kind"):
        raise TypeError(f"{name} is an {declared}, and {found.dtype} cannot become {declared.dtype} without loss")
    return found.astype(declared.dtype)


def unknown(name: str, known: Mapping[str, object]) -> str:
    """Return the sentence for a name that is no parameter."""
    names = ", ".join(known) or "none"
    return f"{name!r} is no parameter of this program (it has {names}): attach({name}=...) would declare it"


def unequal(name: str, declared: dict[int, dict[str, Declared]]) -> str:
    """Return why a parameter cannot be changed, by what each engine has declared; "" if it can."""
    kinds: dict[str, list[int]] = {}
    for engine, each in declared.items():
        kinds.setdefault(str(each[name]) if name in each else "not declared", []).append(engine)
    if len(kinds) == 1:
        return ""
    told = "; ".join(f"{kind} on {engines_named(ids)}" for kind, ids in kinds.items())
    return (
        f"{name} is not the same on all ranks ({told}), so it cannot be changed: give attach({name}=...) a value "
        "of the same type and shape on each rank"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
