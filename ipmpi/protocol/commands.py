"""A command's way: from a client through the controller to ranks of engine sets, and what comes back.

What is said of commands after a restart of the controller is in :mod:`ipmpi.protocol.commandrecovery`.
"""

from __future__ import annotations

from msgspec import field

from ..ids import IdList
from .basemessage import Message
from .deaths import Death


class Command(Message, frozen=True, tag=1):
    """Something addressed to given engines (None: all that are registered). Answered by :class:`Result`.

    ``operation`` is an encoded :data:`~ipmpi.protocol.operations.Operation`; ``method`` and ``label`` are
    what error messages and queue_status show of it. With ``one_idle`` it runs on the first idle target, and
    is refused (EngineBusy) if there is none. Commands of this client with numbers below ``below`` have ended.
    """

    id: int
    targets: IdList | None
    method: str
    label: str
    operation: bytes
    sizes: list[int] = field(default_factory=list)
    one_idle: bool = False
    below: int = 0


class BodyAgain(Message, frozen=True, tag=2):
    """The client's answer to :class:`SendBodyAgain`: the same body once more, as a new stream."""

    id: int
    sizes: list[int]


class Dispatch(Message, frozen=True, tag=41):
    """Run this on these ranks now. Answered by :class:`Result`; the controller sends one at a time to a rank.

    ``whole``: the command is for all engines of the set, even if this message is not. The root agent adds what its
    ranks do first with their communicator: ``renew`` is the number of the attempt to make a new one of the ranks
    ``members`` (empty for all), -1 if it must not be used, 0 if nothing is to be done. ``client`` is 0 if it is no
    client's; ``number`` and ``below`` are those of :class:`Command`, which is for so many ``engines``.
    """

    id: int
    ranks: IdList
    method: str
    operation: bytes
    sizes: list[int] = field(default_factory=list)
    whole: bool = False
    renew: int = 0
    members: IdList = field(default_factory=list)
    client: int = 0
    number: int = 0
    below: int = 0
    engines: int = 0


class Accepted(Message, frozen=True, tag=24):
    """The engines that a :class:`Command` with targets None was given to; left out if one answer is of all."""

    id: int
    engines: IdList


class SendBodyAgain(Message, frozen=True, tag=25):
    """Engines became free at different times: the controller needs the body of a command once more."""

    id: int


class Result(Message, frozen=True, tag=22):
    """The same answer from one or more engines to a :class:`Command` or :class:`Dispatch`.

    From an engine set ``engines`` are ranks, to a client they are engine ids. ``outcome`` is an encoded
    :data:`~ipmpi.protocol.operations.Outcome`; ``ok`` repeats for the controller whether it was a failure.
    ``used``: whether the command has used the communicator of the set, for the set's root agent.
    """

    id: int
    engines: IdList
    ok: bool
    outcome: bytes
    sizes: list[int] = field(default_factory=list)
    used: bool = False


class Undone(Message, frozen=True, tag=23):
    """Engines that will not answer a command: the name of an error class, and the sentence.

    ``death`` is what is known of the end of the process, if that is why.
    """

    id: int
    engines: IdList
    error: str
    text: str
    death: Death | None = None


CommandMessage = Command | BodyAgain | Dispatch | Accepted | SendBodyAgain | Result | Undone
