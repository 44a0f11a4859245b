"""Conversion of engines' replies to Python values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ... import serialize
from ...protocol.operations import Executed, Value
from .commandoutput import Printed
from .failures import Body, raise_failures
from .results import ResultList

if TYPE_CHECKING:
    from .enginereply import EngineReply


def values(replies: Sequence[EngineReply], method: str, args: tuple[Any, ...] = ()) -> list[Any]:
    """Return one value per reply; None for a reply without a body.

    Raises:
        CompositeError: one engine or more failed.
    """
    raise_failures(replies, method, args)
    owners = Counter(id(reply.body) for reply in replies)
    return [
        serialize.loads(_own_buffers(reply.body, owners[id(reply.body)] > 1))
        if isinstance(reply.outcome, Value)
        else None
        for reply in replies
    ]


def _own_buffers(body: Body, shared: bool) -> list[serialize.Buffer]:
    # Equal replies arrive as one body for many engines. Each array must be writable and independent nevertheless.
    stream, *buffers = body
    return [stream, *(bytearray(item) if shared or memoryview(item).readonly else item for item in buffers)]


def executed(
    replies: Sequence[EngineReply], method: str, args: tuple[Any, ...] = (), source: str | None = None
) -> ResultList:
    """Return what commands printed and displayed, one dict per reply; see :class:`~.results.ResultList`.

    Args:
        replies: replies to an ``execute``, or to the request for an earlier result.
        method: the name of the method, for the CompositeError.
        args: its arguments, for the exceptions' ``_ipython_engine_info``.
        source: the source code that was run; None if the replies contain it.

    Raises:
        CompositeError: one engine or more failed.
    """
    raise_failures(replies, method, args)
    return ResultList(
        _command(reply.engine, reply.outcome, reply.printed, source)
        for reply in replies
        if isinstance(reply.outcome, Executed)
    )


def _command(engine: int, outcome: Executed, printed: Printed, source: str | None) -> dict[str, Any]:
    text = outcome.source if source is None else source
    command: dict[str, Any] = {
        "input": {"translated": text, "raw": text},
        "number": outcome.number,
        "id": engine,
        "stdout": printed.stdout,
    }
    if printed.stderr:
        command["stderr"] = printed.stderr
    if outcome.display_repr is not None:
        pretty = outcome.display_repr if outcome.display_pprint is None else outcome.display_pprint
        command["display"] = {"pprint": pretty, "repr": outcome.display_repr}
    return command
