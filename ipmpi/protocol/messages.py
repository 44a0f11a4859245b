"""All that may be said on an authenticated link, one type per message.

A message may have a *body*: buffers that no one between the two ends looks into. ``sizes`` lists their
lengths; the bytes follow inside the message's frame or, above ``limits.INLINE_BODY``, as a stream of chunks.
Who may say what is in :mod:`ipmpi.protocol.permissions`. What only the task farm says is in
:mod:`ipmpi.protocol.tasks`, what travels inside ssh in :mod:`ipmpi.protocol.sshmessages`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

from ..ids import IdList, from_the_wire, on_the_wire
from .basemessage import Message as Message
from .commandhistory import (
    CommandHistory as CommandHistory,
    CommandHistoryMessage as CommandHistoryMessage,
    CommandOrigin as CommandOrigin,
    FollowCommand as FollowCommand,
)
from .commandrecovery import (
    CommandAgain as CommandAgain,
    CommandRecoveryMessage as CommandRecoveryMessage,
    CommandsHeld as CommandsHeld,
    CommandsTold as CommandsTold,
)
from .commands import (
    Accepted as Accepted,
    BodyAgain as BodyAgain,
    Command as Command,
    CommandMessage,
    Dispatch as Dispatch,
    Result as Result,
    SendBodyAgain as SendBodyAgain,
    Undone as Undone,
)
from .deaths import Death as Death, RanksLost as RanksLost
from .debugging import (
    ChannelMessage as ChannelMessage,
    DebugBytes as DebugBytes,
    DebugClosed as DebugClosed,
    DebugCredit as DebugCredit,
    DebuggerLine as DebuggerLine,
    DebuggerSaid as DebuggerSaid,
    DebugOpen as DebugOpen,
    DebugOpened as DebugOpened,
)
from .functions import DefineFunction as DefineFunction, ForgetFunctions as ForgetFunctions
from .furls import (
    AdmitSets as AdmitSets,
    EndFurls as EndFurls,
    FurlMessage,
    GiveFurl as GiveFurl,
    ListFurls as ListFurls,
    ReplaceSecrets as ReplaceSecrets,
)
from .inquiries import AskAgents as AskAgents, Findings as Findings, Inquiry as Inquiry
from .lanes import (
    JoinLane as JoinLane,
    LaneBody as LaneBody,
    LaneBytes as LaneBytes,
    LaneCut as LaneCut,
    LaneMessage as LaneMessage,
    LaneOffered as LaneOffered,
    LaneOver as LaneOver,
    LaneUp as LaneUp,
    OfferLane as OfferLane,
    UseLane as UseLane,
)
from .losses import EndSet as EndSet, OnLoss as OnLoss, RestoreAfterLoss as RestoreAfterLoss
from .namedtasks import (
    FollowTasks as FollowTasks,
    ForgetTasks as ForgetTasks,
    NamedTasksMessage as NamedTasksMessage,
    ResumeTasks as ResumeTasks,
    TaskHistory as TaskHistory,
    TaskOrigin as TaskOrigin,
)
from .output import (
    DISPLAY as DISPLAY,
    METADATA as METADATA,
    STDERR as STDERR,
    STDOUT as STDOUT,
    Output as Output,
    OutputBlock as OutputBlock,
)
from .peers import CommandWithdrawn as CommandWithdrawn, EndIsNear as EndIsNear, LeaveCommand as LeaveCommand
from .recovery import (
    RecoveryMessage as RecoveryMessage,
    ResultsRecorded as ResultsRecorded,
    TasksAccepted as TasksAccepted,
    TasksFetched as TasksFetched,
    TasksHeld as TasksHeld,
    TasksOpen as TasksOpen,
)
from .sshmessages import (
    ChannelReset as ChannelReset,
    ConnectTo as ConnectTo,
    Ended as Ended,
    Opened as Opened,
    ReadFurl as ReadFurl,
    RunCommand as RunCommand,
    SshMessage as SshMessage,
)
from .steering import (
    AllHold as AllHold,
    BeginWatch as BeginWatch,
    CannotHold as CannotHold,
    CanStopAt as CanStopAt,
    GoOn as GoOn,
    HoldRanks as HoldRanks,
    StopAt as StopAt,
    Subscribe as Subscribe,
    Unsubscribe as Unsubscribe,
    Unwatch as Unwatch,
    Watched as Watched,
    WatchPublished as WatchPublished,
)
from .tasks import (
    AbortTasks as AbortTasks,
    CancelTasks as CancelTasks,
    DeliverTogether as DeliverTogether,
    GiveTasks as GiveTasks,
    LargeTaskResult as LargeTaskResult,
    LeaveTogether as LeaveTogether,
    PropertiesChanged as PropertiesChanged,
    Recheck as Recheck,
    Release as Release,
    Reserve as Reserve,
    ReserveRanks as ReserveRanks,
    RunTogether as RunTogether,
    SubmitTasks as SubmitTasks,
    TakeBackTasks as TakeBackTasks,
    TaskBody as TaskBody,
    TaskDone as TaskDone,
    TaskHolds as TaskHolds,
    TaskMessage,
    TaskOptions as TaskOptions,
    TaskResults as TaskResults,
    TasksDone as TasksDone,
    TasksReturned as TasksReturned,
    TasksStarted as TasksStarted,
    TaskStatus as TaskStatus,
    TasksUndone as TasksUndone,
    TogetherEnded as TogetherEnded,
    WantTaskBody as WantTaskBody,
    WantTasks as WantTasks,
)

# --- client to controller --------------------------------------------------------------------------------


class GetIds(Message, frozen=True, tag=3):
    """Ids of the registered engines. Answer: list of int."""

    id: int


class QueueStatus(Message, frozen=True, tag=4):
    """What waits on engines.

    Answer: list of ``[engines, pending label or None, [label, ...], [answer, ...], seconds or None]``, equal ones
    once: what waits, large answers on their way to clients, and since when the pending command is there.
    """

    id: int
    targets: IdList | None


class ClearQueue(Message, frozen=True, tag=5):
    """Drop what waits on engines; the running command goes on. Answer: list of engine ids."""

    id: int
    targets: IdList | None


class Interrupt(Message, frozen=True, tag=6):
    """KeyboardInterrupt in what runs on engines now. Answer: ``[engines, [[engines, label], ...]]``.

    The first are those whose command has ended, the others those whose command still runs after a while. With
    ``commands``, numbers of this client's commands, only where one of them runs; where one is still queued, it is
    taken out of the queue.
    """

    id: int
    targets: IdList | None
    commands: list[int] | None = None


class Kill(Message, frozen=True, tag=7):
    """End engines, and with ``controller`` (all engines then) the controller. Answer: list of engine ids."""

    id: int
    targets: IdList | None
    controller: bool = False


class Restart(Message, frozen=True, tag=19):
    """Restart the whole launches of these engines. Answer: the ids of all engines that end, and come again.

    Refused (ClientError), before anything has ended, if nobody would start one of them again.
    """

    id: int
    targets: IdList | None


class ClusterInfo(Message, frozen=True, tag=8):
    """Who is there. Answer: a dict as in :meth:`ipmpi.client.MultiEngineClient.cluster_info`.

    Of the engines it has those with ids above ``after``, as many as fit into one message. If there are ``more``,
    the client asks again, after the last one.
    """

    id: int
    after: int = -1


# --- controller to client --------------------------------------------------------------------------------


class Reply(Message, frozen=True, tag=20):
    """The answer to a request that needs no engine."""

    id: int
    value: Any = None


class Refused(Message, frozen=True, tag=21):
    """A request or command that is not carried out: the name of an error class, and the sentence."""

    id: int
    error: str
    text: str


class Notice(Message, frozen=True, tag=28):
    """Something a person should read: an engine lost, the controller stopping."""

    text: str


class EnginesChanged(Message, frozen=True, tag=30):
    """Ids of engines that came, and that are gone. The first one in a session has all that are there."""

    came: IdList
    gone: IdList


# --- controller to engine set ------------------------------------------------------------------------------


class Registered(Message, frozen=True, tag=40):
    """Engine ids in the order of :attr:`Register.engines`; inside a set, in that of ``ranks``."""

    ids: IdList
    ranks: IdList = field(default_factory=list)


class InterruptRanks(Message, frozen=True, tag=42):
    """KeyboardInterrupt in what these ranks run now."""

    ranks: IdList


class StopRanks(Message, frozen=True, tag=43):
    """End these ranks."""

    ranks: IdList


# --- engine set to controller --------------------------------------------------------------------------------


class EngineInfo(Message, frozen=True):
    """One engine of a set: its rank in the set, the id it would like, and where it runs.

    ``node`` is the name that the batch system has for the host; "" if that is not known there, or is the same.
    """

    rank: int
    wanted: int
    host: str
    pid: int
    node: str = ""


class Register(Message, frozen=True, tag=60):
    """First message of an engine set: its engines, and the ids they had if this is a new link of old engines.

    A large set needs several; ``more`` is set in all but the last, which has the ids. ``launch`` names the launch,
    if it is started again when it ends; ``program`` a program with a loop of its own, which gets no tasks.
    ``on_loss`` is one of :data:`~ipmpi.protocol.losses.LOSS_MODES`. ``user`` is the name of their user.
    """

    engines: list[EngineInfo]
    mpi: str
    python: str
    ids: IdList = field(default_factory=list)
    more: bool = False
    launch: str = ""
    program: str = ""
    on_loss: str = "shrink"
    user: str = ""


class JobEnds(Message, frozen=True, tag=68):
    """The set's job ends in so many seconds, None if that is not known; replaces what was said before.

    Seconds and no time of day, as the clocks of machines differ. ``job`` is the batch system's id, for people.
    ``warned``: the batch system has sent its warning signal.
    """

    seconds: float | None
    job: str = ""
    warned: bool = False


class RunBeforeEnd(Message, frozen=True, tag=69):
    """The end of the set's job is near: give these ranks this operation, at one place in the order of commands.

    The controller has the queues, so only it knows a place that no rank has passed. The operation comes back as a
    :class:`Dispatch`, and its failure becomes a :class:`Notice`.
    """

    ranks: IdList
    label: str
    operation: bytes


class AnswerStuck(Message, frozen=True, tag=59):
    """Rank ``rank`` can do nothing, for its large answer does not get on: nobody takes the bytes.

    It has no memory for a copy of the rest, and others wait for it. The answer is that to :class:`Dispatch`
    ``id``; where that is 0, the :class:`LargeTaskResult` of a task. The controller may refuse the answer's stream.
    """

    rank: int
    id: int
    group: int = 0
    index: int = 0


# --- either direction ----------------------------------------------------------------------------------------


class Goodbye(Message, frozen=True, tag=80):
    """The sender closes the link on purpose, and the session with it.

    With ``fault`` something went wrong at the sender that nobody foresaw: a new session may go well. With ``furl``
    the furl of the session has ended.
    """

    reason: str
    fault: bool = False
    furl: bool = False


AnyMessage = (
    CommandMessage
    | GetIds
    | QueueStatus
    | ClearQueue
    | Interrupt
    | Kill
    | Restart
    | OnLoss
    | RestoreAfterLoss
    | ClusterInfo
    | AskAgents
    | DebuggerLine
    | Reply
    | Refused
    | Notice
    | EnginesChanged
    | Registered
    | CommandWithdrawn
    | LeaveCommand
    | InterruptRanks
    | Inquiry
    | StopRanks
    | EndSet
    | Register
    | RanksLost
    | JobEnds
    | RunBeforeEnd
    | AnswerStuck
    | Findings
    | Output
    | DebuggerSaid
    | ChannelMessage
    | RecoveryMessage
    | CommandRecoveryMessage
    | CommandHistoryMessage
    | NamedTasksMessage
    | TaskMessage
    | EndIsNear
    | HoldRanks
    | CanStopAt
    | StopAt
    | AllHold
    | CannotHold
    | GoOn
    | Subscribe
    | Unsubscribe
    | Watched
    | Unwatch
    | FurlMessage
    | WatchPublished
    | BeginWatch
    | LaneMessage
    | SshMessage
    | Goodbye
)
"""Every message type; tests walk over it, so that a new type cannot be forgotten in the tables."""

_encoder = msgspec.msgpack.Encoder(enc_hook=on_the_wire)
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage, dec_hook=from_the_wire)


def encode(message: AnyMessage) -> bytes:
    """The bytes of a message, without its body."""
    return _encoder.encode(message)


def decode(data: bytes | memoryview) -> AnyMessage:
    """The message in ``data``; raises :class:`msgspec.DecodeError` for anything else."""
    return _decoder.decode(data)
