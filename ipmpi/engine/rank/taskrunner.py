"""Tasks in the namespace of one engine: an item in, an outcome out.

The operation of a group of tasks is decoded once, into a :class:`Program`; its functions arrive once, are
unpickled for the first task, and are kept until the namespace is cleared.

A no-op item should take no more than a few microseconds, so there are fast paths for plain calls, plain arguments
and plain results.
"""

from __future__ import annotations

import copy
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ipmpi import limits, reference, serialize
from ipmpi.engine.rank.outcomes import (
    DONE,
    FAILED,
    LARGE,
    REFUSED,
    REJECTED,
    TEXT,
    Outcome,
    Payload,
    packed_failure,
)
from ipmpi.engine.rank.programs import ProgramHome
from ipmpi.engine.session.functions import FunctionHome
from ipmpi.engine.session.namespace import Namespace
from ipmpi.engine.session.statements import compile_task
from ipmpi.engine.session.texts import shorten
from ipmpi.errors import RemoteProtocolError, TaskRejectError
from ipmpi.protocol.functions import DefineFunction
from ipmpi.protocol.operations import (
    CallTaskOperation,
    StringTaskOperation,
    TaskOperation,
    decode_task_operation,
)
from ipmpi.serialize import ATOMS, PROTOCOL, Buffer

TASK_FILENAME: Final = "<ipmpi task>"

_NONE: Final[Outcome] = (DONE, b"")
_LOOK_UP: Final = b"\x93"
"""The opcode by which pickles name functions and classes. Data that contains it takes the slow path."""
_OURS: Final = (b"__main__", b"cloudpickle", reference.__name__.encode())
"""Modules of which names are looked up in the namespace, by :class:`FunctionHome`."""

_PLAIN: Final = frozenset({list, tuple, dict, set})
_FEW: Final = 1000
"""Number of elements up to which the fast path is tried first."""
_PROGRAMS: Final = 1024


class Program:
    """The decoded operation of a group of tasks.

    Attributes:
        operation: the decoded operation, or the error that decoding it raised.
        is_plain: whether running it is a call and nothing else.
        function: what is called, as loaded in ``generation`` of the namespace.
        space: id of the program whose globals functions use; b"" for the engine's namespace.
    """

    __slots__ = ("function", "generation", "is_plain", "operation", "space", "spread")

    def __init__(self, encoded: bytes) -> None:
        self.operation: TaskOperation | Exception
        self.function: Callable[..., Any] = _nothing
        self.generation = 0
        self.is_plain = self.spread = False
        self.space = b""
        try:
            self.operation = operation = decode_task_operation(encoded)
        except msgspec.DecodeError as error:
            self.operation = RemoteProtocolError(
                f"this engine does not understand the task ({error}); "
                f"install the same release of ipmpi for client and engines"
            )
            return
        if isinstance(operation, CallTaskOperation):
            self.spread = operation.spread
            self.space = operation.space
            self.is_plain = not (
                operation.clear_before or operation.clear_after or operation.depend or operation.together
            )


def _nothing() -> None:
    """Placeholder of a program's function before it is loaded."""


class TaskRunner:
    """Runs items in a namespace, and keeps their functions.

    Attributes:
        process: the process in which this engine started.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._home: FunctionHome = namespace.home
        self._homes: OrderedDict[bytes, ProgramHome] = OrderedDict()
        self.process = namespace.process
        self._pickles: dict[bytes, bytes] = {}
        self._coming: dict[bytes, bytearray] = {}
        self._programs: dict[bytes, Program] = {}
        self._loaded: dict[tuple[bytes, bytes], tuple[Any, dict[str, Any]]] = {}
        self._generation = namespace.generation
        self._last: Program | None = None

    # --- functions and programs ------------------------------------------------------------------------------

    def define(self, message: DefineFunction, piece: Buffer) -> None:
        """Add a piece of a pickled function; a piece that does not follow the previous one is dropped."""
        coming = self._coming.setdefault(message.key, bytearray())
        if message.offset == 0:
            coming.clear()
        if message.offset != len(coming):
            del self._coming[message.key]
            return
        coming += piece
        if len(coming) >= message.total:
            self._pickles[message.key] = bytes(self._coming.pop(message.key))

    def forget(self, keys: list[bytes]) -> None:
        """Remove these functions, which no task uses any more."""
        for key in keys:
            self._pickles.pop(key, None)
            self._coming.pop(key, None)
        gone = set(keys)
        for space, key in [each for each in self._loaded if each[1] in gone]:
            del self._loaded[space, key]
        for encoded, program in list(self._programs.items()):
            operation = program.operation
            if isinstance(operation, CallTaskOperation) and operation.function in gone:
                del self._programs[encoded]
        self._last = None

    def program(self, operation: bytes) -> Program:
        """Return the program of an encoded :data:`~ipmpi.protocol.operations.TaskOperation`."""
        program = self._programs.get(operation)
        if program is None:
            if len(self._programs) >= _PROGRAMS:
                del self._programs[next(iter(self._programs))]
            program = self._programs[operation] = Program(operation)
        return program

    # --- running -----------------------------------------------------------------------------------------------

    def run(self, program: Program, payload: Payload) -> Outcome:
        """Run one task.

        Exceptions of user code, SystemExit and KeyboardInterrupt too, become outcomes. Only a KeyboardInterrupt
        before or after user code can leave this method.
        """
        try:
            if not program.is_plain:
                return self._run_special(program, payload)
            if program is not self._last or program.generation != self._namespace.generation:
                self._make_ready(program)
            if type(payload) is bytes and _LOOK_UP not in payload:
                arguments = pickle.loads(payload)
            else:
                arguments = self._arguments(payload, program)
            if program.spread:
                value = program.function(*arguments)
            else:
                value = program.function(*arguments[0], **arguments[1])
            return _NONE if value is None else _outcome(value, "the result of the task")
        except BaseException as error:
            self.process.leave_if_child(error)
            return _failure(error)

    def run_together(self, program: Program, comm: object, payload: Payload, *, wanted: bool) -> Outcome:
        """Run this rank's part of a gang task, which gets its communicator as the first argument.

        Args:
            program: a program whose operation has ``together`` set.
            comm: the communicator.
            payload: as for :meth:`run`.
            wanted: whether this rank's value is that of the task; others are not pickled.
        """
        try:
            outcome = self._run_special(program, payload, (comm,), wanted=wanted)
            self.process.leave_if_child()
            if outcome[0] == REFUSED:
                raise TaskRejectError("the condition of this task does not hold on one of the ranks it got")
            return outcome
        except BaseException as error:
            self.process.leave_if_child(error)
            return FAILED, packed_failure(error)

    def names_changed(self) -> None:
        """The namespace may have been changed, other than by tasks."""
        self._last = None

    def _run_special(
        self, program: Program, payload: Payload, first: tuple[object, ...] = (), *, wanted: bool = True
    ) -> Outcome:
        operation = program.operation
        if isinstance(operation, Exception):
            raise operation
        if operation.depend and not self._accepts(operation.depend):
            return REFUSED, ""
        if operation.clear_before:
            self._namespace.clear_names()
        try:
            if isinstance(operation, StringTaskOperation):
                return _outcome(self._run_source(operation, payload), "the results of the task")
            self._make_ready(program)
            arguments = self._arguments(payload, program)
            args, kwargs = (arguments, {}) if operation.spread else arguments
            value = program.function(*first, *args, **kwargs)
            return _outcome(value, "the result of the task") if wanted else _NONE
        finally:
            if operation.clear_after:
                self._namespace.clear_names()

    def _run_source(self, operation: StringTaskOperation, payload: Payload) -> dict[str, Any]:
        namespace = self._namespace
        namespace.home.uncover()
        if payload:
            if isinstance(payload, MemoryError | OSError):
                raise payload
            namespace.merge(namespace.home.loads([payload] if isinstance(payload, bytes) else payload, stays=True))
        namespace.console.sources.add(TASK_FILENAME, operation.source)
        self._last = None  # it may assign to a name that a function brought
        exec(compile_task(operation.source, TASK_FILENAME), namespace.names)
        return {key: namespace.named(key) for key in operation.pull}

    def _accepts(self, key: bytes) -> bool:
        """Return whether a task's condition holds for a copy of the properties; False if it raises."""
        try:
            return bool(self._function(key, b"")(copy.deepcopy(dict(self._namespace.properties))))
        except Exception:
            return False

    def _arguments(self, payload: Payload, program: Program) -> Any:
        home = self._home_of(program.space)
        if isinstance(payload, MemoryError | OSError):
            raise payload
        if isinstance(payload, list):
            return home.loads(payload)
        if not any(module in payload for module in _OURS):
            try:
                return pickle.loads(payload)
            except ModuleNotFoundError:
                pass  # again, for the message that says what to do
        return home.loads([payload])

    # --- functions -----------------------------------------------------------------------------------------

    def _make_ready(self, program: Program) -> None:
        operation = program.operation
        if isinstance(operation, CallTaskOperation):
            program.function = self._function(operation.function, operation.space)
        program.generation = self._namespace.generation
        self._last = program

    def _home_of(self, space: bytes) -> FunctionHome:
        if not space:
            return self._home
        homes = self._homes
        home = homes.get(space)
        if home is None:
            home = homes[space] = ProgramHome(self._namespace.names)
            if len(homes) > limits.PROGRAM_SPACES:
                oldest, _ = homes.popitem(last=False)
                for each in [each for each in self._loaded if each[0] == oldest]:
                    del self._loaded[each]
        else:
            homes.move_to_end(space)
        return home

    def _function(self, key: bytes, space: bytes) -> Any:
        if self._generation != self._namespace.generation:
            self._loaded.clear()
            self._generation = self._namespace.generation
        home = self._home_of(space)
        loaded = self._loaded.get((space, key))
        if loaded is None:
            data = self._pickles.get(key)
            if data is None:
                raise RemoteProtocolError(
                    "the function of this task did not come to this engine; submit the task again"
                )
            home.uncover()
            loaded = self._loaded[space, key] = home.load_function([data])
        else:
            home.prepare(loaded[1])
        if isinstance(home, ProgramHome):
            home.borrow()
        return loaded[0]


# --- outcomes --------------------------------------------------------------------------------------------


def _outcome(value: object, what: str) -> Outcome:
    if value is None:
        return _NONE
    kind = type(value)
    if kind in ATOMS:
        data = pickle.dumps(value, PROTOCOL)
        return (DONE, data) if len(data) <= limits.TASK_PAYLOAD else (LARGE, [data])
    if not hasattr(kind, "__len__") or (kind in _PLAIN and len(value) <= _FEW):  # type: ignore[arg-type]
        short = _short_way(value)
        if short is not None:
            return DONE, short
    segments = serialize.dumps(value, what=what)
    if sum(memoryview(segment).nbytes for segment in segments) > limits.TASK_PAYLOAD:
        return LARGE, segments
    return DONE, serialize.in_one_piece(segments)


def _short_way(value: object) -> bytes | None:
    """Return the pickle of a small value, if plain pickle is equal to :func:`ipmpi.serialize.dumps`."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps(value, PROTOCOL, buffer_callback=buffers.append)
    except Exception:
        return None  # the slow path handles more kinds of objects, and has better messages
    if buffers or len(data) > limits.TASK_PAYLOAD:
        return None
    if _LOOK_UP in data and (b"__main__" in data or _has_modules_by_value()):
        return None
    return data


def _has_modules_by_value() -> bool:
    cloudpickle = sys.modules.get("cloudpickle")  # if it is not imported, no module is registered
    return cloudpickle is not None and bool(cloudpickle.list_registry_pickle_by_value())


def _failure(error: BaseException) -> Outcome:
    if isinstance(error, TaskRejectError):
        return REJECTED, shorten(str(error), TEXT)
    return FAILED, packed_failure(error)
