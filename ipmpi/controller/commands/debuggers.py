"""Debuggers in the commands of clients (no I/O).

Only the client that has sent a command hears its debuggers, and only that client can answer them. If it is gone,
user code goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

from ... import limits
from ...errors import MessageSizeError
from ...ids import NONE, Ids
from ...protocol import messages as m
from ...protocol.debugging import PROMPT
from ..effects import Effect, Send
from ..registry import Registry
from .debugchannels import DebugChannels
from .queuedcommand import ClientCommands, QueuedCommand


class Debuggers:
    """Passes on what debuggers say, and lines for them.

    Args:
        works: the commands that are under way, by serial number.
        clients: those of each client.
        running: returns the ids of those of a set's ranks that run a command.
        perform: called with each effect.
        first: the first serial number of a channel.

    Attributes:
        channels: those between editors and debugpy, which belong to no command.
        reports: what hears messages of engine sets, by their types.
    """

    def __init__(
        self,
        registry: Registry,
        works: Mapping[int, QueuedCommand],
        clients: Mapping[int, ClientCommands],
        running: Callable[[int, QueuedCommand, Sequence[int]], Ids],
        perform: Callable[[Effect], None],
        first: int = 1,
    ) -> None:
        self._registry = registry
        self._works = works
        self._clients = clients
        self._running = running
        self._perform = perform
        self.channels = DebugChannels(registry, first, perform)
        self.reports: dict[type[m.Message], Callable[[int, Any], object]] = {
            m.DebuggerSaid: self.said, **dict.fromkeys(get_args(m.ChannelMessage), self.channels.from_engine),
        }  # fmt: skip

    def said(self, key: int, message: m.DebuggerSaid) -> None:
        """A debugger on a rank of a set has said something."""
        work = self._works.get(message.id)
        ids = NONE if work is None else self._running(key, work, [message.engine])
        if work is None or not ids or work.client not in self._clients:
            if message.state == PROMPT:
                self._perform(Send(key, m.DebuggerLine(message.id, [message.engine], None)))
            return
        waits = work.debugged.add if message.state == PROMPT else work.debugged.discard
        waits(ids[0])
        text = message.text[: 2 * limits.DEBUGGER_TEXT]
        work.output += len(text)
        if work.output > work.most_output:
            text = ""
        prompt, place = message.prompt[: limits.LABEL], message.place[: limits.LABEL]
        told = m.DebuggerSaid(work.id, ids[0], message.state, text, prompt, place)
        self._perform(Send(work.client, told))

    def line(self, client: int, message: m.DebuggerLine) -> None:
        """A client has a line for debuggers in one of its commands; where none waits it is dropped.

        Raises:
            MessageSizeError: it is too long.
        """
        if message.text is not None and len(message.text) > limits.DEBUGGER_LINE + 1:
            raise MessageSizeError(f"a line for a debugger has at most {limits.DEBUGGER_LINE} characters")
        state = self._clients.get(client)
        work = None if state is None else state.commands.get(message.command)
        if work is not None:
            self._answer(work, message.engines, message.text)

    def client_lost(self, client: int, works: Iterable[QueuedCommand]) -> None:
        """The client of these commands is gone."""
        self.channels.client_lost(client)
        for work in works:
            self._answer(work, list(work.debugged), None)

    def _answer(self, work: QueuedCommand, engines: Iterable[int], text: str | None) -> None:
        there = [engine for engine in engines if engine in work.debugged and engine in self._registry.engines]
        work.debugged.difference_update(there)
        for key, ranks in self._registry.by_set(there).items():
            self._perform(Send(key, m.DebuggerLine(work.serial, ranks, text)))
