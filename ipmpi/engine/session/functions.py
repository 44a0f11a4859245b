"""Functions that arrive on an engine, and the namespace that they see as their globals.

A function of the client's ``__main__`` is sent by value, with the globals that it uses. On the engine its globals
*are* the engine's namespace, as if it had been typed there; the globals that it brings are added by one rule:

* a name that was put on the engine (by push, execute, scatter, or an assignment in user code) stays as it is;
* any other name has the value that the latest function brought.

So ``x`` in an applied function is the engine's own part of a scattered ``x``, and an edited helper function
is used in its new form by the next call.

The names that ipmpi itself defines (``id``, ``mpi``, the history) are replaced by what a function brings: during
its call, or for good if it was pushed.
"""

from __future__ import annotations

import builtins
import io
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ipmpi import reference, returned, serialize
from ipmpi.serialize import Buffer

_MAIN: Final = "__main__"
_MISSING: Final = object()


class FunctionHome:
    """Unpickles objects of clients, giving functions of ``__main__`` these names as globals.

    Args:
        names: the namespace of the engine, or of one program (:mod:`ipmpi.engine.rank.programs`).
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names
        self._brought: dict[str, Any] = {}
        self._given: dict[str, Any] = {}
        self._covering: dict[str, Any] = {}
        self._stays = False
        self._carried: dict[str, Any] | None = None

    def loads(self, segments: Sequence[Buffer], *, stays: bool = False) -> Any:
        """Return the object in ``segments``.

        Args:
            segments: see :func:`ipmpi.serialize.dumps`.
            stays: whether it becomes part of the namespace, rather than serving one call only.

        Raises:
            ModuleNotFoundError: a module of the client is not on the engine; the message says what to do.
        """
        before, self._stays = self._stays, self._stays or stays
        try:
            return self.unpickler(segments).load()
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error}: it is needed here to rebuild what was sent. Install it on the engines, "
                f"or call cloudpickle.register_pickle_by_value(module) on the client to send its functions along",
                name=error.name,
                path=error.path,
            ) from None
        finally:
            self._stays = before

    def unpickler(self, segments: Sequence[Buffer]) -> FunctionUnpickler:
        """Return the unpickler that :meth:`loads` uses."""
        return FunctionUnpickler(self, self._names, segments)

    def load_function(self, segments: Sequence[Buffer]) -> tuple[Any, dict[str, Any]]:
        """Return a function to be kept, and the globals that it brought.

        Other functions may bring other values for these names: call :meth:`prepare` with them before each call.
        """
        carried: dict[str, Any] = {}
        self._carried = carried
        try:
            return self.loads(segments), carried
        finally:
            self._carried = None

    def adopt(self, function: object) -> types.FunctionType:
        """Return ``function`` with the namespace as its globals; raises TypeError for anything but a function.

        Names that it uses from its own module are added to the namespace, by the rule above.
        """
        if not isinstance(function, types.FunctionType):
            raise TypeError("function object expected")
        if function.__globals__ is self._names:
            return function
        used = serialize.names_used(function.__code__)
        self.bring({name: function.__globals__[name] for name in used if name in function.__globals__})
        copy = types.FunctionType(
            function.__code__, self._names, function.__name__, function.__defaults__, function.__closure__
        )
        copy.__kwdefaults__ = function.__kwdefaults__
        copy.__annotations__ = function.__annotations__
        copy.__qualname__ = function.__qualname__
        copy.__doc__ = function.__doc__
        copy.__dict__.update(function.__dict__)
        copy.__module__ = _MAIN
        return copy

    def give(self, values: Mapping[str, Any]) -> None:
        """Define names of ipmpi in the namespace, except those that the user has defined."""
        names, given = self._names, self._given
        for name, value in values.items():
            if name not in names or self.is_given(name):
                names[name] = value
            given[name] = value

    def is_given(self, name: str) -> bool:
        """Return whether the value of this name is ipmpi's."""
        return name in self._given and self._names.get(name, _MISSING) is self._given[name]

    def bring(self, carried: Mapping[str, Any]) -> None:
        """Add the globals of a function to the namespace, except names that were put on the engine."""
        names, brought, covering = self._names, self._brought, self._covering
        if self._carried is not None:
            self._carried.update(carried)
        for name, value in carried.items():
            if (self.is_given(name) and not self._stays) or (
                name in covering and names.get(name, _MISSING) is covering[name]
            ):
                names[name] = covering[name] = value
            elif (
                name not in names
                or (name in brought and names[name] is brought[name])
                or (self._stays and self.is_given(name))
            ):
                names[name] = brought[name] = value

    def look_up(self, expression: str) -> Any:
        """Return what a :class:`ipmpi.reference.Reference` stands for."""
        return eval(compile(expression, "<Reference>", "eval", dont_inherit=True), self._names)

    def prepare(self, carried: Mapping[str, Any]) -> None:
        """As :meth:`bring`, before a call of a kept function."""
        self.uncover()
        self.bring(carried)

    def uncover(self) -> None:
        """Restore the names of ipmpi that were replaced for a call."""
        if not self._covering:
            return
        for name, value in self._covering.items():
            if self._names.get(name, _MISSING) is value:
                self._names[name] = self._given[name]
        self._covering.clear()

    def own(self, keys: Iterable[str]) -> None:
        """Mark names as put on the engine."""
        if self._brought:
            for key in keys:
                self._brought.pop(key, None)

    def clear(self) -> None:
        """Forget which names functions brought, and which ipmpi defined."""
        self._brought.clear()
        self._covering.clear()
        self._given.clear()


class FunctionUnpickler(returned.Unpickler):
    """Replaces the two functions by which a cloudpickle stream makes functions (they are part of its format).

    This reaches every function of the stream: nested ones, methods, those in closures and partials.
    """

    def __init__(self, home: FunctionHome, names: dict[str, Any], segments: Sequence[Buffer]) -> None:
        super().__init__(io.BytesIO(segments[0]), buffers=segments[1:])
        self._home = home
        self._names = names

    def find_class(self, module: str, name: str, /) -> Any:
        """Called by pickle."""
        if module in returned.CLOUDPICKLE:
            if name == "_make_function":
                return self._make_function
            if name == "_function_setstate":
                return self._set_state
        elif module == _MAIN and name in self._names:
            return self._names[name]
        elif module == serialize.__name__ and name == "loads":
            return self._home.loads  # a pickle within this one
        elif module == reference.__name__ and name == reference.referenced.__name__:
            return self._home.look_up
        return super().find_class(module, name)

    def is_own(self, kind: type) -> bool:
        """Return whether a class, or one of its methods, was defined in this namespace."""
        return super().is_own(kind) and (
            self._names.get(kind.__name__) is kind
            or any(getattr(each, "__globals__", None) is self._names for each in vars(kind).values())
        )

    def _make_function(self, code: types.CodeType, carried: dict[str, Any], *rest: Any) -> types.FunctionType:
        if carried.get("__name__") != _MAIN:
            carried["__builtins__"] = builtins
            return types.FunctionType(code, carried, *rest)
        return types.FunctionType(code, self._names, *rest)

    def _set_state(self, function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
        from cloudpickle.cloudpickle import _function_setstate

        if function.__globals__ is self._names:
            attributes, slots = state
            self._home.bring(slots["__globals__"])
            state = (attributes, {**slots, "__globals__": {}})
        _function_setstate(function, state)
        function.__globals__["__builtins__"] = builtins
