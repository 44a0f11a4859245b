"""What is said about the functions of tasks: the part of :mod:`ipmpi.protocol.tasks` that ranks load."""

from __future__ import annotations

from msgspec import field

from .basemessage import Message


class DefineFunction(Message, frozen=True, tag=12):
    """A piece of a pickled function that tasks name by ``key``, from byte ``offset`` of ``total`` on.

    The pieces come in order, and all before the first task that names the key. Also controller to engine set, and
    from there to all its ranks: once each.
    """

    key: bytes
    offset: int
    total: int
    sizes: list[int] = field(default_factory=list)


class ForgetFunctions(Message, frozen=True, tag=13):
    """These functions will not be named again, until they are defined anew. Also passed on to engines."""

    keys: list[bytes]
