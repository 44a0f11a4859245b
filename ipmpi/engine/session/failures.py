"""The description of an exception for clients: name, text, traceback of user frames, and pickle."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType

from ipmpi import limits, raised, serialize
from ipmpi.engine.session.texts import share, shorten
from ipmpi.errors import text_of
from ipmpi.limits import RESULT_TEXT
from ipmpi.protocol.frames import size_of
from ipmpi.protocol.operations import Executed, Failed
from ipmpi.serialize import Buffer

_PACKAGE = os.path.join(Path(os.path.abspath(__file__)).parents[2], "")

ANSWER_TEXT = RESULT_TEXT * 3 // 2
"""Most bytes of all texts of one reply, which is one message of at most ``limits.MESSAGE``."""


def failed(error: BaseException, executed: Executed | None = None) -> tuple[Failed, list[Buffer]]:
    """Return the outcome and the body for ``error``; never raises, however broken the exception is.

    The body is empty when the exception does not survive pickling and unpickling, or is too large
    (``limits.EXCEPTION``).
    """
    traceback_text, text = _formatted(error), _text(error)
    if executed is not None:
        text, traceback_text = share([text, traceback_text], ANSWER_TEXT)
    return Failed(shorten(type(error).__name__), text, traceback_text, executed), _body(error)


def _text(error: BaseException) -> str:
    return shorten(text_of(error), RESULT_TEXT // 4)


def _formatted(error: BaseException) -> str:
    try:
        told = traceback.TracebackException(type(error), error, user_frames(error.__traceback__))
        # An interrupt, for example, is raised by a function of ipmpi that user code has not called.
        while len(told.stack) > 1 and told.stack[-1].filename.startswith(_PACKAGE):
            told.stack.pop()
        return shorten("".join(told.format()))
    except BaseException as broken:
        return f"{type(error).__name__}: {_text(error)}\n<its traceback raised {type(broken).__name__}>\n"


def user_frames(tb: TracebackType | None) -> TracebackType | None:
    """Return ``tb`` without its leading frames of ipmpi; None if there are no others."""
    while tb is not None and is_ours(tb.tb_frame):
        tb = tb.tb_next
    return tb


def is_ours(frame: FrameType) -> bool:
    """Return whether a frame runs code of ipmpi."""
    return frame.f_code.co_filename.startswith(_PACKAGE)


def _body(error: BaseException) -> list[Buffer]:
    body = _survives(error)
    if body or type(error).__module__ == "builtins":
        return body  # Python's exceptions are rebuilt from name and text
    try:
        rest = raised.without(error, _is_sent)
    except BaseException:  # its attributes are user code
        return []
    return [] if rest is None else _survives(rest)


def _survives(error: BaseException) -> list[Buffer]:
    try:
        body: Sequence[Buffer] = serialize.dumps(error)
        if size_of(body) > limits.EXCEPTION:
            return []
        return list(body) if type(serialize.loads(body)) is type(error) else []
    except BaseException:  # its __reduce__ and __init__ are user code
        return []


def _is_sent(value: object) -> bool:
    try:
        return size_of(serialize.dumps(value)) <= limits.EXCEPTION
    except Exception:
        return False
