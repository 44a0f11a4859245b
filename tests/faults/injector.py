"""Exceptions in any callback: of loops, and of everything in ``ipmpi.transport`` and the controller's sessions.

Nothing is listed by name. Whatever is handed to a :class:`Loop`, and whatever can be called and is handed to the
constructor of such a class, is wrapped; so what is added later is covered as well.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

import ipmpi.transport
from ipmpi.controller import sessions
from ipmpi.transport.loop import Loop

CALLS = {
    name: list(inspect.signature(method).parameters).index(parameter) - 1
    for name, method in vars(Loop).items()
    if inspect.isfunction(method) and not name.startswith("_")
    for parameter in inspect.signature(method).parameters
    if parameter in ("call", "callback")
}
"""The methods of a loop that take a callback, and at which place."""


class Injected(Exception):
    """Nobody in ipmpi foresees this."""


class Site(NamedTuple):
    """Where callbacks are made: in whose loop, how they came there, and which."""

    owner: str
    kind: str
    name: str


class _Wrapped:
    """A callback; equal to another one where what it wraps is, since a loop makes equal ones once a turn."""

    def __init__(self, injector: Injector, site: Site, call: Callable[..., Any]) -> None:
        self._injector = injector
        self._site = site
        self.call = call

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Wrapped) and self.call == other.call

    def __hash__(self) -> int:
        return hash(self.call)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._injector.reached(self._site, "before")
        result = self.call(*args, **kwargs)
        self._injector.reached(self._site, "after")
        return result


class Injector:
    """Counts callbacks, and raises in one of them."""

    def __init__(self) -> None:
        self.seen: Counter[Site] = Counter()
        self.raised = threading.Event()
        self.owners: dict[int, str] = {}
        """By the id of a loop; others are clients'."""
        self._lock = threading.Lock()
        self._target: tuple[Site, str] | None = None
        self._left = 0

    def arm(self, site: Site, when: str, number: int) -> None:
        """Raise in the ``number``-th call at a site from now on, 'before' or 'after' it does its work."""
        with self._lock:
            self.raised.clear()
            self._target, self._left = (site, when), number

    def disarm(self) -> None:
        """Raise no more."""
        with self._lock:
            self._target = None

    def reached(self, site: Site, when: str) -> None:
        """A callback is made."""
        with self._lock:
            if when == "before":
                self.seen[site] += 1
            if self._target != (site, when):
                return
            self._left -= 1
            if self._left > 0:
                return
            self._target = None
            self.raised.set()
        raise Injected(f"{when} {site.name}")

    # --- wrapping ------------------------------------------------------------------------------------------------

    def wrapped(self, loop: Loop, kind: str, call: Any) -> Any:
        """The same callback, in which this may raise."""
        if call is None or isinstance(call, _Wrapped):
            return call
        owner = self.owners.get(id(loop), "client")
        return _Wrapped(self, Site(owner, kind, _name(call)), call)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Wrap everything that is handed over from now on."""
        for name in CALLS:
            patch.setattr(Loop, name, self._registering(name, CALLS[name], getattr(Loop, name)))
        for kind in _classes():
            patch.setattr(kind, "__init__", self._constructing(kind.__name__, kind.__init__))

    def _registering(self, name: str, place: int, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def method(loop: Loop, *args: Any, **kwargs: Any) -> Any:
            given = list(args)
            if name != "register" or getattr(given[place], "__name__", "") != "_drain_wakeups":
                given[place] = self.wrapped(loop, name, given[place])
            return original(loop, *given, **kwargs)

        return method

    def _constructing(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def construct(made: Any, *args: Any, **kwargs: Any) -> None:
            loop = next((one for one in [*args, *kwargs.values()] if isinstance(one, Loop)), None)
            if loop is None:
                original(made, *args, **kwargs)
                return

            def cover(value: Any) -> Any:
                if dataclasses.is_dataclass(value) and not isinstance(value, type):
                    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
                    if any(map(_is_callback, fields.values())):
                        return dataclasses.replace(value, **{k: cover(v) for k, v in fields.items()})
                return self.wrapped(loop, name, value) if _is_callback(value) else value

            original(made, *map(cover, args), **{key: cover(value) for key, value in kwargs.items()})

        return construct


def _is_callback(value: Any) -> bool:
    return inspect.isroutine(value) or isinstance(value, functools.partial)


def _name(call: Any) -> str:
    while isinstance(call, functools.partial):
        call = call.func
    return str(getattr(call, "__qualname__", type(call).__qualname__))


def _classes() -> list[type]:
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(ipmpi.transport.__path__, "ipmpi.transport.")
    ]
    found = {
        value
        for module in [*modules, sessions]
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and "__init__" in vars(value)
    }
    return sorted(found - {Loop}, key=lambda kind: kind.__qualname__)
