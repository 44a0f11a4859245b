"""What is said about tasks: the part of :mod:`ipmpi.protocol.messages` that only the farm uses.

Tasks travel in *groups*: all that was submitted with the same options at the same time. A task is named by its
group and its index in it. A client numbers its groups; between controller and engines the controller's own number
stands for a group. Messages about tasks carry batches: see :mod:`ipmpi.protocol.packed`.
"""

from __future__ import annotations

from msgspec import field

from ..ids import IdList
from .basemessage import Message
from .functions import DefineFunction, ForgetFunctions

# --- client to controller ---------------------------------------------------------------------------------


class TaskOptions(Message, frozen=True):
    """What the tasks of one group have in common.

    ``operation`` is an encoded :data:`~ipmpi.protocol.operations.TaskOperation`, opaque to the controller;
    ``functions`` are the keys (see :class:`DefineFunction`) that an engine must know to run it. ``width`` is the
    number of ranks that run the task together. ``timeout`` and ``expected`` are seconds of running. With
    ``conditional`` an engine may refuse the task. ``after`` and ``follow`` name tasks of the same client as
    ``(group, index)``: those that have to succeed first, and the one on whose engine this must run. ``name``: that
    of their bundle (see :mod:`ipmpi.protocol.namedtasks`), if any; ``detach``: whether they go on without their
    client, None for what the client has said of all; ``is_map``: they are items of one call of map. Engines are
    not told these.
    """

    operation: bytes
    label: str
    functions: list[bytes] = field(default_factory=list)
    retries: int = 0
    priority: int = 0
    width: int = 1
    same_node: bool = False
    timeout: float | None = None
    expected: float | None = None
    conditional: bool = False
    after: list[tuple[int, int]] = field(default_factory=list)
    follow: tuple[int, int] | None = None
    name: str = ""
    detach: bool | None = None
    is_map: bool = False


class SubmitTasks(Message, frozen=True, tag=9):
    """A group of tasks for whichever engines are free; task number ``index`` of group ``id`` is ``(id, index)``.

    ``lengths`` are the packed lengths of the tasks' payloads, which lie back to back in the inline body (``sizes``
    is then ``[their sum]``). Without ``lengths`` the group is one *large* task, whose body of segments ``sizes``
    is a stream that the controller asks for when an engine waits for it.
    """

    id: int
    options: TaskOptions
    lengths: bytes = b""
    sizes: list[int] = field(default_factory=list)


class AbortTasks(Message, frozen=True, tag=10):
    """Take tasks of a group back; ``indices`` are packed, empty for all of them. Answer: see ``how``.

    ``how`` is 'cancel' (those that have not started are never run; answer: packed indices of these), 'drop'
    (that, and the results of those that run are dropped), or 'interrupt' (that, and those that run are
    interrupted). 'drop' and 'interrupt' answer at once, with the packed indices of those that had not ended. A
    task that was taken back is told to the client by :class:`TasksUndone` with TaskAborted: cancelled ones when it
    is certain that they will not run, dropped ones at once, interrupted ones when they have ended.
    """

    id: int
    group: int
    indices: bytes
    how: str


class TaskStatus(Message, frozen=True, tag=11):
    """The farm's counts.

    Answer: ``{'scheduled': n, 'pending': n, 'succeeded': n, 'failed': n, 'running': [[group, packed indices],
    ...]}``; the last names this client's tasks that engines have.
    """

    id: int


class Recheck(Message, frozen=True, tag=14):
    """Ask the engines again that refused conditional tasks. Answer: None."""

    id: int


class Reserve(Message, frozen=True, tag=15):
    """Start no more tasks on these engines, for this client's commands, until :class:`Release`. Answer: ids."""

    id: int
    targets: IdList | None


class Release(Message, frozen=True, tag=16):
    """The end of one :class:`Reserve` of these engines. Answer: ids."""

    id: int
    targets: IdList


# --- controller to client ---------------------------------------------------------------------------------


class TasksDone(Message, frozen=True, tag=26):
    """Tasks of a group that have ended on ``engine``. ``indices`` and ``lengths`` are packed.

    ``failed`` holds, packed, the positions (in ``indices``) of those that raised: their payload is that of
    :func:`ipmpi.protocol.packed.pack_failure`. That of the others is the pickled result, or nothing for None.
    """

    group: int
    engine: int
    indices: bytes
    failed: bytes
    lengths: bytes
    sizes: list[int] = field(default_factory=list)


class TasksUndone(Message, frozen=True, tag=27):
    """Tasks that have no outcome: the name of an error class, and the sentence. ``indices`` are packed."""

    group: int
    indices: bytes
    error: str
    text: str


class TaskDone(Message, frozen=True, tag=29):
    """A task that succeeded with a large result, which is the body: pickle and buffers."""

    group: int
    index: int
    engine: int
    sizes: list[int]


# --- controller to engine set, and from the set's root agent to its ranks -----------------------------------


class GiveTasks(Message, frozen=True, tag=44):
    """Tasks to run: each on any one of ``ranks``, or of the whole set where that is empty.

    From the root agent to those below, ``ranks`` is the one that shall run them. ``indices`` and ``lengths`` are
    packed; payloads as in :class:`SubmitTasks`. Without ``lengths`` it is one large task, whose body is asked
    for by :class:`WantTaskBody`. ``alone``: each may end its process, so give a rank nothing else beside it.
    """

    group: int
    options: TaskOptions
    indices: bytes
    lengths: bytes
    ranks: IdList = field(default_factory=list)
    alone: bool = False
    sizes: list[int] = field(default_factory=list)


class TakeBackTasks(Message, frozen=True, tag=45):
    """Return up to ``count`` tasks that have not started, by :class:`TasksReturned`; to these ranks or to all."""

    count: int
    ranks: IdList = field(default_factory=list)


class CancelTasks(Message, frozen=True, tag=46):
    """Do not run these tasks; with ``interrupt``, stop those that run. ``indices`` are packed.

    What had not started comes back as 'cancelled'; what runs, and is not to be interrupted, as 'running'.
    """

    group: int
    indices: bytes
    interrupt: bool
    ranks: IdList = field(default_factory=list)


class TaskBody(Message, frozen=True, tag=47):
    """The body that :class:`WantTaskBody` asked for, to the ranks that wait for it."""

    group: int
    index: int
    ranks: IdList
    sizes: list[int]


class ReserveRanks(Message, frozen=True, tag=48):
    """Start no more tasks on these ranks; with ``on`` False, do again."""

    ranks: IdList
    on: bool


# --- engine set to controller, and from agents to the root agent --------------------------------------------


class WantTasks(Message, frozen=True, tag=62):
    """The set can hold so many tasks that are not answered, running ones included; replaces the number before."""

    window: int


class TaskResults(Message, frozen=True, tag=63):
    """Tasks that ended on ``rank``, as in :class:`TasksDone`; they took ``busy`` seconds together."""

    group: int
    rank: int
    indices: bytes
    failed: bytes
    lengths: bytes
    busy: float
    sizes: list[int] = field(default_factory=list)


class LargeTaskResult(Message, frozen=True, tag=64):
    """A task that succeeded with a large result, which is the body; it took ``busy`` seconds."""

    group: int
    index: int
    rank: int
    busy: float
    sizes: list[int]


class TasksReturned(Message, frozen=True, tag=65):
    """Tasks that ``rank`` (-1: none in particular) has not run to an end. ``indices`` are packed.

    ``why``: 'taken' back; 'cancelled'; 'lost' with the rank's process, or 'ended' with it, as it was told to end;
    'refused', since their condition does not hold here; 'rejected' by their own TaskRejectError (``text``);
    'broken', since their body did not come (``text`` says why). With 'running' they are not returned: they have
    started, and were only to be cancelled before.
    """

    group: int
    indices: bytes
    rank: int
    why: str
    text: str = ""


class TasksStarted(Message, frozen=True, tag=58):
    """Ranks of the set were given these tasks. If the set is lost without a word, one of them may be the cause.

    Said before they begin. ``indices`` are packed.
    """

    group: int
    indices: bytes


class WantTaskBody(Message, frozen=True, tag=66):
    """These ranks wait for the body of a large task."""

    group: int
    index: int
    ranks: IdList


class PropertiesChanged(Message, frozen=True, tag=67):
    """Properties of these ranks were set or deleted: conditions may hold now that did not."""

    ranks: IdList


class TaskHolds(Message, frozen=True, tag=70):
    """A rank does not come back from a task, of this ``label``, whose end was told; "" when it has come back."""

    rank: int
    label: str


# --- inside an engine set, for tasks on several ranks -----------------------------------------------------


class RunTogether(Message, frozen=True, tag=72):
    """Run one task on all of ``ranks``, whose order is that of the communicator it gets.

    The payload, or for a large task its body, is that of :class:`GiveTasks`; ``for_ranks`` are those of ``ranks``
    that this message is on its way to. ``serial`` numbers the communicator: with the same number, the same one.
    ``has_lost``: a rank of the set has died, which matters when a communicator is made.
    """

    group: int
    index: int
    options: TaskOptions
    ranks: IdList
    for_ranks: IdList
    serial: int
    large: bool
    sizes: list[int] = field(default_factory=list)
    has_lost: bool = False


class TogetherEnded(Message, frozen=True, tag=73):
    """One rank's part of a task has ended. A rank that raised sends its failure as the body."""

    group: int
    index: int
    rank: int
    ok: bool
    busy: float
    sizes: list[int] = field(default_factory=list)


class LeaveTogether(Message, frozen=True, tag=74):
    """One rank of a task failed, or the task is cancelled: these ranks shall leave what they wait in.

    ``text`` says why, for their users' eyes.
    """

    group: int
    index: int
    ranks: IdList
    text: str


class DeliverTogether(Message, frozen=True, tag=75):
    """All parts of a task have succeeded: this rank, the root, sends its result as that of the task."""

    group: int
    index: int
    ranks: IdList


TaskMessage = (
    AbortTasks
    | CancelTasks
    | DefineFunction
    | DeliverTogether
    | ForgetFunctions
    | GiveTasks
    | LargeTaskResult
    | LeaveTogether
    | PropertiesChanged
    | Recheck
    | Release
    | Reserve
    | ReserveRanks
    | RunTogether
    | SubmitTasks
    | TakeBackTasks
    | TaskBody
    | TaskDone
    | TaskHolds
    | TaskResults
    | TasksDone
    | TasksReturned
    | TasksStarted
    | TaskStatus
    | TasksUndone
    | TogetherEnded
    | WantTaskBody
    | WantTasks
)
"""All of these; see also :mod:`ipmpi.protocol.recovery`."""
