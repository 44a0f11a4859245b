"""Objects in the namespaces of engines, and the properties of engines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, overload

from ... import serialize
from ...errors import InvalidProperty, SerializationError
from ...protocol import operations
from ..session import given, replies
from ..session.ownframes import all_raise_at_call
from ..session.results import PendingResult
from ..session.targets import Targets
from .commands import EngineCommands

Keys = str | Iterable[str]


def names_of(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The namespace as a plain dict; TypeError unless it maps str to objects."""
    if not isinstance(namespace, Mapping):
        raise TypeError(f"expected a dict of names and objects, not {given.shown(namespace)}")
    wrong = [key for key in namespace if not isinstance(key, str)]
    if wrong:
        raise TypeError(f"the names in the dict must be str, which {given.shown(wrong[0])} is not")
    given.names(namespace, "a name in the dict")
    return dict(namespace)


def keys_of(keys: Keys) -> tuple[list[str], bool]:
    """The names, and whether there is one only: then results are its values, not lists of values."""
    if not hasattr(keys, "__iter__"):
        raise TypeError(f"keys must be a str or a sequence of strs, not {given.shown(keys)}")
    names = [keys] if isinstance(keys, str) else list(keys)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TypeError(f"keys must be a str or a sequence of strs, and {given.shown(wrong[0])} is not a str")
    return given.names(names, "a key"), len(names) == 1


class _Unserialized:
    """Pickles a Serialized so that what arrives on the other side is the object itself."""

    def __init__(self, serialized: serialize.Serialized) -> None:
        if not isinstance(serialized, serialize.Serialized):
            raise TypeError(f"expected a Serialized object (see ipmpi.serialize.serialize), not {serialized!r}")
        self._serialized = serialized

    def __reduce__(self) -> tuple[Any, ...]:
        return (serialize.unserialize, (self._serialized,))


@all_raise_at_call
class EngineObjects(EngineCommands):
    """Base of :class:`EngineView`: moving objects to and from engines, and their properties.

    :class:`EngineView` describes ``targets``, ``block`` and the exceptions that all methods raise.
    """

    @overload
    def push(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, *, block: Literal[True]
    ) -> list[None]: ...
    @overload
    def push(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[None]]: ...
    @overload
    def push(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, block: bool | None = None
    ) -> Any: ...
    def push(self, namespace: Mapping[str, Any], targets: Targets | None = None, block: bool | None = None) -> Any:
        """Assign objects to names in the namespaces of engines.

        Every engine gets its own copy. NumPy arrays keep dtype, shape and memory order (a non-contiguous array
        arrives C-contiguous). With ``block=True`` their memory is sent without being copied first; with
        ``block=False`` it is copied, so that the array may be changed at once.

        Args:
            namespace: names and the objects to assign to them.
            targets: the engines that get them.
            block: whether to wait.

        Returns:
            ``[None, ...]``, one per engine. With ``block=False``, a :class:`PendingResult` of it.

        Raises:
            TypeError: ``namespace`` is not a mapping with str keys.
            SerializationError: an object cannot be pickled; the message names it.
        """
        return self._push(operations.Push(), "push", namespace, targets, block)

    @overload
    def push_function(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, *, block: Literal[True]
    ) -> list[None]: ...
    @overload
    def push_function(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[None]]: ...
    @overload
    def push_function(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, block: bool | None = None
    ) -> Any: ...
    def push_function(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, block: bool | None = None
    ) -> Any:
        """Assign functions to names on engines, so that their global names resolve in the engine's namespace.

        The code object itself is sent, so engines need not be able to import the module that defines the function.

        Args:
            namespace: names and functions.
            targets: the engines that get them.
            block: whether to wait.

        Returns:
            ``[None, ...]``, one per engine. With ``block=False``, a :class:`PendingResult` of it.

        Raises:
            TypeError: a value is not a function.
        """
        functions = {name: serialize.by_value(function) for name, function in names_of(namespace).items()}
        return self._push(operations.PushFunction(), "push_function", functions, targets, block)

    @overload
    def push_serialized(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, *, block: Literal[True]
    ) -> list[None]: ...
    @overload
    def push_serialized(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[None]]: ...
    @overload
    def push_serialized(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, block: bool | None = None
    ) -> Any: ...
    def push_serialized(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, block: bool | None = None
    ) -> Any:
        """Assign objects that are already pickled; as :meth:`push`.

        Args:
            namespace: names and :class:`~ipmpi.serialize.Serialized` objects. These are not unpickled here.
            targets: the engines that get them.
            block: whether to wait.

        Returns:
            ``[None, ...]``, one per engine. With ``block=False``, a :class:`PendingResult` of it.
        """
        rebuilt = {name: _Unserialized(item) for name, item in names_of(namespace).items()}
        return self._push(operations.Push(), "push_serialized", rebuilt, targets, block)

    def _push(
        self,
        operation: operations.Operation,
        method: str,
        namespace: Mapping[str, Any],
        targets: Targets | None,
        block: bool | None,
    ) -> Any:
        named = names_of(namespace)
        body = serialize.dumps(named, what="the namespace")
        return self._command(operation, method, (list(named),), targets, block, body=body)

    @overload
    def pull(self, keys: Keys, targets: Targets | None = None, *, block: Literal[True]) -> list[Any]: ...
    @overload
    def pull(
        self, keys: Keys, targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[Any]]: ...
    @overload
    def pull(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any: ...
    def pull(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Get the objects that names stand for on engines.

        NumPy arrays arrive with their dtype, shape and memory order, and are writable.

        Args:
            keys: one name, or a sequence of names.
            targets: the engines to get them from.
            block: whether to wait.

        Returns:
            A list with one item per engine, in the order of the targets: the object itself for one name, the list
            of objects for several. ``pull('a')`` is ``[a0, a1, ...]`` and ``pull(['a', 'b'])`` is ``[[a0, b0],
            [a1, b1], ...]``. With ``block=False``, a :class:`PendingResult` of it.

        Raises:
            TypeError: ``keys`` is neither a str nor a sequence of str.
            CompositeError: a name is not defined on an engine (NameError), or its object cannot be pickled.
        """
        return self._command(operations.Pull(*keys_of(keys)), "pull", (keys,), targets, block)

    @overload
    def pull_function(self, keys: Keys, targets: Targets | None = None, *, block: Literal[True]) -> list[Any]: ...
    @overload
    def pull_function(
        self, keys: Keys, targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[Any]]: ...
    @overload
    def pull_function(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any: ...
    def pull_function(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Get functions from engines; arguments, result and exceptions are those of :meth:`pull`.

        The code object itself is sent.
        """
        return self._command(operations.PullFunction(*keys_of(keys)), "pull_function", (keys,), targets, block)

    @overload
    def pull_serialized(
        self, keys: Keys, targets: Targets | None = None, *, block: Literal[True]
    ) -> list[Any]: ...
    @overload
    def pull_serialized(
        self, keys: Keys, targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[Any]]: ...
    @overload
    def pull_serialized(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any: ...
    def pull_serialized(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any:
        """As :meth:`pull`, but each value is a :class:`~ipmpi.serialize.Serialized` object."""
        names, single = keys_of(keys)

        def finish(arrived: list[Any]) -> list[Any]:
            found = replies.values(arrived, "pull_serialized", (keys,))
            if single:
                return [serialize.serialize(value, names[0]) for value in found]
            return [list(map(serialize.serialize, row, names)) for row in found]

        return self._command(operations.Pull(names, single), "pull_serialized", (keys,), targets, block, finish)

    @overload
    def zip_pull(self, keys: Keys, targets: Targets | None = None, *, block: Literal[True]) -> list[Any]: ...
    @overload
    def zip_pull(
        self, keys: Keys, targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[Any]]: ...
    @overload
    def zip_pull(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any: ...
    def zip_pull(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Get the objects that names stand for, grouped by name; otherwise as :meth:`pull`.

        Returns:
            For several names a list with one tuple per name, each with one item per engine: ``[(a0, a1, ...), (b0,
            b1, ...)]``. For one name the list that :meth:`pull` returns. For several names from a single engine
            the list of that engine's objects, ``[a, b]``. With ``block=False``, a :class:`PendingResult` of it.
        """
        names, single = keys_of(keys)

        def finish(arrived: list[Any]) -> list[Any]:
            found = replies.values(arrived, "zip_pull", (keys,))
            if single:
                return found
            return list(zip(*found, strict=True)) if len(found) != 1 else list(found[0])

        return self._command(operations.Pull(names, single), "zip_pull", (keys,), targets, block, finish)

    # --- Properties ---------------------------------------------------------------------------------------

    @overload
    def set_properties(
        self, properties: Mapping[str, Any], targets: Targets | None = None, *, block: Literal[True]
    ) -> list[None]: ...
    @overload
    def set_properties(
        self, properties: Mapping[str, Any], targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[None]]: ...
    @overload
    def set_properties(
        self, properties: Mapping[str, Any], targets: Targets | None = None, block: bool | None = None
    ) -> Any: ...
    def set_properties(
        self, properties: Mapping[str, Any], targets: Targets | None = None, block: bool | None = None
    ) -> Any:
        """Set properties of engines, which conditions of tasks (``depend=``) can test.

        Args:
            properties: names and values; each engine gets a copy.
            targets: the engines to set them on.
            block: whether to wait.

        Returns:
            ``[None, ...]``, one per engine. With ``block=False``, a :class:`PendingResult` of it.

        Raises:
            InvalidProperty: a value cannot be pickled; the message names it.
        """
        named = names_of(properties)
        try:
            body = serialize.dumps(named, what="the properties")
        except SerializationError as error:
            raise InvalidProperty(str(error)) from error
        operation = operations.SetProperties()
        return self._command(operation, "set_properties", (list(named),), targets, block, body=body)

    @overload
    def get_properties(
        self, keys: Keys | None = None, targets: Targets | None = None, *, block: Literal[True]
    ) -> list[dict[str, Any]]: ...
    @overload
    def get_properties(
        self, keys: Keys | None = None, targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[dict[str, Any]]]: ...
    @overload
    def get_properties(
        self, keys: Keys | None = None, targets: Targets | None = None, block: bool | None = None
    ) -> Any: ...
    def get_properties(
        self, keys: Keys | None = None, targets: Targets | None = None, block: bool | None = None
    ) -> Any:
        """Get properties of engines.

        Args:
            keys: one name, or a sequence of names; None for all properties.
            targets: the engines to ask.
            block: whether to wait.

        Returns:
            One dict per engine. With ``block=False``, a :class:`PendingResult` of the list.

        Raises:
            CompositeError: an engine lacks a property that was named (KeyError).
        """
        names = None if keys is None else keys_of(keys)[0]
        return self._command(operations.GetProperties(names), "get_properties", (keys,), targets, block)

    @overload
    def has_properties(
        self, keys: Keys, targets: Targets | None = None, *, block: Literal[True]
    ) -> list[list[bool]]: ...
    @overload
    def has_properties(
        self, keys: Keys, targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[list[bool]]]: ...
    @overload
    def has_properties(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any: ...
    def has_properties(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Test whether engines have these properties.

        Returns:
            One list per engine, with one bool per name: ``[[True, False], ...]``. With ``block=False``, a
            :class:`PendingResult` of it.
        """
        operation = operations.HasProperties(keys_of(keys)[0])
        return self._command(operation, "has_properties", (keys,), targets, block)

    @overload
    def del_properties(
        self, keys: Keys, targets: Targets | None = None, *, block: Literal[True]
    ) -> list[None]: ...
    @overload
    def del_properties(
        self, keys: Keys, targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[None]]: ...
    @overload
    def del_properties(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any: ...
    def del_properties(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Delete these properties of engines.

        Returns:
            ``[None, ...]``, one per engine. With ``block=False``, a :class:`PendingResult` of it.

        Raises:
            CompositeError: an engine lacks one of them (KeyError).
        """
        operation = operations.DelProperties(keys_of(keys)[0])
        return self._command(operation, "del_properties", (keys,), targets, block)

    @overload
    def clear_properties(self, targets: Targets | None = None, *, block: Literal[True]) -> list[None]: ...
    @overload
    def clear_properties(
        self, targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[None]]: ...
    @overload
    def clear_properties(self, targets: Targets | None = None, block: bool | None = None) -> Any: ...
    def clear_properties(self, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Delete all properties of engines.

        Returns:
            ``[None, ...]``, one per engine. With ``block=False``, a :class:`PendingResult` of it.
        """
        return self._command(operations.ClearProperties(), "clear_properties", (), targets, block)
