"""How exceptions are taken apart, so that they arrive as what they were.

Python's own way calls the class with ``args`` on the other side. That fails for every class whose constructor
wants something else, as many do. Here such an exception is made without its constructor, and gets its ``args`` and
attributes, as other objects do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

_STANDARD = "builtins"


def reduced(error: BaseException) -> Any:
    """What pickle's ``reducer_override`` returns for an exception; NotImplemented where Python's own way does."""
    kind = type(error)
    if kind.__module__ == _STANDARD or not _is_made_its_own_way(kind):
        return NotImplemented
    base = _standard_base(kind)
    # The class's own way of being taken apart counts, if it has one: it knows better.
    if kind.__reduce__ is not base.__reduce__ or kind.__reduce_ex__ is not base.__reduce_ex__:
        return NotImplemented
    taken: Any = base.__reduce__(error)
    args = taken[1] if len(taken) > 1 else error.args
    state = {**getattr(error, "__dict__", {}), **_slots(error)}
    return rebuilt, (kind, base, args, error.args), state, None, None, set_state


def rebuilt(kind: type[BaseException], base: type[BaseException], args: tuple[Any, ...], shown: Any) -> Any:
    """An exception made without its own constructor.

    Args:
        kind: its class.
        base: Python's own class that this is derived from, which may keep more than ``args``.
        args: what the constructor of ``base`` got.
        shown: its ``args``.
    """
    try:
        made = base.__new__(kind, *args)
    except Exception:  # args of another exception than of this base
        made = base.__new__(kind)
    with contextlib.suppress(Exception):
        base.__init__(made, *args)
    set_state(made, {"args": shown})
    return made


def set_state(error: BaseException, state: dict[str, Any]) -> None:
    """Give an exception its attributes; one that refuses to have one goes without."""
    for name, value in state.items():
        with contextlib.suppress(Exception):
            object.__setattr__(error, name, value)


def without(error: BaseException, is_sent: Callable[[object], bool]) -> BaseException | None:
    """A copy of an exception without the attributes that cannot be sent, which its notes name; None if all can."""
    state = {**getattr(error, "__dict__", {}), **_slots(error)}
    missing = sorted(name for name, value in state.items() if not is_sent(value))
    args = tuple(value if is_sent(value) else repr(value)[:200] for value in error.args)
    if not missing and len(args) == len(error.args) and all(a is b for a, b in zip(args, error.args, strict=True)):
        return None
    copy: BaseException = rebuilt(type(error), _standard_base(type(error)), args, args)
    set_state(copy, {name: value for name, value in state.items() if name not in missing})
    if missing:
        note = f"ipmpi: {', '.join(missing)} of this exception cannot be pickled, and stayed on the engine"
        set_state(copy, {"__notes__": [*getattr(error, "__notes__", ()), note]})
    return copy


def _is_made_its_own_way(kind: type[BaseException]) -> bool:
    return any(
        "__init__" in vars(each) or "__new__" in vars(each)
        for each in kind.__mro__
        if each.__module__ != _STANDARD and each is not object
    )


def _standard_base(kind: type[BaseException]) -> type[BaseException]:
    return next(each for each in kind.__mro__ if each.__module__ == _STANDARD and issubclass(each, BaseException))


def _slots(error: BaseException) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in type(error).__mro__:
        if each.__module__ == _STANDARD:
            continue
        slots = vars(each).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            own = f"_{each.__name__.lstrip('_')}{name}" if name[:2] == "__" and name[-2:] != "__" else name
            with contextlib.suppress(AttributeError):
                found[own] = getattr(error, own)
    return found
