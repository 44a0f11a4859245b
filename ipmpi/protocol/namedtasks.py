"""What is said about tasks that outlive their client: who submitted them, and who asks for them again.

Tasks of a client that were submitted under one name are a *bundle*. A client that follows a bundle hears of the
ends of its tasks as if it had submitted them: for it, the number of each group is the controller's own number,
negated.
"""

from __future__ import annotations

from typing import Final

from .basemessage import Message

UNNAMED: Final = "unnamed-"
"""With the number of a client: the name of its tasks that were given none."""

# --- client to controller ---------------------------------------------------------------------------------


class TaskOrigin(Message, frozen=True, tag=140):
    """Who submits the tasks of this session, said before the first of them.

    ``detach``: whether they go on without this client if their options do not say.
    """

    host: str
    user: str
    detach: bool


class TaskHistory(Message, frozen=True, tag=141):
    """The bundles of the holder of this furl, those after number ``after`` of them.

    Answer: ``{'names': [[number, name, submitted, host, user, tasks, succeeded, failed, running, is_there], ...],
    'more': bool}``, in the order of submission: a time in seconds since 1970, numbers of tasks, and whether their
    client is there. ``more``: there are others after the last of these.
    """

    id: int
    after: int = 0


class ResumeTasks(Message, frozen=True, tag=142):
    """The groups of a bundle, those after number ``after`` of them.

    Answer: ``{'groups': [[number, tasks, is_map, bytes, label], ...], 'more': bool}``; ``bytes`` are those
    of results that are kept.
    """

    id: int
    name: str
    after: int


class FollowTasks(Message, frozen=True, tag=143):
    """Tell this client the ends of the tasks of these groups: at once, and as they end. Answer: None, then."""

    id: int
    groups: list[int]


class ForgetTasks(Message, frozen=True, tag=144):
    """Cancel what has not started of a bundle, and keep nothing of it. Answer: the number of its tasks."""

    id: int
    name: str


NamedTasksMessage = TaskOrigin | TaskHistory | ResumeTasks | FollowTasks | ForgetTasks
