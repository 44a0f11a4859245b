"""What an engine can be asked to do, and what it answers.

An operation travels inside a :class:`~ipmpi.protocol.messages.Command` as opaque bytes: only the client that
made it and the engine that runs it look inside. Its bulk (pickles and buffers) travels beside it, as the body.
"""

from __future__ import annotations

from typing import Final, Literal, TypeVar

import msgspec


class _Operation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base: compact arrays on the wire, tagged with the class's name."""


class Execute(_Operation, frozen=True, tag="execute"):
    """Run source text, statement by statement; the answer is :class:`Executed`.

    With ``argv`` it is a script: it sees these words as ``sys.argv``, and ``path`` as ``__file__``.
    """

    source: str
    filename: str = "<ipmpi>"
    argv: list[str] | None = None
    path: str = ""


class Push(_Operation, frozen=True, tag="push"):
    """Body: a pickled dict, merged into the namespace."""


class Pull(_Operation, frozen=True, tag="pull"):
    """The answer's body: the value (one key, ``single``) or a list of values."""

    keys: list[str]
    single: bool = False


class PushFunction(_Operation, frozen=True, tag="push_function"):
    """Body: a pickled dict of functions; their globals become the engine's namespace."""


class PullFunction(_Operation, frozen=True, tag="pull_function"):
    """As :class:`Pull`, for functions only."""

    keys: list[str]
    single: bool = False


class Apply(_Operation, frozen=True, tag="apply"):
    """Body: pickled ``(function, args, kwargs)``; the answer's body: what it returned.

    ``reads``: it changes nothing, so the record of a program that is steered need not have it.
    """

    reads: bool = False


class Map(_Operation, frozen=True, tag="map"):
    """Body: pickled ``(function or source of one, [sequence, ...])``; the answer's body: a list."""


class Describe(_Operation, frozen=True, tag="describe"):
    """The answer's body: a text about the object of this name, or None if there is none."""

    name: str
    with_source: bool = False


class GetResult(_Operation, frozen=True, tag="get_result"):
    """Number of an executed command, or None for the last one that succeeded."""

    number: int | None = None


class Reset(_Operation, frozen=True, tag="reset"):
    """A new namespace, history and properties."""


class Keys(_Operation, frozen=True, tag="keys"):
    """The answer's body: the list of names in the namespace."""


class Complete(_Operation, frozen=True, tag="complete"):
    """The answer's body: a list of what the last word of a line can become. User code is not run."""

    text: str


class SetProperties(_Operation, frozen=True, tag="set_properties"):
    """Body: a pickled dict."""


class GetProperties(_Operation, frozen=True, tag="get_properties"):
    """The answer's body: a dict."""

    keys: list[str] | None = None


class HasProperties(_Operation, frozen=True, tag="has_properties"):
    """The answer's body: a list of bools."""

    keys: list[str]


class DelProperties(_Operation, frozen=True, tag="del_properties"):
    """Delete these properties."""

    keys: list[str]


class ClearProperties(_Operation, frozen=True, tag="clear_properties"):
    """Delete all properties."""


class PostMortem(_Operation, frozen=True, tag="post_mortem"):
    """Open the debugger in the frames of the last exception of this engine."""


class EndWaits(_Operation, frozen=True, tag="end_waits"):
    """End the waits of other ranks in MPI.COMM_WORLD.

    ``step``: ``revoke``, for one rank that is idle. ``ask``: the answer's body is whether this rank has revoked it
    and it was not replaced. ``replace``, collective: the answer's body says why it failed, "" if it has not.
    """

    step: Literal["revoke", "ask", "replace"]


class TakeSnapshot(_Operation, frozen=True, tag="take_snapshot"):
    """Save names (None: all) under a key. The answer's body has ``names``, ``left_out``, ``bytes``, ``folder``.

    ``folder`` is one that the engines see; "": one in the user's files, for this ``cluster``.
    """

    folder: str
    cluster: str
    key: str
    names: list[str] | None = None


class FindSnapshots(_Operation, frozen=True, tag="find_snapshots"):
    """The answer's body: a list of the keys of this engine's snapshots, and their times since the epoch."""

    folder: str
    cluster: str


class RestoreSnapshot(_Operation, frozen=True, tag="restore_snapshot"):
    """Define the names that were saved under a key. The answer's body: a dict with ``names`` and ``left_out``."""

    folder: str
    cluster: str
    key: str


class DropSnapshots(_Operation, frozen=True, tag="drop_snapshots"):
    """Remove all snapshots of this engine but the one with this key."""

    folder: str
    cluster: str
    key: str


class BeforeWalltime(_Operation, frozen=True, tag="before_walltime"):
    """Body: a pickled function, to be called ``seconds`` before the end of the job. ``name`` is for people.

    With ``snapshot`` there is no body: that is taken then.
    """

    key: bytes
    seconds: float
    name: str
    snapshot: TakeSnapshot | None = None


class EndComes(_Operation, frozen=True, tag="end_comes"):
    """Call the function of :class:`BeforeWalltime` with this key, if it has not been called yet."""

    key: bytes


class Watch(_Operation, frozen=True, tag="watched"):
    """What is watched: a value of a program, once in ``every`` steps.

    ``reduce`` is ``max``, ``min``, ``sum`` or ``mean`` of all elements on all ranks; "" the value of rank 0. With
    ``published`` it has to be a number or an array of NumPy that the program itself has published.
    """

    name: str
    every: int
    reduce: str
    published: bool = False


class Steer(_Operation, frozen=True, tag="steer"):
    """Do something with the loop of a program; what comes along depends on ``action``.

    ``state``: the answer's body is a dict of where the program is. ``pause``, ``resume``, ``stop``: its loop.
    ``step``: pause after ``number`` steps. ``set`` parameters: body: a dict. ``call`` a function: body as of
    :class:`Apply`. ``checkpoint``: call what the program has registered. ``watch``: ``number``
    names it; ``unwatch`` ends it. ``record``: the answer's body is an encoded record.
    """

    action: str
    number: int = 0
    watch: Watch | None = None


# --- Tasks: they travel in TaskOptions.operation, one for all tasks of a group --------------------------


class StringTaskOperation(_Operation, frozen=True, tag="string_task"):
    """Payload: a pickled dict to push first (or nothing); the result: a dict of the pulled names.

    ``depend``: key of a function of the engine's properties that says whether it may run there; b"": anywhere.
    """

    source: str
    pull: list[str]
    clear_before: bool = False
    clear_after: bool = False
    depend: bytes = b""


class CallTaskOperation(_Operation, frozen=True, tag="call_task"):
    """Payload: pickled ``(args, kwargs)``, or with ``spread`` just the tuple ``args``; the result: the value.

    ``function`` is the key of the function. With ``together`` it gets the communicator of its ranks as its first
    argument. ``space`` names the program whose globals it sees, and no one else's; b"": those of the engine.
    """

    function: bytes
    spread: bool = False
    together: bool = False
    clear_before: bool = False
    clear_after: bool = False
    depend: bytes = b""
    space: bytes = b""


TaskOperation = StringTaskOperation | CallTaskOperation

Operation = (
    Execute
    | Push
    | Pull
    | PushFunction
    | PullFunction
    | Apply
    | Map
    | GetResult
    | Reset
    | Keys
    | Complete
    | Describe
    | SetProperties
    | GetProperties
    | HasProperties
    | DelProperties
    | ClearProperties
    | PostMortem
    | EndWaits
    | BeforeWalltime
    | EndComes
    | TakeSnapshot
    | FindSnapshots
    | RestoreSnapshot
    | DropSnapshots
    | Steer
)


class Value(_Operation, frozen=True, tag="value"):
    """The body is the pickled answer."""


class Nothing(_Operation, frozen=True, tag="nothing"):
    """The answer is None; there is no body."""


class Display(_Operation, frozen=True, tag="display"):
    """A figure or value that user code displays, in several formats: text and images, by MIME type.

    Those of type JSON are text here. All of them together have at most ``limits.DISPLAY`` bytes.
    """

    text: dict[str, str]
    images: dict[str, bytes] = msgspec.field(default_factory=dict)

    @property
    def formats(self) -> dict[str, str | bytes]:
        """All of them."""
        return {**self.text, **self.images}


class Executed(_Operation, frozen=True, tag="executed"):
    """What one command displayed. ``source`` is filled for :class:`GetResult` only.

    ``display_rich``: the last displayed value in further formats.
    """

    number: int
    display_pprint: str | None = None
    display_repr: str | None = None
    source: str = ""
    display_rich: Display | None = None


class Failed(_Operation, frozen=True, tag="failed"):
    """User code raised. The body, if there is one, is the pickled exception."""

    type_name: str
    text: str
    traceback: str
    executed: Executed | None = None


Outcome = Value | Nothing | Executed | Failed

_encoder = msgspec.msgpack.Encoder()
_operations: msgspec.msgpack.Decoder[Operation] = msgspec.msgpack.Decoder(Operation)
_displays: msgspec.msgpack.Decoder[Display] = msgspec.msgpack.Decoder(Display)
_outcomes: msgspec.msgpack.Decoder[Outcome] = msgspec.msgpack.Decoder(Outcome)
_task_operations: msgspec.msgpack.Decoder[TaskOperation] = msgspec.msgpack.Decoder(TaskOperation)
_Kind = TypeVar("_Kind")


def encode(value: Operation | TaskOperation | Outcome | Display) -> bytes:
    """The bytes of an operation, outcome or display."""
    return _encoder.encode(value)


NEVER_BEGAN: Final = encode(
    Failed("KeyboardInterrupt", "it was interrupted before its data had arrived", "KeyboardInterrupt\n")
)
"""The outcome of a command that was interrupted too early to begin."""


def decode_display(data: bytes) -> Display:
    """The display in ``data``; raises :class:`msgspec.DecodeError` for anything else."""
    return _decoded(_displays, data)


def decode_operation(data: bytes) -> Operation:
    """The operation in ``data``; raises :class:`msgspec.DecodeError` for anything else."""
    return _decoded(_operations, data)


def decode_outcome(data: bytes) -> Outcome:
    """The outcome in ``data``; raises :class:`msgspec.DecodeError` for anything else."""
    return _decoded(_outcomes, data)


def decode_task_operation(data: bytes) -> TaskOperation:
    """The operation of tasks in ``data``; raises :class:`msgspec.DecodeError` for anything else."""
    return _decoded(_task_operations, data)


def _decoded(decoder: msgspec.msgpack.Decoder[_Kind], data: bytes) -> _Kind:
    try:
        return decoder.decode(data)
    except UnicodeDecodeError as error:  # the one thing that msgspec does not report as a DecodeError
        raise msgspec.DecodeError(f"text that is not UTF-8: {error}") from None
