"""What is said about tasks when a controller keeps a journal, and after it was started again from that.

Each end says what it still has. A client names the groups of which it lacks results, an engine set the tasks that
its ranks have; the controller answers with what is in its journal.
"""

from __future__ import annotations

from .basemessage import Message

# --- controller to client ---------------------------------------------------------------------------------


class TasksAccepted(Message, frozen=True, tag=120):
    """These groups of tasks are in the journal: the client need not keep their arguments any longer."""

    groups: list[int]


# --- client to controller ---------------------------------------------------------------------------------


class TasksFetched(Message, frozen=True, tag=121):
    """The client has the ends of all tasks of these groups: the journal need not keep them any longer."""

    groups: list[int]


class TasksOpen(Message, frozen=True, tag=122):
    """After a restart of the controller: the accepted groups of this client that have not ended for it.

    Each with the packed indices of the tasks of which it lacks the end. ``last``: there are no others.
    """

    groups: list[tuple[int, bytes]]
    last: bool


# --- engine set to controller -----------------------------------------------------------------------------


class TasksHeld(Message, frozen=True, tag=123):
    """After a restart of the controller: tasks that ranks have, or whose results follow; packed indices by group.

    ``last``: there are no others. What the controller does not know any more is answered by CancelTasks.
    """

    groups: list[tuple[int, bytes]]
    last: bool


# --- controller to engine set -----------------------------------------------------------------------------


class ResultsRecorded(Message, frozen=True, tag=124):
    """The first ``results`` messages TaskResults of this session need not be kept any longer by the set."""

    results: int


RecoveryMessage = TasksAccepted | TasksFetched | TasksOpen | TasksHeld | ResultsRecorded
