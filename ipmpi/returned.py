"""Unpickling that leaves the classes of this process as they are.

cloudpickle knows a class that it has sent, and finds it when an object of it comes back. But then it assigns all
that the other side has as attributes of it, methods too, whose globals are copies: the class of this side would be
overwritten. Here only those classes take attributes that came from outside before.
"""

from __future__ import annotations

import pickle
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final

CLOUDPICKLE: Final = frozenset({"cloudpickle.cloudpickle", "cloudpickle.cloudpickle_fast"})

_foreign: weakref.WeakSet[type] = weakref.WeakSet()
"""Classes that this process has from another one."""


class Unpickler(pickle.Unpickler):
    """Knows the names by which a cloudpickle stream makes classes (they are its format, so they stay)."""

    def find_class(self, module: str, name: str, /) -> Any:
        """Called by pickle."""
        found = super().find_class(module, name)
        if module in CLOUDPICKLE:
            if name in ("_make_skeleton_class", "_make_skeleton_enum"):
                return _Skeletons(found)
            if name == "_class_setstate":
                return _States(found, self.is_own)
        return found

    def is_own(self, kind: type) -> bool:
        """Whether a class is this process's own."""
        return kind not in _foreign


class _Skeletons:
    """Makes a class, or finds the one that is meant."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        number = args[-2]  # the class's, for as long as it lives anywhere
        known = _known_classes().get(number)
        made = self._make(*args)
        if known is None:
            _foreign.add(made)
        return made


class _States:
    """Gives a class its attributes, if it is not this process's own."""

    def __init__(self, assign: Any, is_own: Callable[[type], bool]) -> None:
        self._assign = assign
        self._is_own = is_own

    def __call__(self, kind: type, state: Any) -> Any:
        return kind if self._is_own(kind) else self._assign(kind, state)


def _known_classes() -> Any:
    module = sys.modules["cloudpickle.cloudpickle"]
    return getattr(module, "_DYNAMIC_CLASS_TRACKER_BY_ID", {})
