"""Which ranks run a command together, and what becomes of the others when one of them fails (no I/O).

Only the agent at the root of a set decides, as it sees every command on its way down and every answer on its way
up. The first failure of a command is told to all ranks of it that have not answered: the calls of their
communicator raise PeerError. If any of its ranks has used the communicator in that command, messages may be left
in it, so the next command on all ranks begins with a new one; until then it must not be used.

Ranks that are lost, and those whose engine was ended, are left out of the next communicator.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from ...protocol import messages as m, operations
from ..rank.commandcomm import BROKEN

_LINE = 300
"""Characters of an error that others are told."""


@dataclass
class _Shared:
    """A command that was given to ranks: who has not answered, and what is known of it."""

    waiting: set[int] = field(default_factory=set)
    renew: int = 0
    members: int = 0
    """How many ranks the new communicator has."""
    failure: m.LeaveCommand | None = None
    is_used: bool = False


class CommandPeers:
    """The commands of a set that run, and its communicator.

    Args:
        joined: whether the ranks share one.
    """

    def __init__(self, joined: bool) -> None:
        self._joined = joined
        self._ranks: set[int] = set()
        self._all: list[int] = []
        self._commands: dict[int, _Shared] = {}
        self._attempts = 0
        self._is_broken = False

    def registered(self, ranks: Iterable[int]) -> None:
        """These are the ranks of the set."""
        if not self._all:
            self._all = sorted(ranks)
            self._ranks = set(self._all)

    def given(self, message: m.Dispatch) -> tuple[m.Dispatch, m.LeaveCommand | None]:
        """A command goes down; return what to send, and what to send behind it."""
        if not self._joined:
            return message, None
        command = self._commands.get(message.id)
        if command is None:
            command = self._commands[message.id] = _Shared()
            if self._is_broken:
                command.renew = self._next_attempt() if message.whole else BROKEN
                command.members = len(self._ranks)
        command.waiting.update(self._ranks.intersection(message.ranks))
        if command.renew:
            members = sorted(self._ranks) if len(self._ranks) < len(self._all) else []
            message = msgspec.structs.replace(message, renew=command.renew, members=members)
        left = command.failure
        return message, None if left is None else msgspec.structs.replace(left, ranks=message.ranks)

    def _next_attempt(self) -> int:
        self._attempts += 1
        return self._attempts

    def answered(self, message: m.Result) -> m.LeaveCommand | None:
        """Ranks have answered; return what to tell others that run the same command."""
        command = self._commands.get(message.id)
        if command is None:
            return None
        command.is_used = command.is_used or message.used
        return self._done(message.id, command, message.engines, "" if message.ok else _said(message.outcome))

    def will_not_run(self, message: m.CommandWithdrawn) -> m.LeaveCommand | None:
        """Ranks will not be given a command that others run."""
        command = self._commands.get(message.id)
        return None if command is None else self._done(message.id, command, message.ranks, message.text)

    def lost(self, ranks: Sequence[int], reason: str) -> list[m.LeaveCommand]:
        """Ranks have ended; return what to tell others that run commands with them."""
        known = self._ranks.intersection(ranks)
        if not known:
            return []
        self._ranks -= known
        self._is_broken = self._is_broken or self._joined
        told = []
        for number, command in list(self._commands.items()):
            theirs = sorted(command.waiting & known)
            if (
                theirs
                and (left := self._done(number, command, theirs, f"EngineLost: {_line(reason)}")) is not None
            ):
                told.append(left)
        return told

    def _done(self, number: int, command: _Shared, ranks: Sequence[int], failure: str) -> m.LeaveCommand | None:
        command.waiting.difference_update(ranks)
        told = None
        if failure and command.failure is None:
            left = command.failure = m.LeaveCommand(
                number, sorted(command.waiting), min(ranks, default=0), failure
            )
            told = left if left.ranks else None
        if not command.waiting:
            del self._commands[number]
            self._ended(command)
        return told

    def _ended(self, command: _Shared) -> None:
        if command.failure is None:
            # Each rank makes the new communicator before anything else, and none can do it without the others.
            if command.renew > 0 and command.members == len(self._ranks):
                self._is_broken = False
        elif command.is_used:
            self._is_broken = True


def _said(outcome: bytes) -> str:
    try:
        failed = operations.decode_outcome(outcome)
    except msgspec.DecodeError:
        return "an error"
    if not isinstance(failed, operations.Failed):
        return "an error"
    return f"{failed.type_name}: {_line(failed.text)}" if failed.text else failed.type_name


def _line(text: str) -> str:
    first = text.strip().split("\n", 1)[0]
    return first if len(first) <= _LINE else f"{first[:_LINE]}..."
