"""A name of the engine's namespace as an argument of a call."""

from __future__ import annotations

from typing import Any, Final

ENGINE: Final = "__engine__"
"""Stands for the id of the engine, in functions of ours: users may give ``id`` another meaning."""


class Reference:
    """Stands for a value that is on the engines: as an argument of a call, it is replaced by that value there.

    >>> mec.apply(numpy.sum, Reference('x'))            # doctest: +SKIP

    calls ``numpy.sum(x)`` on every engine with its own ``x``. The name is looked up when the call begins, and a
    name that is not there is a NameError of the call.

    Works in the arguments of ``apply`` and ``map``, of tasks, and in values to ``push``; also inside lists and
    dicts. A task's function that holds one otherwise, in its closure for example, sees the Reference itself. It is
    immutable.

    Args:
        name: a name, or another expression, such as ``'x[0]'`` or ``'model.weights'``.

    Attributes:
        name: the expression.

    Raises:
        TypeError: ``name`` is not a str.
        SyntaxError, ValueError: it is not an expression of Python.
    """

    __slots__ = ("name",)
    name: str

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a Reference takes the name of a value on engines, a str, not {type(name).__name__}")
        compile(name.strip(), "<Reference>", "eval", dont_inherit=True)
        object.__setattr__(self, "name", name.strip())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Reference cannot be changed: make another one")

    def __repr__(self) -> str:
        return f"Reference({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, Reference) else NotImplemented

    def __hash__(self) -> int:
        return hash((Reference, self.name))

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return referenced, (self.name,)


def referenced(name: str) -> Reference:
    """Return a reference again; the unpicklers of engines look the name up instead."""
    return Reference(name)
