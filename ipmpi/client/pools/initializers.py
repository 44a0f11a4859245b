"""What an executor's or pool's ``initializer`` becomes: a part of the functions that are sent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

KEPT: Final = 128
"""Functions that are kept with their initializer, so that each is pickled once."""


class Initializer:
    """Has an initializer called on each engine, before the first call of each function there.

    Args:
        initializer: None: nothing is to be called.
        initargs: its arguments.

    Raises:
        TypeError: it cannot be called.
    """

    def __init__(self, initializer: Callable[..., object] | None, initargs: Iterable[Any] = ()) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._initializer = initializer
        self._initargs = tuple(initargs)
        # By identity, with the function, so that the identity stays its own.
        self._kept: OrderedDict[int, tuple[Callable[..., Any], Callable[..., Any]]] = OrderedDict()

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with the initializer before its first call in a process."""
        if self._initializer is None:
            return function
        kept = self._kept.get(id(function))
        if kept is None:
            kept = self._kept[id(function)] = function, initialized(function, self._initializer, self._initargs)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return kept[1]


def initialized(
    function: Callable[..., Any], initializer: Callable[..., object], initargs: tuple[Any, ...]
) -> Callable[..., Any]:
    """The same function, which calls the initializer once before, in each process that it is sent to."""

    # Made in here so that it travels by value: engines need not import the client. What it remembers is forgotten
    # with it, when the namespace of the engine is.
    def call_initialized(*args: Any, **kwargs: Any) -> Any:
        if not hasattr(call_initialized, "is_ready"):
            initializer(*initargs)
            call_initialized.is_ready = True  # type: ignore[attr-defined]
        return function(*args, **kwargs)

    return call_initialized
