"""Checks of users' arguments; the messages say what was expected (no I/O).

NumPy numbers are accepted as numbers, bools are not. Each check returns the value as a plain Python object.
"""

from __future__ import annotations

import math
import operator
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from ... import limits
from ...errors import ClientError


class WrongType(TypeError, ValueError):
    """An argument of the wrong type; also a ValueError, which IPython.kernel raised for some of them."""


class WrongValue(ValueError, TypeError):
    """An argument of the right type with an invalid value; also a TypeError, for the same reason."""


def whole_number(value: Any, what: str, least: int, most: int) -> int:
    """Return an int.

    Args:
        value: the argument.
        what: its name in messages.
        least: the smallest allowed value.
        most: the largest.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is too small or too large.
    """
    expected = f"{what} must be an int" + (f", {least} or more" if least >= 0 else "")
    whole: int = value if type(value) is int else _indexed(value, expected)
    if least <= whole <= most:
        return whole
    if whole < least and least >= 0:
        raise WrongValue(f"{expected}: {shown(whole)}")
    raise ValueError(f"{what} must be an int from {least} to {most}: {shown(whole)}")


def integer(value: Any, what: str) -> int:
    """Return an int, clipped to ``sys.maxsize``; raises TypeError for anything else."""
    return max(-sys.maxsize, min(_indexed(value, f"{what} must be an int"), sys.maxsize))


def number(value: Any, what: str) -> float:
    """Return a float, which may be infinite or nan; raises TypeError for anything else."""
    return _real(value, f"{what} must be a number", "not ")


def seconds(value: Any, what: str) -> float | None:
    """Return a duration in seconds, more than 0 and at most ``limits.LONGEST``; None for None.

    Raises:
        TypeError: it is not a number.
        ValueError: it is out of range.
    """
    if value is None:
        return None
    expected = f"{what} must be a number of seconds above 0, or None"
    length = _real(value, expected)
    if not length > 0:
        raise WrongValue(f"{expected}: {shown(value)}")
    if length > limits.LONGEST:
        raise ValueError(
            f"{what} must be a number of seconds above 0 and at most {limits.LONGEST:.0f} (a century), or None: "
            f"{shown(value)}"
        )
    return length


def waiting_time(value: Any) -> float | None:
    """Return a timeout in seconds, 0 or more; None for no limit, and for more than the system can wait.

    Raises:
        TypeError: it is not a number.
        ValueError: it is nan.
    """
    if value is None:
        return None
    length = _real(value, "a timeout must be a number of seconds, or None to wait for as long as it takes")
    if math.isnan(length):
        raise ValueError("a timeout must be a number of seconds, or None to wait for as long as it takes: nan")
    return None if length >= threading.TIMEOUT_MAX else max(0.0, length)


def text(value: Any, what: str, most: int | None = None) -> str:
    """Return a str that can be sent.

    Raises:
        TypeError: it is not a str.
        ValueError: it is too long, or has lone surrogates.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {shown(value)}")
    if most is not None and len(value) > most:
        raise ValueError(f"{what} must have at most {most} characters, and has {len(value)}: {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} has a lone surrogate at index {error.start}, which UTF-8 cannot encode: {shown(value)}"
        ) from None
    return value


def source(value: Any, what: str) -> str:
    """Return source text that can be sent and compiled.

    Raises:
        TypeError, ValueError: as :func:`text`; or it has NUL characters.
        ClientError: it is too long.
    """
    text(value, what)
    size = len(value) if value.isascii() else len(value.encode())
    if size > limits.SOURCE:
        raise ClientError(
            f"{what} has {size} bytes, of at most {limits.SOURCE}: push() large data, and use it by name"
        )
    if "\0" in value:
        raise ValueError(f"{what} has a NUL character at index {value.index(chr(0))}: it is not a program")
    found: str = value
    return found


def path(value: Any, what: str) -> str:
    """Return the name of a file, which may be given as a path.

    Raises:
        TypeError, ValueError: it is not a valid file name.
    """
    name = os.fspath(value) if isinstance(value, os.PathLike) else value
    text(name, what, limits.LINE)
    if "\0" in name or not name:
        raise ValueError(f"{what} must be the name of a file: {shown(value)}")
    found: str = name
    return found


def function(value: Any, what: str) -> Callable[..., Any]:
    """Return a callable; raises TypeError for anything else."""
    if not callable(value):
        raise TypeError(f"{what} must be a function, or something else to call: {shown(value)}")
    found: Callable[..., Any] = value
    return found


def names(values: Iterable[Any], what: str) -> list[str]:
    """Return a list of strs that can be sent.

    Raises:
        TypeError, ValueError: as :func:`text`; or there are too many.
    """
    given = list(values)
    size = 6 * len(given) + sum(len(value) for value in given if isinstance(value, str))
    if size > limits.NAMES:
        raise ValueError(
            f"{len(given)} names of this length do not fit into one message: make several calls, or use a dict"
        )
    return [text(value, what) for value in given]


def shown(value: Any) -> str:
    """Return a value as messages show it: short, even if its ``repr`` raises."""
    try:
        if isinstance(value, int) and value.bit_length() > 256:
            return f"an int of {value.bit_length()} bits"
        whole = repr(value[:80] if isinstance(value, (str, bytes, list, tuple)) else value)
    except Exception as error:
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    whole = whole.encode("utf-8", "backslashreplace").decode()
    return whole if len(whole) <= 100 else f"{whole[:97]}..."


def _indexed(value: Any, expected: str) -> int:
    try:
        if isinstance(value, bool) or type(value).__name__ == "bool":  # also NumPy's bools
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{expected}: {shown(value)}") from None


def _real(value: Any, expected: str, before: str = "") -> float:
    wrong = f"{expected}, {before}{shown(value)}" if before else f"{expected}: {shown(value)}"
    is_number = hasattr(value, "__float__") or hasattr(value, "__index__")
    if not is_number or isinstance(value, (bool, str, bytes)) or type(value).__name__ == "bool":
        raise TypeError(wrong)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except Exception:  # an array of several elements, a complex number
        raise TypeError(wrong) from None
