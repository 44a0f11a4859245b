"""What a rank and the agent of its node say to each other.

One message is one packet on a Unix socket, which keeps packets whole: four bytes with the length of the header,
the header, and the inline body. What is too large for a packet comes as an open file in memory with it. Both ends
are processes of one user on one machine and of one release, so this is no protocol between versions.

A command is named by a number that counts all commands of an agent; task items and parts of gang tasks by a serial
number of their rank. See :mod:`ipmpi.engine.rank.controlblock` for what both ends know of them without a message.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from ..errors import RemoteProtocolError
from ..ids import IdList, from_the_wire, on_the_wire
from .basemessage import Message
from .frames import Buffer
from .functions import DefineFunction, ForgetFunctions

_LENGTH: Final = struct.Struct("<I")


# --- agent to rank, while the set forms ----------------------------------------------------------------------


class Greeting(Message, frozen=True, tag=201):
    """First packet: who has the same ``token`` is on this node.

    With it comes the end of a pipe whose other end only the agent has. ``agent`` is its process id.
    """

    token: bytes
    agent: int = 0


class Address(Message, frozen=True, tag=202):
    """Where the agents of nodes below find this one; "" if there are none. To the lowest rank of a node."""

    address: str


class Met(Message, frozen=True, tag=203):
    """The links with other nodes are there, or why they are not. To the lowest rank of a node."""

    trouble: str


# --- agent to rank --------------------------------------------------------------------------------------------


class NewEngineId(Message, frozen=True, tag=210):
    """The id that the controller has given to this rank's engine."""

    id: int


class RunCommand(Message, frozen=True, tag=211):
    """Run a command. ``shared``: its body is in the file in memory that comes along.

    ``renew`` and ``members``: what to do with the communicator first, as in
    :class:`~ipmpi.protocol.messages.Dispatch`.
    """

    number: int
    method: str
    operation: bytes
    sizes: list[int] = msgspec.field(default_factory=list)
    shared: bool = False
    renew: int = 0
    members: IdList = msgspec.field(default_factory=list)


class RunItems(Message, frozen=True, tag=212):
    """Task items with the serial numbers from ``first`` on. ``lengths`` of their payloads, as in GiveTasks."""

    first: int
    operation: bytes
    lengths: bytes


class RunItem(Message, frozen=True, tag=213):
    """One task item whose large body is in the file in memory that comes along."""

    serial: int
    operation: bytes
    sizes: list[int]


class RunPart(Message, frozen=True, tag=214):
    """This rank's part of a gang task, with the communicator ``communicator`` of ``ranks``.

    ``large``: its arguments are segments, which come later in a :class:`PartBody` if there are none here.
    ``has_lost``: a rank of the set has died.
    """

    serial: int
    operation: bytes
    ranks: IdList
    communicator: int
    large: bool
    sizes: list[int] = msgspec.field(default_factory=list)
    has_lost: bool = False


class PartBody(Message, frozen=True, tag=215):
    """The arguments of a part, in the file in memory that comes along."""

    serial: int
    sizes: list[int]


class PartLeft(Message, frozen=True, tag=216):
    """A part is pointless: do not wait for its arguments, nor begin."""

    serial: int
    text: str


class Freed(Message, frozen=True, tag=217):
    """So many bytes of large answers have left, and their memory is free."""

    size: int


class DisplayTaken(Message, frozen=True, tag=220):
    """The :class:`Displayed` of this number has its place in the output of the command."""

    number: int


class DebuggerAnswer(Message, frozen=True, tag=221):
    """The line for prompt ``number`` of this rank's debugger; "" is the end of input, None says to go on."""

    number: int
    text: str | None


class LogLine(Message, frozen=True, tag=219):
    """A line for the log of this rank: what its user should know of the set."""

    text: str


class HoldHere(Message, frozen=True, tag=260):
    """Hold at this tick, until :class:`StopAtStep` tells where to stop. To a rank of a program."""

    round: int


class StopAtStep(Message, frozen=True, tag=261):
    """Go on to this tick, and hold there; answered by :class:`Holds`."""

    round: int
    step: int


class LetGo(Message, frozen=True, tag=262):
    """Go on with the program; ``resume``: also if it is paused. ``words`` are for the terminal."""

    round: int
    resume: bool = False
    words: str = ""


class Stop(Message, frozen=True, tag=218):
    """End this process.

    ``code`` is its exit code. ``words`` are for the terminal: the rank prints them. ``at_once``: other ranks may
    be anywhere, so do not leave MPI together with them.
    """

    reason: str
    code: int = 0
    words: str = ""
    at_once: bool = False


# --- rank to agent, while the set forms ------------------------------------------------------------------------


class RankHello(Message, frozen=True, tag=230):
    """Who this rank is. Its control block comes along.

    ``wanted`` is the engine id it would like; ``expected`` how many ranks there are on its node;
    ``leaders`` the lowest rank on the node of each rank, if they share a communicator; ``left`` the seconds until
    the job ends, ``job`` its id for people; ``launcher`` the process that started it, 0 if that is no launcher;
    ``node`` what the batch system calls the host, "" if it does not say so.
    """

    rank: int
    wanted: int
    host: str
    pid: int
    expected: int
    leaders: list[int]
    joined: bool
    mpi: str
    python: str
    left: float | None = None
    job: str = ""
    launcher: int = 0
    node: str = ""


class Above(Message, frozen=True, tag=231):
    """Where the agent above is; "" if there is none."""

    address: str


class Formed(Message, frozen=True, tag=232):
    """All agents have met (``one_tree``), or else each of them is the root of a set of its own."""

    one_tree: bool
    trouble: str = ""


# --- rank to agent ----------------------------------------------------------------------------------------------


class CommandDone(Message, frozen=True, tag=240):
    """A command has ended. ``version`` counts changes of this engine's properties.

    ``streamed``: the body follows in :class:`DataPiece` messages. ``again``: the number of an earlier command, if
    this one has asked for its output. ``used``: whether it has used the communicator of all ranks.
    """

    number: int
    ok: bool
    outcome: bytes
    version: int
    sizes: list[int] = msgspec.field(default_factory=list)
    streamed: bool = False
    again: int = 0
    used: bool = False


class Bell(Message, frozen=True, tag=241):
    """There are results of task items in the control block."""


class ItemDone(Message, frozen=True, tag=242):
    """A task item has ended with a large result, which follows in pieces. ``hit``: it was interrupted."""

    serial: int
    hit: bool
    seconds: float
    sizes: list[int]


class PartDone(Message, frozen=True, tag=243):
    """A part has ended; ``kind`` is that of an outcome. ``hit``: it was interrupted.

    A large result follows in pieces; what else there is comes along.
    """

    serial: int
    kind: int
    hit: bool
    seconds: float
    sizes: list[int] = msgspec.field(default_factory=list)
    streamed: bool = False


class DataPiece(Message, frozen=True, tag=244):
    """The next bytes of the large answer that was begun: in the file in memory that comes along, or here."""

    size: int
    shared: bool = True


class Signalled(Message, frozen=True, tag=245):
    """The process got a signal: SIGTERM, SIGINT, or SIGUSR1, by which batch systems warn."""

    name: str


class Leaving(Message, frozen=True, tag=246):
    """This process ends now, as it was told to. The agent may go before it.

    A rank of a program leaves by itself, and says why in ``words``; its process may go on.
    """

    words: str = ""


class Holds(Message, frozen=True, tag=263):
    """This rank of a program holds at the tick that was agreed in this round."""

    round: int


class OutputPipes(Message, frozen=True, tag=247):
    """First packet of a rank, with three pipes through which it prints.

    Two are standard output and standard error during commands, one has a copy of what Python prints otherwise.
    """


class StackPipe(Message, frozen=True, tag=249):
    """With a pipe into which the C library writes the rank's Python stack when it gets this signal."""

    signal: int


class Displayed(Message, frozen=True, tag=248):
    """The command that runs displays something: an encoded :class:`~ipmpi.protocol.operations.Display`.

    Displays of a rank are numbered.
    """

    data: bytes
    number: int = 0


class DebuggerTold(Message, frozen=True, tag=252):
    """The debugger in the command that runs has written ``text``; see DebuggerSaid. Prompts are numbered."""

    number: int
    state: int
    text: str
    prompt: str = ""
    place: str = ""


class Sampled(Message, frozen=True, tag=264):
    """Rank 0 of a program tells the value that is watched, and after which step it was."""

    watch: int
    step: int
    value: float


class DebuggerAttached(Message, frozen=True, tag=253):
    """Debugpy is attached for connection ``number`` of the control block, and its socket comes along.

    ``folder`` is the current one. With a ``trouble`` it is not attached, and there is no socket.
    """

    number: int
    folder: str
    trouble: str = ""


ToRank = (
    Greeting
    | Address
    | Met
    | NewEngineId
    | RunCommand
    | RunItems
    | RunItem
    | RunPart
    | PartBody
    | PartLeft
    | Freed
    | DisplayTaken
    | DebuggerAnswer
    | LogLine
    | HoldHere
    | StopAtStep
    | LetGo
    | Stop
    | DefineFunction
    | ForgetFunctions
)
ToAgent = (
    RankHello
    | OutputPipes
    | StackPipe
    | Above
    | Formed
    | CommandDone
    | Displayed
    | DebuggerTold
    | DebuggerAttached
    | Bell
    | ItemDone
    | PartDone
    | DataPiece
    | Signalled
    | Leaving
    | Holds
    | Sampled
)

_encoder = msgspec.msgpack.Encoder(enc_hook=on_the_wire)
_to_rank: msgspec.msgpack.Decoder[ToRank] = msgspec.msgpack.Decoder(ToRank, dec_hook=from_the_wire)
_to_agent: msgspec.msgpack.Decoder[ToAgent] = msgspec.msgpack.Decoder(ToAgent)


def encode(message: ToRank | ToAgent, body: Sequence[Buffer] = ()) -> bytes:
    """The packet of a message and its inline body."""
    header = _encoder.encode(message)
    return b"".join([_LENGTH.pack(len(header)), header, *body])


def for_rank(packet: bytes) -> tuple[ToRank, memoryview]:
    """What an agent has said to a rank, and its inline body; RemoteProtocolError for anything else."""
    header, body = _cut(packet)
    try:
        return _to_rank.decode(header), body
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"a packet of the node agent that cannot be understood: {error}") from None


def for_agent(packet: bytes) -> tuple[ToAgent, memoryview]:
    """What a rank has said to its agent, and its inline body; RemoteProtocolError for anything else."""
    header, body = _cut(packet)
    try:
        return _to_agent.decode(header), body
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"a packet of a rank that cannot be understood: {error}") from None


def _cut(packet: bytes) -> tuple[memoryview, memoryview]:
    view = memoryview(packet)
    if len(view) < _LENGTH.size:
        raise RemoteProtocolError("a packet without a header")
    end = _LENGTH.size + _LENGTH.unpack_from(view)[0]
    if end > len(view):
        raise RemoteProtocolError("a packet whose header is cut off")
    return view[_LENGTH.size : end], view[end:]
