"""What clients ask the node agents of ranks, and what these answer, also while every rank is stuck.

A question travels inside :class:`~ipmpi.protocol.messages.AskAgents` as opaque bytes: only the client and the
agents look inside.
"""

from __future__ import annotations

from typing import Final

import msgspec


class ReadLog(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="log"):
    """What has a rank printed while it ran no command? The last ``most`` bytes of it."""

    most: int


Question = ReadLog


class RankLog(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="log"):
    """The end of what it has printed, as UTF-8 text."""

    text: bytes


Answer = RankLog

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
