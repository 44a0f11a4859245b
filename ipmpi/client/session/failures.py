"""Exceptions of engines, rebuilt in the client and raised together."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ... import errors, serialize
from ...crashreport import last_crash
from ...exits import signal_name
from ...protocol.deaths import Death
from ...protocol.operations import Failed
from .opening import EVERYTHING, Opener

if TYPE_CHECKING:
    from .enginereply import EngineReply

Body = Sequence[serialize.Buffer]


class EngineTraceback(Exception):
    """The cause of an exception that was raised on an engine: shows the engine's traceback."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}".rstrip("\n")


def error_from_name(name: str, text: str) -> BaseException:
    """Return an exception of ipmpi or Python by its name, else an UnpickleableException."""
    short = name.removeprefix("builtins.").removeprefix("ipmpi.errors.")
    kind = getattr(errors, short, None) or getattr(builtins, short, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        # Some exceptions need other arguments than one text (CompositeError, UnicodeDecodeError).
        with contextlib.suppress(TypeError):
            return kind(text)
    return errors.UnpickleableException(f"{name}: {text}")


def kernel_error(name: str, text: str) -> errors.KernelError:
    """Return the error that the controller named."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.KernelError):
        with contextlib.suppress(TypeError):  # CompositeError needs more than a text
            return kind(text)
    return errors.KernelError(f"{name}: {text}")


def rebuild_exception(
    failed: Failed,
    body: Body,
    engine: int,
    method: str,
    args: tuple[Any, ...] = (),
    opener: Opener = EVERYTHING,
) -> BaseException:
    """Return the exception that user code raised on an engine, with attributes that say where.

    If it cannot be unpickled, or the opener refuses it, it is made from its description: an exception of Python or
    ipmpi of that name, or an UnpickleableException.

    Returns:
        The exception, with ``_ipython_engine_info`` (``{'engineid', 'method', 'args'}``) and
        ``_ipython_traceback_text`` (the engine's own formatted traceback), which is also shown as its cause.
    """
    value = _unpickled(body, opener, engine)
    if not isinstance(value, BaseException):
        refusal, value = value, error_from_name(failed.type_name, failed.text)
        if refusal:
            with contextlib.suppress(Exception):
                value.__notes__ = [f"ipmpi: this is its description only: {refusal}"]
    with contextlib.suppress(Exception):  # users' classes may refuse attributes
        if failed.traceback and value.__cause__ is None:
            value.__cause__ = EngineTraceback(failed.traceback)
    return marked(value, engine, method, args, failed.traceback)


def _unpickled(body: Body, opener: Opener, engine: int) -> BaseException | str:
    """The exception; if there is none, why the opener refused it, or ""."""
    if not body:
        return ""
    # If rebuilding fails (a missing module, other constructor arguments), the failure on the engine is still the
    # one to report.
    with contextlib.suppress(Exception):
        try:
            value = opener.loads(body, engine)
        except errors.SecurityError as refusal:
            return str(refusal)
        if isinstance(value, BaseException):
            return value
    return ""


Error = TypeVar("Error", bound=BaseException)


def marked(value: Error, engine: int, method: str, args: tuple[Any, ...], traceback: str) -> Error:
    """Return the exception with the attributes that say where it was raised; see :func:`rebuild_exception`."""
    # Users' classes may refuse attributes, in any way.
    with contextlib.suppress(Exception):
        value._ipython_engine_info = {"engineid": engine, "method": method, "args": args}  # type: ignore[attr-defined]
        value._ipython_traceback_text = traceback  # type: ignore[attr-defined]
    return value


def failure_of(reply: EngineReply, method: str, args: tuple[Any, ...] = ()) -> BaseException | None:
    """Return the exception of a reply; None if the command succeeded."""
    if reply.undone is not None:
        name, text = reply.undone
        error = error_from_name(name, text)
        told = [] if reply.death is None else _told_of(error, reply.death)
        return marked(error, reply.engine, method, args, "\n".join([*told, f"{name}: {text}\n"]))
    if isinstance(reply.outcome, Failed):
        return rebuild_exception(reply.outcome, reply.body, reply.engine, method, args, reply.opener)
    return None


def _facts(death: Death) -> dict[str, Any]:
    """The attributes of an EngineLost."""
    is_known = death.signal or death.exit_code is not None or death.abort is not None
    return {
        "rank": death.rank, "pid": death.pid, "host": death.host,
        "signal": signal_name(death.signal) if death.signal else None,
        "exit_code": death.exit_code, "abort_code": death.abort,
        "oom_killed": death.oom if is_known else None,
        "peak_rss": death.peak_rss or None, "memory_used": death.memory or None,
        "memory_limit": death.limit or None,
        "ran": death.ran or None, "seconds": death.seconds if death.ran else None,
        "printed": death.printed or None, "stack": death.stack or None,
    }  # fmt: skip


def _told_of(error: BaseException, death: Death) -> list[str]:
    """Give the error what is known of the end of its engine; return the lines that the traceback has before it."""
    if isinstance(error, errors.EngineLost):
        vars(error).update(_facts(death))
    crash = last_crash(death.stack)
    lines = ["Traceback (most recent call last):", *crash.traceback()] if crash and crash.frames else []
    if death.printed:
        lines += ["The last lines that it printed:", *(f"| {line}" for line in death.printed.splitlines())]
    return lines


def raise_failures(replies: Sequence[EngineReply], method: str, args: tuple[Any, ...] = ()) -> None:
    """Raise one CompositeError of all failures among the replies, in their order, if there are any."""
    values = [value for reply in replies if (value := failure_of(reply, method, args)) is not None]
    if values:
        message = f"one or more exceptions from call to method: {method}"
        error = errors.CompositeError(message, [(type(value), value, None) for value in values])
        error.finished = [reply.engine for reply in replies if reply.ok]
        raise error
