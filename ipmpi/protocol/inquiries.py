"""What clients ask the node agents of ranks, and what these answer, also while every rank is stuck.

A question travels inside :class:`AskAgents` as opaque bytes: only the client and the
agents look inside.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ..ids import IdList
from .basemessage import Message
from .mpicalls import MpiCall


class AskAgents(Message, frozen=True, tag=17):
    """Ask the node agents about their ranks, however busy these are.

    ``question`` is an encoded :data:`Question`. Answer: a list of ``[[engine, ...],
    answer]``, and the list of the engines of which nobody has told anything in time.
    """

    id: int
    targets: IdList | None
    question: bytes


class Inquiry(Message, frozen=True, tag=49):
    """Tell something about these ranks. Answered by :class:`Findings`."""

    id: int
    ranks: IdList
    question: bytes


class Findings(Message, frozen=True, tag=56):
    """The answer to an :class:`Inquiry`, the same for these ranks.

    ``engines``: as in :class:`~ipmpi.protocol.messages.Result`.
    """

    id: int
    engines: IdList
    answer: bytes


class ReadLog(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="log"):
    """What has a rank printed while it ran no command? The last ``most`` bytes of it."""

    most: int


class ReadStacks(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="stacks"):
    """Where is a rank?

    Attributes:
        native: whether frames of C are wanted, for which the rank is stopped for some milliseconds.
        calls: how many of its last MPI calls are wanted at most, of those that what runs has made.
        quick: whether the place of an MPI call that is recorded is enough, for a rank that is in one.
    """

    native: bool = False
    calls: int = 1
    quick: bool = False


class ReadSteps(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="steps"):
    """At which step of its program is a rank? The program does not notice the question."""


Question = ReadLog | ReadStacks | ReadSteps


class RankLog(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="log"):
    """The end of what it has printed, as UTF-8 text."""

    text: bytes


class StackFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A function that a rank is in.

    Attributes:
        function: its name.
        file: its source file; of a C function, its library.
        line: the line that runs; 0 in C.
        text: that line, "" where it is not known.
    """

    function: str
    file: str
    line: int
    text: str = ""


class RankStack(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="stacks"):
    """Where a rank is.

    Attributes:
        state: :data:`RUNNING`, :data:`IDLE`, :data:`STOPPED` or :data:`ENDED`.
        signal: the signal that has stopped it; 0 if that is not known.
        seconds: for how long it has been idle or stopped; -1 if that is not known.
        runs: what it runs: the method of a command, or ``task`` and its name.
        running: seconds since that began.
        frames: the functions of the user's code, innermost first.
        note: why there are no frames.
        calls: its last MPI calls, the newest one last, as far as they are known; in whole seconds.
    """

    state: str
    signal: int = 0
    seconds: int = -1
    runs: str = ""
    running: int = 0
    frames: list[StackFrame] = []
    note: str = ""
    calls: list[MpiCall] = []


RUNNING: Final = "running"
IDLE: Final = "idle"
"""It waits for a command or a task."""
STOPPED: Final = "stopped"
"""A signal has stopped its process, as by Ctrl-Z, ``kill -STOP`` or a debugger."""
ENDED: Final = "ended"


class RankStep(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="steps"):
    """Where a rank of a program is.

    Attributes:
        tick: the number of its last tick; -1 before the first one, and for engines without a loop.
        step: what the program calls the step that follows it.
        holds: whether it holds there.
        is_paused: whether it holds because somebody has paused it.
    """

    tick: int
    step: int
    holds: bool = False
    is_paused: bool = False


Answer = RankLog | RankStack | RankStep

_encoder = msgspec.msgpack.Encoder()
_questions: Final[msgspec.msgpack.Decoder[Question]] = msgspec.msgpack.Decoder(Question)
_answers: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


def encode(value: Question | Answer) -> bytes:
    """The bytes of a question or an answer."""
    return _encoder.encode(value)


def decode_question(data: bytes) -> Question:
    """The question in ``data``; raises :class:`msgspec.DecodeError` for anything else."""
    return _questions.decode(data)


def decode_answer(data: bytes) -> Answer:
    """The answer in ``data``; raises :class:`msgspec.DecodeError` for anything else."""
    return _answers.decode(data)
