"""The namespace of one engine: operations in, answers out.

No thread, no network, no MPI here: the engine's main thread calls :meth:`Namespace.run`.
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ipmpi import reference, serialize
from ipmpi.engine.session.console import DISPLAYED, Console
from ipmpi.engine.session.debugging import Debugging
from ipmpi.engine.session.displays import Displays
from ipmpi.engine.session.failures import failed
from ipmpi.engine.session.forks import HomeProcess
from ipmpi.engine.session.functions import FunctionHome
from ipmpi.engine.session.properties import EngineProperties
from ipmpi.engine.session.snapshots import NoStore, SnapshotPlace, SnapshotStore, content_of
from ipmpi.engine.session.texts import shorten
from ipmpi.engine.session.waits import Revoker
from ipmpi.errors import ClientError, RemoteProtocolError, SerializationError
from ipmpi.protocol import operations
from ipmpi.protocol.operations import (
    Apply,
    BeforeWalltime,
    ClearProperties,
    Complete,
    DelProperties,
    Describe,
    DropSnapshots,
    EndComes,
    EndWaits,
    Execute,
    FindSnapshots,
    GetProperties,
    GetResult,
    HasProperties,
    Keys,
    Map,
    Nothing,
    PostMortem,
    Pull,
    PullFunction,
    Push,
    PushFunction,
    Reset,
    RestoreSnapshot,
    SetProperties,
    TakeSnapshot,
    Value,
)
from ipmpi.serialize import Buffer


class CommandAnswer(NamedTuple):
    """What :meth:`Namespace.run` made of an operation.

    ``ok`` is False for a :class:`~ipmpi.protocol.operations.Failed`; ``outcome`` is the encoded outcome. The body
    is no copy: it shows later changes of the arrays in it, so send it before the next operation runs. ``again`` is
    the number of an earlier operation whose output belongs to the answer.
    """

    ok: bool
    outcome: bytes
    body: list[Buffer]
    again: int = 0


class EngineId(int):
    """The number of an engine, as ``id`` in its namespace. Called, it is Python's own ``id``, which it hides."""

    __slots__ = ()

    def __call__(self, obj: object, /) -> int:
        """The identity of an object."""
        return builtins.id(obj)

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)


_HISTORY: Final = frozenset({"_ih", "_oh", "In", "Out", "_", "__", "___", "__IP", "input", "raw_input"})
_HIDDEN: Final = frozenset(
    {"get_ipython", "_dh", "_exit_code", "__annotations__", "__warningregistry__", reference.ENGINE}
)
_VALUE: Final = operations.encode(Value())
_DONE: Final = CommandAnswer(True, operations.encode(Nothing()), [])


class Namespace:
    """What user code sees on one engine, and everything that can be done to it.

    The names ``id`` (the engine's id), ``mpi`` and ``display`` are always there, ``comm`` where the ranks share a
    communicator, and so is the history of the session (:class:`~ipmpi.engine.session.console.Console`). Functions
    that are sent see the namespace as their globals by the rule of :mod:`ipmpi.engine.session.functions`.

    Args:
        engine_id: what ``id`` is; -1 as long as it is not known.
        mpi: the communicator of the ranks.

    Attributes:
        module: the module whose names these are.
        names: its dictionary.
        properties: the engine's properties.
        home: gives functions that arrive these names as their globals.
        console: the session of commands.
        debugging: the debuggers in user code.
        displays: what user code displays; its name ``display``.
        snapshots: keeps snapshots of the names.
        revoker: ends waits of other ranks in MPI; None if there are none.
        process: the process that this engine began in.
        generation: how often the names have been cleared; what was loaded before belongs to an earlier one.
        properties_version: how often operations have changed the properties.
    """

    def __init__(self, engine_id: int = -1, mpi: object | None = None) -> None:
        self.module = types.ModuleType("__main__", "The namespace of an ipmpi engine.")
        self.names: dict[str, Any] = self.module.__dict__
        self.names["__builtins__"] = builtins
        self.properties = EngineProperties()
        self._own_names = dict(self.names)
        self._hidden = _HISTORY | self._own_names.keys() | _HIDDEN
        self._engine_id = engine_id
        self._mpi = mpi
        self._comm: object | None = None
        self.home = FunctionHome(self.names)
        self.displays = Displays()
        self.console = Console(self.names, self.home.give, self.displays)
        self.debugging = Debugging(self.console.load_shell)
        self.snapshots: SnapshotStore = NoStore()
        self.revoker: Revoker | None = None
        self.process = HomeProcess()
        self.process.in_child(self.displays.forked)
        self.process.in_child(self.debugging.forked)
        self._replaced_main: types.ModuleType | None = None
        self.generation = 0
        self.properties_version = 0
        self._number = 0
        self._before_end: dict[bytes, tuple[Any, dict[str, Any]]] = {}
        self.clear_names()
        self._handlers: dict[type, Callable[[Any, Sequence[Buffer]], CommandAnswer]] = {
            Execute: self._execute,
            Push: self._push,
            Pull: self._pull,
            PushFunction: self._push_function,
            PullFunction: self._pull_function,
            Apply: self._apply,
            Map: self._map,
            GetResult: self._get_result,
            Reset: self._reset,
            Keys: self._keys,
            SetProperties: self._set_properties,
            GetProperties: self._get_properties,
            HasProperties: self._has_properties,
            DelProperties: self._del_properties,
            ClearProperties: self._clear_properties,
            Complete: self._complete,
            Describe: self._describe,
            PostMortem: self._post_mortem,
            EndWaits: self._end_waits,
            BeforeWalltime: self._before_walltime,
            EndComes: self._end_comes,
            TakeSnapshot: self._take_snapshot,
            FindSnapshots: self._find_snapshots,
            RestoreSnapshot: self._restore_snapshot,
            DropSnapshots: self._drop_snapshots,
            operations.Steer: self._steer,
        }

    @property
    def engine_id(self) -> int:
        """The id of the engine; setting it sets the name ``id``."""
        return self._engine_id

    @engine_id.setter
    def engine_id(self, value: int) -> None:
        self._engine_id = value
        self.names[reference.ENGINE] = value
        self.home.give({"id": EngineId(value)})

    def give_communicator(self, comm: object) -> None:
        """Define the name ``comm``: the communicator of all ranks."""
        self._comm = comm
        self.home.give({"comm": comm})

    def install_as_main(self) -> None:
        """Make this the ``__main__`` module of the process, so that pickles and user code find it by that name."""
        # The interpreter clears a module's names once nobody refers to it, and its functions still run.
        self._replaced_main = sys.modules.get("__main__")
        sys.modules["__main__"] = self.module
        # As in an interactive session: the engine's own options mean nothing to user code.
        sys.argv = [""]

    def run(self, method: str, operation: bytes, body: Sequence[Buffer], number: int = 0) -> CommandAnswer:
        """Do what an encoded operation says.

        Whatever user code raises, SystemExit and KeyboardInterrupt too, becomes a Failed answer. Only a
        KeyboardInterrupt that comes before or after can get out of here.

        Args:
            method: the client's method, for messages.
            operation: an encoded :data:`~ipmpi.protocol.operations.Operation`.
            body: its segments.
            number: what :attr:`CommandAnswer.again` calls it later.
        """
        self._number = number
        try:
            decoded = operations.decode_operation(operation)
        except msgspec.DecodeError as error:
            return failed_answer(
                RemoteProtocolError(
                    f"engine {self._engine_id} does not understand this {method!r} ({error}); "
                    f"install the same release of ipmpi for client and engines"
                )
            )
        try:
            self.home.uncover()
            self.displays.begin()
            self.debugging.begin()
            answer = self._handlers[type(decoded)](decoded, body)
        except BaseException as error:
            self.process.leave_if_child(error)
            self.debugging.keep(error)
            return failed_answer(error)
        finally:
            self.debugging.end()
            self.displays.end()
        self.process.leave_if_child()
        return answer

    def clear_names(self) -> None:
        """Drop every name of the user; history, numbers and properties stay."""
        self.generation += 1
        self.names.clear()
        self.names.update(self._own_names)
        self.home.clear()
        self.names[reference.ENGINE] = self._engine_id
        self.home.give({"id": EngineId(self._engine_id), "mpi": self._mpi, "display": self.displays})
        if self._comm is not None:
            self.home.give({"comm": self._comm})
        self.console.seed()

    # --- Commands --------------------------------------------------------------------------------------

    def _execute(self, operation: Execute, _body: Sequence[Buffer]) -> CommandAnswer:
        executed, error = self.console.execute(operation, self._number)
        self.process.leave_if_child(error)
        if error is None:
            return CommandAnswer(True, operations.encode(executed), [])
        self.debugging.keep(error)
        outcome, pickled = failed(error, executed)
        return CommandAnswer(False, operations.encode(outcome), pickled)

    def _push(self, _operation: Push, body: Sequence[Buffer]) -> CommandAnswer:
        self.merge(self.home.loads(body, stays=True))
        return _DONE

    def _pull(self, operation: Pull, _body: Sequence[Buffer]) -> CommandAnswer:
        return _pulled(operation.keys, [self.named(key) for key in operation.keys], operation.single)

    def _push_function(self, _operation: PushFunction, body: Sequence[Buffer]) -> CommandAnswer:
        functions = self.home.loads(body)
        self.merge({name: self.home.adopt(function) for name, function in functions.items()})
        return _DONE

    def _pull_function(self, operation: PullFunction, _body: Sequence[Buffer]) -> CommandAnswer:
        values = [self.named(key) for key in operation.keys]
        for key, value in zip(operation.keys, values, strict=True):
            if not isinstance(value, types.FunctionType):
                raise TypeError(f"function object expected, but {key!r} is a {type(value).__name__}; use pull")
        return _pulled(operation.keys, values, operation.single)

    def _apply(self, _operation: Apply, body: Sequence[Buffer]) -> CommandAnswer:
        function, args, kwargs = self.home.loads(body)
        result = function(*args, **kwargs)
        self.displays.show_left_open()
        return _value(result, "the result of apply")

    def _map(self, _operation: Map, body: Sequence[Buffer]) -> CommandAnswer:
        function, sequences = self.home.loads(body)
        if isinstance(function, str):
            function = eval(function, self.names)
        results = [function(*items) for items in zip(*sequences, strict=False)]
        self.displays.show_left_open()
        return _value(results, "the result of map")

    def _get_result(self, operation: GetResult, _body: Sequence[Buffer]) -> CommandAnswer:
        executed, again = self.console.result(operation.number)
        return CommandAnswer(True, operations.encode(executed), [], again)

    def _reset(self, _operation: Reset, _body: Sequence[Buffer]) -> CommandAnswer:
        self.console.reset()
        self.properties.clear()
        self.properties_version += 1
        self._before_end.clear()
        self.debugging.forget()
        self.clear_names()
        return _DONE

    def _post_mortem(self, _operation: PostMortem, _body: Sequence[Buffer]) -> CommandAnswer:
        self.debugging.post_mortem()
        return _DONE

    def _end_waits(self, operation: EndWaits, _body: Sequence[Buffer]) -> CommandAnswer:
        if operation.step == "ask":
            return _value(self.revoker is not None and self.revoker.has_revoked, "the outcome")
        if self.revoker is None:
            raise ClientError("the ranks of this set share no communicator, so none waits for another in MPI")
        if operation.step == "replace":
            return _value(self.revoker.replace(), "the outcome")
        self.revoker.revoke()
        return _DONE

    def _before_walltime(self, operation: BeforeWalltime, body: Sequence[Buffer]) -> CommandAnswer:
        snapshot = operation.snapshot
        if snapshot is None:
            self._before_end[operation.key] = self.home.load_function(body)
        else:
            self._before_end[operation.key] = (lambda: self._take_snapshot(snapshot, ())), {}
        return _DONE

    def _end_comes(self, operation: EndComes, _body: Sequence[Buffer]) -> CommandAnswer:
        function, carried = self._before_end.pop(operation.key, (None, {}))
        if function is not None:
            self.home.prepare(carried)
            function()
        return _DONE

    def _take_snapshot(self, operation: TakeSnapshot, _body: Sequence[Buffer]) -> CommandAnswer:
        names = {
            name: value
            for name, value in self.names.items()
            if name not in self._hidden and not self.home.is_given(name)
        }
        content = content_of(names, operation.names)
        place = SnapshotPlace(operation.folder, operation.cluster)
        about = self.snapshots.save(place, operation.key, self._engine_id, content)
        return _value({**about, "names": content.names, "left_out": content.left_out}, "the snapshot's names")

    def _find_snapshots(self, operation: FindSnapshots, _body: Sequence[Buffer]) -> CommandAnswer:
        place = SnapshotPlace(operation.folder, operation.cluster)
        return _value(self.snapshots.saved(place, self._engine_id), "the snapshots")

    def _restore_snapshot(self, operation: RestoreSnapshot, _body: Sequence[Buffer]) -> CommandAnswer:
        place = SnapshotPlace(operation.folder, operation.cluster)
        content = self.snapshots.load(place, operation.key, self._engine_id)
        self.merge(self.home.loads(content.segments, stays=True))
        return _value({"names": content.names, "left_out": content.left_out}, "the snapshot's names")

    def _drop_snapshots(self, operation: DropSnapshots, _body: Sequence[Buffer]) -> CommandAnswer:
        place = SnapshotPlace(operation.folder, operation.cluster)
        self.snapshots.drop_others(place, operation.key, self._engine_id)
        return _DONE

    def _steer(self, operation: operations.Steer, _body: Sequence[Buffer]) -> CommandAnswer:
        raise ClientError(
            f"{operation.action}() is for a program with a loop of its own, which calls ipmpi.steering.attach(), "
            f"and engine {self._engine_id} is started by ipengine: give it commands"
        )

    def _keys(self, _operation: Keys, _body: Sequence[Buffer]) -> CommandAnswer:
        return _value(
            [name for name in self.names if name not in self._hidden and not self._is_a_tool(name)], "the names"
        )

    def _is_a_tool(self, name: str) -> bool:
        return name in ("display", "comm") and self.home.is_given(name)

    def _complete(self, operation: Complete, _body: Sequence[Buffer]) -> CommandAnswer:
        from ipmpi.engine.session.completions import completions  # a thousand ranks start without

        names = {name: value for name, value in self.names.items() if name not in self._hidden}
        return _value(completions(operation.text, names), "the completions")

    def _describe(self, operation: Describe, _body: Sequence[Buffer]) -> CommandAnswer:
        from ipmpi.engine.session.completions import MISSING, resolved
        from ipmpi.engine.session.descriptions import described

        found = resolved(operation.name, self.names)
        if found is MISSING:
            return _DONE
        return _value(shorten(described(found, operation.with_source), DISPLAYED), "the description")

    # --- Properties ------------------------------------------------------------------------------------

    def _set_properties(self, _operation: SetProperties, body: Sequence[Buffer]) -> CommandAnswer:
        self.properties.update(self.home.loads(body))
        self.properties_version += 1
        return _DONE

    def _get_properties(self, operation: GetProperties, _body: Sequence[Buffer]) -> CommandAnswer:
        keys = operation.keys
        return _value(dict(self.properties) if keys is None else self.properties.take(keys), "the properties")

    def _has_properties(self, operation: HasProperties, _body: Sequence[Buffer]) -> CommandAnswer:
        return _value([key in self.properties for key in operation.keys], "the properties")

    def _del_properties(self, operation: DelProperties, _body: Sequence[Buffer]) -> CommandAnswer:
        self.properties.remove(operation.keys)
        self.properties_version += 1
        return _DONE

    def _clear_properties(self, _operation: ClearProperties, _body: Sequence[Buffer]) -> CommandAnswer:
        self.properties.clear()
        self.properties_version += 1
        return _DONE

    # --- Names -----------------------------------------------------------------------------------------

    def named(self, key: str) -> Any:
        """The value of a name; NameError if there is none."""
        try:
            return self.names[key]
        except KeyError:
            raise NameError(f"name {key!r} is not defined") from None

    def merge(self, pushed: dict[str, Any]) -> None:
        """Put these names here; they are the engine's own from now on."""
        _require_names(pushed)
        self.home.own(pushed)
        self.names.update(pushed)


def _require_names(keys: Iterable[object]) -> None:
    for key in keys:
        if not isinstance(key, str):
            raise TypeError(f"a name in a namespace is a string, not {key!r}")


def _value(value: object, what: str) -> CommandAnswer:
    if value is None:
        return _DONE
    return CommandAnswer(True, _VALUE, serialize.dumps(value, what=what))


def _pulled(keys: Sequence[str], values: list[Any], single: bool) -> CommandAnswer:
    if single and len(keys) == 1:
        return _value(values[0], repr(keys[0]))
    try:
        return _value(values, "what was pulled")
    except SerializationError:
        for key, value in zip(keys, values, strict=True):
            serialize.dumps(value, what=repr(key))  # raises the error that names it
        raise


def failed_answer(error: BaseException) -> CommandAnswer:
    """Return the answer of a command that has raised ``error``."""
    outcome, body = failed(error)
    return CommandAnswer(False, operations.encode(outcome), body)
