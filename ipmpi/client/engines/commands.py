"""Commands: everything that given engines run.

How a call travels is in :mod:`.calls`, what becomes of the replies in :mod:`.replies`.
"""

from __future__ import annotations

import functools
import os
import tokenize
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ... import limits, serialize
from ...errors import InvalidProperty, SerializationError
from ...protocol import operations
from ..session import given, replies
from ..session.calls import Calls, Finish, label_of
from ..session.functions import label_of as name_of
from ..session.results import ResultList, RunResults
from ..session.session import Submission
from ..session.targets import Targets, parse_block, parse_targets
from .reservation import Reservation

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


class EngineCommands:
    """The part of :class:`EngineView` that engines carry out; see there for ``targets`` and ``block``.

    Attributes:
        block: whether calls wait for their results.
        targets: an engine id, a list of ids, or ``'all'``.
    """

    def __init__(
        self, calls: Calls, ids: Sequence[int] | None = None, targets: Targets | None = None, block: bool = True
    ) -> None:
        self._calls = calls
        self._ids = None if ids is None else list(ids)
        self.targets: Targets = ("all" if ids is None else list(ids)) if targets is None else targets
        self.block = block

    # --- Which engines ----------------------------------------------------------------------------------

    def get_ids(self) -> list[int]:
        """The ids of the engines of this view; of a client: of all that are registered now. Always waits."""
        return self._calls.ids() if self._ids is None else list(self._ids)

    def _wanted(self, targets: Targets | None) -> list[int] | None:
        wanted = parse_targets(self.targets if targets is None else targets)
        return self._ids if wanted is None else wanted

    def _waits(self, block: bool | None) -> bool:
        return parse_block(self.block if block is None else block)

    def reserve(self, targets: Targets | None = None) -> Reservation:
        """Return a with-statement in which engines start no tasks of task clients.

        Example::

            with mec.reserve([0, 1]):
                mec.execute("...", targets=[0, 1])      # no task comes in between
        """
        return Reservation(self._calls.session, self._wanted(targets))

    # --- Commands -----------------------------------------------------------------------------------------

    def _command(
        self,
        operation: operations.Operation,
        method: str,
        shown: tuple[Any, ...],
        targets: Targets | None,
        block: bool | None,
        finish: Finish | None = None,
        body: list[serialize.Buffer] | None = None,
    ) -> Any:
        def plain_values(arrived: list[Any]) -> list[Any]:
            return replies.values(arrived, method, shown)

        wanted, waits = self._wanted(targets), self._waits(block)
        submission = Submission(operation, wanted, method, label_of(method, *shown), body or [])
        return self._calls.command(self, submission, finish or plain_values, waits)

    def execute(self, lines: str, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Run source text on engines.

        Returns:
            A :class:`ResultList` of what each engine printed and displayed, shown as ``<Results List>``.

        Raises:
            CompositeError: it raised on engines; what waited in these engines' queues is cleared.
        """
        if not isinstance(lines, str):
            raise TypeError(f"execute takes source text, not {type(lines).__name__}; for a function use apply")
        given.source(lines, "the text of execute")
        return self._execute(operations.Execute(lines), "execute", targets, block, ResultList)

    def run(
        self,
        filename: str | os.PathLike[str],
        targets: Targets | None = None,
        block: bool | None = None,
        *,
        args: Sequence[str] = (),
    ) -> Any:
        """Run a Python file of this machine on engines; a list of dicts as in :meth:`execute`.

        It is run as ``python filename args`` would: with its ``sys.argv``, its path as ``__file__``, and
        ``__name__ == '__main__'``. Its names stay in the engines' namespaces.

        Args:
            filename: the file, on this machine.
            targets: engines that run it.
            block: whether to wait.
            args: the words that it gets as ``sys.argv[1:]``.

        Raises:
            OSError: the file cannot be read.
            SyntaxError, ValueError: it is not Python; nothing was sent.
        """
        name = given.path(filename, "filename")
        words: list[Any] = list(args) if not isinstance(args, str) and hasattr(args, "__iter__") else [None]
        if not all(isinstance(word, str) for word in words):
            raise TypeError(f"args must be a sequence of strs, the words for sys.argv, not {given.shown(args)}")
        given.source(" ".join(words), "args, the words for sys.argv,")
        # tokenize.open obeys the encoding that the file declares.
        with tokenize.open(name) as file:
            source = file.read()
        compile(source, name, "exec", dont_inherit=True)
        given.source(source, f"the file {name}")
        operation = operations.Execute(source, name, [name, *words], os.path.abspath(name))
        return self._execute(operation, "run", targets, block, functools.partial(RunResults, name))

    def _execute(
        self,
        operation: operations.Execute,
        method: str,
        targets: Targets | None,
        block: bool | None,
        kind: Callable[[ResultList], list[Any]],
    ) -> Any:
        shown = (operation.source if method == "execute" else operation.filename,)

        def finish(arrived: list[Any]) -> list[Any]:
            return kind(replies.executed(arrived, method, shown, operation.source))

        return self._command(operation, method, shown, targets, block, finish)

    def apply(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``f(*args, **kwargs)`` on every engine of :attr:`targets`; the list of what the calls return.

        ``f`` may be a lambda or closure. For other targets or without waiting, see :meth:`with_options`.

        Raises:
            TypeError: ``f`` cannot be called.
            SerializationError: something cannot be sent; the message names it.
        """
        if not callable(f):
            raise TypeError(f"apply takes something to call, not {given.shown(f)}")
        body = serialize.dumps((f, args, kwargs), what="the call")
        return self._command(operations.Apply(), "apply", (f,), None, None, body=body)

    def before_walltime(
        self,
        f: Callable[[], object],
        seconds: float = 120,
        targets: Targets | None = None,
        block: bool | None = None,
    ) -> Any:
        """Have engines call ``f()`` so many seconds before the end of their job, to save what is to be saved.

        Each calls it once, as a command: at the same place in the order of commands on all ranks of a set, so that
        ``f`` may call MPI. A command that runs comes to its end first. Where the end is not known, ``f`` is called
        when the batch system warns (SIGUSR1). If it fails, clients are told by a notice. ``reset()`` forgets it.

        Args:
            f: without arguments; what it returns is dropped.
            seconds: time that it may need.
            targets: engines that call it.
            block: whether to wait until engines have it; ``[None, ...]``.

        Raises:
            TypeError: ``f`` cannot be called, or ``seconds`` is no number.
            ValueError: ``seconds`` is not positive.
            SerializationError: ``f`` cannot be sent; the message names it.
        """
        if not callable(f):
            raise TypeError(f"before_walltime takes something to call, not {given.shown(f)}")
        needed = given.number(seconds, "seconds")
        if not 0 < needed <= limits.LONGEST:
            raise ValueError(
                f"seconds must be more than 0 and at most {limits.LONGEST:.0f}, the time that the function may "
                f"need; not {given.shown(seconds)}"
            )
        body = serialize.dumps(f, what="the function")
        operation = operations.BeforeWalltime(os.urandom(16), needed, name_of(f))
        return self._command(operation, "before_walltime", (f,), targets, block, body=body)

    def get_result(self, i: int | None = None, targets: Targets | None = None, block: bool | None = None) -> Any:
        """What command ``i`` printed on each engine, None for the last that succeeded: a :class:`ResultList`.

        Raises:
            CompositeError: of IndexError where an engine has no such command.
        """
        if i is not None:
            i = given.whole_number(i, "the number of a command", -limits.ENGINE_ID, limits.ENGINE_ID)

        def finish(arrived: list[Any]) -> ResultList:
            return replies.executed(arrived, "get_result", (i,))

        return self._command(operations.GetResult(i), "get_result", (i,), targets, block, finish)

    def reset(self, targets: Targets | None = None, block: bool | None = None) -> Any:
        """A new namespace, history and properties on engines; ``[None, ...]``."""
        return self._command(operations.Reset(), "reset", (), targets, block)

    def keys(self, targets: Targets | None = None, block: bool | None = None) -> Any:
        """The user's names on each engine: a list of lists."""
        return self._command(operations.Keys(), "keys", (), targets, block)

    # --- Objects ------------------------------------------------------------------------------------------

    def push(self, namespace: Mapping[str, Any], targets: Targets | None = None, block: bool | None = None) -> Any:
        """Assign the objects of ``namespace`` to its names on engines; ``[None, ...]``.

        Arrays are sent from where they are, without a copy, unless ``block`` is False.

        Raises:
            TypeError: it is not a dict with str keys.
            SerializationError: an object cannot be sent; the message names it.
        """
        return self._push(operations.Push(), "push", namespace, targets, block)

    def push_function(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, block: bool | None = None
    ) -> Any:
        """As :meth:`push`, for functions whose global names shall mean those of the engine.

        The code itself travels, whatever module it is from: engines need not have that module.

        Raises:
            TypeError: something in it is not a function.
        """
        functions = {name: serialize.by_value(function) for name, function in names_of(namespace).items()}
        return self._push(operations.PushFunction(), "push_function", functions, targets, block)

    def push_serialized(
        self, namespace: Mapping[str, Any], targets: Targets | None = None, block: bool | None = None
    ) -> Any:
        """As :meth:`push`, for :class:`~ipmpi.serialize.Serialized` objects, which are not unpickled here."""
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

    def pull(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any:
        """The objects of these names: for one name ``[v, ...]``, for several ``[[v1, v2], ...]``.

        Raises:
            TypeError: ``keys`` is neither a str nor a sequence of strs.
            CompositeError: of NameError where an engine has no such name.
        """
        return self._command(operations.Pull(*keys_of(keys)), "pull", (keys,), targets, block)

    def pull_function(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any:
        """As :meth:`pull`, for functions."""
        return self._command(operations.PullFunction(*keys_of(keys)), "pull_function", (keys,), targets, block)

    def pull_serialized(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any:
        """As :meth:`pull`, with :class:`~ipmpi.serialize.Serialized` objects as values."""
        names, single = keys_of(keys)

        def finish(arrived: list[Any]) -> list[Any]:
            found = replies.values(arrived, "pull_serialized", (keys,))
            if single:
                return [serialize.serialize(value, names[0]) for value in found]
            return [list(map(serialize.serialize, row, names)) for row in found]

        return self._command(operations.Pull(names, single), "pull_serialized", (keys,), targets, block, finish)

    def zip_pull(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any:
        """The objects of these names, by name: ``[(a0, a1, ...), (b0, b1, ...)]``.

        For one name the list of :meth:`pull`; from one engine that engine's own list ``[a, b]``.
        """
        names, single = keys_of(keys)

        def finish(arrived: list[Any]) -> list[Any]:
            found = replies.values(arrived, "zip_pull", (keys,))
            if single:
                return found
            return list(zip(*found, strict=True)) if len(found) != 1 else list(found[0])

        return self._command(operations.Pull(names, single), "zip_pull", (keys,), targets, block, finish)

    # --- Properties ---------------------------------------------------------------------------------------

    def set_properties(
        self, properties: Mapping[str, Any], targets: Targets | None = None, block: bool | None = None
    ) -> Any:
        """Set properties of engines, to copies of these values; ``[None, ...]``.

        Raises:
            InvalidProperty: a value cannot be sent; the message names it.
        """
        named = names_of(properties)
        try:
            body = serialize.dumps(named, what="the properties")
        except SerializationError as error:
            raise InvalidProperty(str(error)) from error
        operation = operations.SetProperties()
        return self._command(operation, "set_properties", (list(named),), targets, block, body=body)

    def get_properties(
        self, keys: Keys | None = None, targets: Targets | None = None, block: bool | None = None
    ) -> Any:
        """The properties of each engine, all or those named: a list of dicts."""
        names = None if keys is None else keys_of(keys)[0]
        return self._command(operations.GetProperties(names), "get_properties", (keys,), targets, block)

    def has_properties(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Whether each engine has these properties: ``[[True, False], ...]``."""
        operation = operations.HasProperties(keys_of(keys)[0])
        return self._command(operation, "has_properties", (keys,), targets, block)

    def del_properties(self, keys: Keys, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Delete these properties; ``[None, ...]``."""
        operation = operations.DelProperties(keys_of(keys)[0])
        return self._command(operation, "del_properties", (keys,), targets, block)

    def clear_properties(self, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Delete all properties; ``[None, ...]``."""
        return self._command(operations.ClearProperties(), "clear_properties", (), targets, block)
