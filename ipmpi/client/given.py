"""Checks of what a user gave, with sentences that say what was expected (layer L4, no I/O).

numpy's numbers count as numbers, True and False do not. The bounds are those of :mod:`ipmpi.limits`; each check
gives the value as the plain Python object that travels.
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Iterable
from typing import Any

from .. import limits


def whole_number(value: Any, what: str, least: int, most: int) -> int:
    """An int.

    Args:
        value: what was given.
        what: how messages call it.
        least: the smallest that is allowed.
        most: the largest.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is too small or too large.
    """
    if type(value) is not int:
        value = _indexed(value, f"{what} must be {_range(least, most)}")
    if not least <= value <= most:
        raise ValueError(f"{what} must be {_range(least, most)}: {shown(value)}")
    number: int = value
    return number


def seconds(value: Any, what: str) -> float | None:
    """A time that something may take: more than 0 and at most ``limits.LONGEST``; None for None.

    Raises:
        TypeError: it is no number.
        ValueError: it is none of these.
    """
    if value is None:
        return None
    number = _real(value, f"{what} must be a number of seconds above 0, or None")
    if not 0 < number <= limits.LONGEST:
        raise ValueError(
            f"{what} must be a number of seconds above 0 and at most {limits.LONGEST:.0f} (10 years), or None: "
            f"{shown(value)}"
        )
    return number


def waiting_time(value: Any) -> float | None:
    """How long to wait: None for as long as it takes, as for more than the system can count; not below 0.

    Raises:
        TypeError: it is no number.
        ValueError: it is not a number by name (nan).
    """
    if value is None:
        return None
    number = _real(value, "a timeout must be a number of seconds, or None to wait for as long as it takes")
    if math.isnan(number):
        raise ValueError("a timeout must be a number of seconds, or None to wait for as long as it takes: nan")
    return None if number >= threading.TIMEOUT_MAX else max(0.0, number)


def text(value: Any, what: str, most: int | None = None) -> str:
    """A str that can be sent.

    Raises:
        TypeError: it is no str.
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
            f"{what} has a character that is none (a lone surrogate, at {error.start}): {shown(value)}"
        ) from None
    return value


def names(values: Iterable[Any], what: str) -> list[str]:
    """Strs that can be sent, as a list.

    Raises:
        TypeError, ValueError: as :func:`text`; or there are too many.
    """
    found = [text(value, what) for value in values]
    if sum(map(len, found)) + 6 * len(found) > limits.NAMES:
        raise ValueError(
            f"{len(found)} names, or names so long, do not fit into one message: make several calls, or use a dict"
        )
    return found


def shown(value: Any) -> str:
    """A value as messages show it: short, and whatever its ``repr`` does."""
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
        if isinstance(value, bool) or type(value).__name__ == "bool":  # numpy's, too
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{expected}: {shown(value)}") from None


def _real(value: Any, expected: str) -> float:
    if isinstance(value, (bool, str, bytes)) or type(value).__name__ == "bool" or not hasattr(value, "__float__"):
        if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__index__"):
            raise TypeError(f"{expected}: {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except Exception:  # an array of several, a complex number
        raise TypeError(f"{expected}: {shown(value)}") from None


def _range(least: int, most: int) -> str:
    return f"an int from {least} to {most}"
