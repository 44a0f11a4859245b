"""Failures on engines, as exceptions here: rebuilt one by one, and raised together."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ... import errors, serialize
from ...protocol.operations import Failed

if TYPE_CHECKING:
    from .enginereply import EngineReply

Body = Sequence[serialize.Buffer]


class EngineTraceback(Exception):
    """Shows, as the cause of an exception, where on the engine it was raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def error_from_name(name: str, text: str) -> BaseException:
    """The exception that ``name`` stands for: one of ipmpi's or of Python's, else an UnpickleableException."""
    short = name.removeprefix("builtins.").removeprefix("ipmpi.errors.")
    kind = getattr(errors, short, None) or getattr(builtins, short, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        # Some exceptions want other arguments than one text (CompositeError, UnicodeDecodeError).
        with contextlib.suppress(TypeError):
            return kind(text)
    return errors.UnpickleableException(f"{name}: {text}")


def kernel_error(name: str, text: str) -> errors.KernelError:
    """The error that the controller names where it refuses something, or says that it will not be done."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.KernelError):
        with contextlib.suppress(TypeError):  # CompositeError wants more than a text
            return kind(text)
    return errors.KernelError(f"{name}: {text}")


def rebuild_exception(
    failed: Failed, body: Body, engine: int, method: str, args: tuple[Any, ...] = ()
) -> BaseException:
    """The exception that user code raised on an engine, marked with where it comes from.

    It is unpickled where it has a body that can be, else made from its description: a builtin exception or one
    of ipmpi's of that name, or an UnpickleableException that says what it was.

    Returns:
        The exception, with ``_ipython_engine_info`` (``{'engineid', 'method', 'args'}``) and
        ``_ipython_traceback_text`` (the engine's own formatted traceback), which is also shown as its cause.
    """
    value = _unpickled(body)
    if value is None:
        value = error_from_name(failed.type_name, failed.text)
    with contextlib.suppress(Exception):  # a class of the user's may refuse attributes
        if failed.traceback and value.__cause__ is None:
            value.__cause__ = EngineTraceback(failed.traceback)
    return marked(value, engine, method, args, failed.traceback)


def _unpickled(body: Body) -> BaseException | None:
    if not body:
        return None
    # Whatever goes wrong while somebody else's class is rebuilt (its module is not here, its constructor wants
    # other arguments), the user has to learn what happened on the engine instead.
    with contextlib.suppress(Exception):
        value = serialize.loads(body)
        if isinstance(value, BaseException):
            return value
    return None


Error = TypeVar("Error", bound=BaseException)


def marked(value: Error, engine: int, method: str, args: tuple[Any, ...], traceback: str) -> Error:
    """The same exception, with where it comes from; see :func:`rebuild_exception`."""
    # A class of the user's may refuse attributes, in any way.
    with contextlib.suppress(Exception):
        value._ipython_engine_info = {"engineid": engine, "method": method, "args": args}  # type: ignore[attr-defined]
        value._ipython_traceback_text = traceback  # type: ignore[attr-defined]
    return value


def failure_of(reply: EngineReply, method: str, args: tuple[Any, ...] = ()) -> BaseException | None:
    """The exception that a reply stands for; None for an answer."""
    if reply.undone is not None:
        name, text = reply.undone
        return marked(error_from_name(name, text), reply.engine, method, args, f"{name}: {text}\n")
    if isinstance(reply.outcome, Failed):
        return rebuild_exception(reply.outcome, reply.body, reply.engine, method, args)
    return None


def raise_failures(replies: Sequence[EngineReply], method: str, args: tuple[Any, ...] = ()) -> None:
    """Raise one CompositeError for all replies that are failures, in their order; nothing if none is."""
    values = [value for reply in replies if (value := failure_of(reply, method, args)) is not None]
    if values:
        message = f"one or more exceptions from call to method: {method}"
        raise errors.CompositeError(message, [(type(value), value, None) for value in values])
