"""The ``initializer`` of executors and pools, which is sent as a part of each function."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

KEPT: Final = 128
"""How many functions are cached with their initializer, so that each is pickled once."""


class Initializer:
    """Calls an initializer on each engine, before the first call of each function there.

    Args:
        initializer: the function to call; None for none.
        initargs: its arguments.

    Raises:
        TypeError: ``initializer`` is not callable.
    """

    def __init__(self, initializer: Callable[..., object] | None, initargs: Iterable[Any] = ()) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._initializer = initializer
        self._initargs = tuple(initargs)
        # By identity; the function is kept, so that its identity is not reused.
        self._kept: OrderedDict[int, tuple[Callable[..., Any], Callable[..., Any]]] = OrderedDict()

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, wrapped so that its first call in a process calls the initializer first."""
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
    """Return the function, wrapped so that it calls the initializer once in each process it is sent to."""

    # A nested function is pickled by value: engines need not import the client. Its state lasts as long as the
    # namespace of the engine.
    def call_initialized(*args: Any, **kwargs: Any) -> Any:
        if not hasattr(call_initialized, "is_ready"):
            initializer(*initargs)
            call_initialized.is_ready = True  # type: ignore[attr-defined]
        return function(*args, **kwargs)

    return call_initialized
