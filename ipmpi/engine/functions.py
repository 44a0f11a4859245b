"""Functions that arrive on an engine, and the namespace that they see as their globals (layer L2).

A function of the client's ``__main__`` travels by value, together with the globals that it uses. Here its
globals *are* the engine's namespace, as if it had been typed on the engine; what it brought along is put
there under one rule:

* a name that was put on the engine (by push, execute, scatter, or an assignment in user code) stays as it is;
* any other name is what the function that came last brought.

So ``x`` in an applied function is the engine's own part of a scattered ``x``, and an edited helper function
is used in its new form by the next call.
"""

from __future__ import annotations

import builtins
import io
import pickle
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ipmpi import serialize
from ipmpi.serialize import Buffer

_MAIN = "__main__"
_CLOUDPICKLE = frozenset({"cloudpickle.cloudpickle", "cloudpickle.cloudpickle_fast"})


class FunctionHome:
    """Unpickles what a client sent, giving functions of ``__main__`` the engine's namespace as globals."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names
        self._brought: dict[str, Any] = {}
        self._carried: dict[str, Any] | None = None

    def loads(self, segments: Sequence[Buffer]) -> Any:
        """The object in ``segments``.

        Raises:
            ModuleNotFoundError: a module of the client is not on the engine; the message says what to do.
        """
        try:
            return _Unpickler(self, self._names, segments).load()
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error}: it is needed here to rebuild what was sent. Install it on the engines, "
                f"or call cloudpickle.register_pickle_by_value(module) on the client to send its functions along",
                name=error.name,
                path=error.path,
            ) from None

    def load_function(self, data: Buffer) -> tuple[Any, dict[str, Any]]:
        """A function that is kept, and the globals that it came with.

        Another function may bring other things by these names meanwhile: :meth:`bring` them again before a call.
        """
        carried: dict[str, Any] = {}
        self._carried = carried
        try:
            return self.loads([data]), carried
        finally:
            self._carried = None

    def adopt(self, function: object) -> types.FunctionType:
        """``function`` with the namespace as its globals; TypeError for anything but a function.

        Names that it uses and that only its own module has are put in the namespace, by the rule above.
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

    def bring(self, carried: Mapping[str, Any]) -> None:
        """Put the globals of a function in the namespace, except those that are the engine's own."""
        names, brought = self._names, self._brought
        if self._carried is not None:
            self._carried.update(carried)
        for name, value in carried.items():
            if name not in names or (name in brought and names[name] is brought[name]):
                names[name] = brought[name] = value

    def own(self, keys: Iterable[str]) -> None:
        """These names are the engine's own from now on."""
        if self._brought:
            for key in keys:
                self._brought.pop(key, None)

    def clear(self) -> None:
        """Forget what functions brought."""
        self._brought.clear()


class _Unpickler(pickle.Unpickler):
    """Knows the two names by which a cloudpickle stream makes functions (they are its format, so they stay).

    Hooking there reaches every function of the stream: nested ones, methods, what closures and partials hold.
    """

    def __init__(self, home: FunctionHome, names: dict[str, Any], segments: Sequence[Buffer]) -> None:
        super().__init__(io.BytesIO(segments[0]), buffers=segments[1:])
        self._home = home
        self._names = names

    def find_class(self, module: str, name: str, /) -> Any:
        if module in _CLOUDPICKLE:
            if name == "_make_function":
                return self._make_function
            if name == "_function_setstate":
                return self._set_state
        elif module == _MAIN and name in self._names:
            return self._names[name]
        elif module == serialize.__name__ and name == "loads":
            return self._home.loads  # a pickle inside this one
        return super().find_class(module, name)

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
