"""What pickles of plain data may name, and how each is called."""

from __future__ import annotations

import builtins
import collections
import contextlib
import datetime
import decimal
import fractions
import re
import zoneinfo
from collections.abc import Callable
from typing import Any, Final

from ipmpi import errors, raised

from .refused import Refused, check_types

Make = Callable[..., Any]


def _simple(make: Make, *kinds: type, most: int = 8) -> Make:
    """A maker that takes few arguments, all of these types."""

    def made(*args: Any) -> Any:
        check_types(kinds, *args)
        if len(args) > most:
            raise Refused("a call with too many arguments")
        return make(*args)

    return made


def _slice(*args: Any) -> slice:
    if len(args) != 3:
        raise Refused("a slice of another number of parts")
    return slice(*args)


def _collection(make: Make) -> Make:
    def made(*args: Any) -> Any:
        check_types((list, tuple, dict, set, frozenset), *args[:1])
        if len(args) > 1:
            raise Refused("a call with too many arguments")
        return make(*args)

    return made


def _deque(items: Any = (), maxlen: Any = None) -> Any:
    check_types((list, tuple), items)
    check_types((int, type(None)), maxlen)
    return collections.deque(items, maxlen)


_FRACTION: Final = re.compile(r"-?[0-9]+(/[0-9]+)?")


def _fraction(*args: Any) -> fractions.Fraction:
    check_types((int, str), *args)
    # Of other texts, such as "1e999999999", it would make numbers that fill the memory.
    if len(args) > 2 or not all(type(each) is int or _FRACTION.fullmatch(each) for each in args):
        raise Refused("a fraction of something else than numbers")
    return fractions.Fraction(*args)


def _bytes(*args: Any) -> bytearray:
    if len(args) > 1:
        raise Refused("a call with too many arguments")
    check_types((bytes, bytearray), *args)
    return bytearray(*args)


def _moment(kind: Any) -> Make:
    def made(*args: Any) -> Any:
        for each in args:
            if not (type(each) in (int, bytes) or each is None or isinstance(each, datetime.tzinfo)):
                raise Refused(f"a {kind.__name__} of {type(each).__name__}")
        # Of bytes, the constructor checks the month only; replace() checks all.
        return kind(*args).replace()

    return made


def _zone(offset: Any, name: Any = None) -> datetime.timezone:
    if type(offset) is not datetime.timedelta or not (name is None or type(name) is str):
        raise Refused("a timezone of something else than a timedelta")
    return datetime.timezone(offset) if name is None else datetime.timezone(offset, name)


def _named_zone(key: Any, _from_cache: Any = True) -> zoneinfo.ZoneInfo:
    check_types((str,), key)
    return zoneinfo.ZoneInfo(key)


def _attribute(owner: Any, name: Any) -> Any:
    """In place of ``getattr``, by which pickles name the function that makes a ZoneInfo, and nothing else."""
    if owner is not zoneinfo.ZoneInfo or name != "_unpickle":
        raise Refused("builtins.getattr", "builtins.getattr")
    return _named_zone


def _exception(kind: type[BaseException]) -> Make:
    def made(*args: Any) -> BaseException:
        return kind(*args)

    return made


def _rebuilt(kind: Any, base: Any, args: Any, shown: Any) -> BaseException:
    """As :func:`ipmpi.raised.rebuilt`, for exceptions of Python and ipmpi."""
    for each in (kind, base):
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise Refused("an exception of a class that is none")
    check_types((tuple,), args, shown)
    made: BaseException = raised.rebuilt(kind, base, args, shown)
    return made


def set_state(error: Any, state: Any) -> None:
    """As :func:`ipmpi.raised.set_state`, without the attributes that mean something to Python."""
    if not isinstance(error, BaseException) or type(state) is not dict:
        raise Refused("a state of something that is no exception")
    for name, value in state.items():
        check_types((str,), name)
        if not name.startswith("__") or (name == "__notes__" and type(value) is list):
            with contextlib.suppress(Exception):
                setattr(error, name, value)


NAMED: Final[dict[tuple[str, str], object]] = {
    **{(kind.__module__, kind.__name__): kind for kind in (
        complex, range, slice, set, frozenset, bytearray, collections.OrderedDict, collections.deque,
        datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone,
        fractions.Fraction, decimal.Decimal,
    )},
    **{(kind.__module__, kind.__name__): kind for module in (builtins, errors) for kind in vars(module).values()
       if isinstance(kind, type) and issubclass(kind, BaseException)},
    ("zoneinfo", "ZoneInfo"): zoneinfo.ZoneInfo,
    ("builtins", "getattr"): _attribute,
    ("ipmpi.raised", "rebuilt"): raised.rebuilt,
    ("ipmpi.raised", "set_state"): raised.set_state,
}  # fmt: skip
"""By module and name. Some are values as well, such as classes of exceptions."""

OWN: Final = frozenset({
    ("ipmpi.arrays.layout", "Block"), ("ipmpi.arrays.layout", "Layout"), ("ipmpi.arrays.local", "Found"),
    ("ipmpi.arrays.published", "Program"), ("ipmpi.arrays.summary", "Extreme"),
    ("ipmpi.arrays.summary", "Summary"),
})  # fmt: skip
"""Records of ipmpi in which engines answer questions about arrays. They are imported when they are needed."""

MAKERS: Final[dict[object, Make]] = {
    complex: _simple(complex, int, float, most=2),
    range: _simple(range, int, most=3),
    slice: _slice,
    set: _collection(set),
    frozenset: _collection(frozenset),
    bytearray: _bytes,
    collections.OrderedDict: _collection(collections.OrderedDict),
    collections.deque: _deque,
    datetime.datetime: _moment(datetime.datetime),
    datetime.date: _moment(datetime.date),
    datetime.time: _moment(datetime.time),
    datetime.timedelta: _simple(datetime.timedelta, int, float, most=7),
    datetime.timezone: _zone,
    _attribute: _attribute,
    _named_zone: _named_zone,
    fractions.Fraction: _fraction,
    decimal.Decimal: _simple(decimal.Decimal, str, int, most=1),
    raised.rebuilt: _rebuilt,
    raised.set_state: set_state,
    **{kind: _exception(kind) for kind in NAMED.values()
       if isinstance(kind, type) and issubclass(kind, BaseException)},
}  # fmt: skip
"""How they are called."""
