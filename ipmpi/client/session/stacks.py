"""Asking node agents where engines are."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

from ...ids import Ids
from ...protocol import inquiries, messages
from ...protocol.inquiries import Answer, RankStack, ReadStacks

NATIVE: Final = ReadStacks(native=True)
"""With functions of C, for which each engine is halted for some milliseconds."""


class Requests(Protocol):
    """The part of :class:`ipmpi.client.session.session.Session` that is needed here."""

    def request(self, make: Callable[[int], messages.AnyMessage]) -> concurrent.futures.Future[Any]:
        """Send a request to the controller."""


def ask_stacks(
    session: Requests, engines: list[int], question: ReadStacks = NATIVE
) -> concurrent.futures.Future[Any]:
    """Ask where engines are; :func:`stacks_of` reads the reply."""
    asked = inquiries.encode(question)
    return session.request(lambda i: messages.AskAgents(i, engines, asked))


def stacks_of(reply: Sequence[Any]) -> dict[int, RankStack]:
    """Return the stacks in a reply to :class:`~ipmpi.protocol.messages.AskAgents`, by engine."""
    return by_engine((Ids.unpacked(engines), inquiries.decode_answer(encoded)) for engines, encoded in reply[0])


def by_engine(answers: Iterable[tuple[Sequence[int], Answer]]) -> dict[int, RankStack]:
    """Return the stacks among answers, by engine, ascending."""
    found: dict[int, RankStack] = {}
    for engines, answer in answers:
        if isinstance(answer, RankStack):
            found.update(dict.fromkeys(engines, answer))
    return dict(sorted(found.items()))
