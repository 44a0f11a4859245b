"""What is said of commands that clients have given before: which there are, and following them again.

A controller keeps the last commands of all who hold the same furl, with what they have printed and answered. A
client that follows one hears of it as if it had given it: the number of its FollowCommand is that of the command.
"""

from __future__ import annotations

from .basemessage import Message

# --- client to controller ---------------------------------------------------------------------------------


class CommandOrigin(Message, frozen=True, tag=150):
    """Who gives the commands of this session, said before the first of them."""

    host: str
    user: str


class CommandHistory(Message, frozen=True, tag=151):
    """The commands of all who hold this furl, those after the one with place ``after``.

    With a ``client``, only its command with that ``number``.

    Answer: ``{'commands': [...], 'more': bool, 'dropped': int, 'now': float, 'left': float or None}``: how many
    are not kept any more, the controller's clock, and when a client of this furl that is away was heard of last.
    Of each command ``[place, client, number, whose, given, ended, host, user, method, label, operation, engines,
    answered, failed, is_begun, printed, left_out]``: ``whose`` is 0 for this client's, 1 for those of one that is
    there, and 2 if it is gone; times are in seconds since 1970, 0.0 for never, ``printed`` is that of the last
    output; ``operation`` is b"" if it was long; ``left_out`` are bytes of output that are not kept.
    """

    id: int
    after: int = 0
    client: int = 0
    number: int = 0


class FollowCommand(Message, frozen=True, tag=152):
    """Tell this client what a command of another one, or of its own, has printed and answered, and what will come.

    ``client`` and ``number`` name it. Answered as :class:`~ipmpi.protocol.commands.Command`. Only what was printed
    after ``since``, in seconds since 1970, is told. Unless ``waits``, nothing else is: all its engines are Undone.
    """

    id: int
    client: int
    number: int
    since: float = 0.0
    waits: bool = True


CommandHistoryMessage = CommandOrigin | CommandHistory | FollowCommand
