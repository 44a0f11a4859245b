"""What a program that is steered has said of its arrays, for the functions that clients send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Program(NamedTuple):
    """The program in this process.

    Attributes:
        published: by name, objects with ``offset``, ``shape`` and ``halo``, each of which may be None.
        step: returns the number of the step that comes next.
    """

    published: Mapping[str, Any]
    step: Callable[[], int]


_program: list[Program] = []


def provide(published: Mapping[str, Any], step: Callable[[], int]) -> None:
    """Have :func:`program` return these; see :class:`Program`."""
    _program[:] = [Program(published, step)]


def program() -> Program | None:
    """Return the program in this process; None if it is an engine."""
    return _program[0] if _program else None


def current_step() -> int | None:
    """Return the step of the program in this process; None if it is an engine."""
    return _program[0].step() if _program else None
