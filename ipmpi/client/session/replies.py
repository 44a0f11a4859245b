"""Conversion of engines' replies to Python values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ... import serialize
from ...errors import CompositeError
from ...protocol.operations import Executed, Failed, Outcome, Value
from .failures import Body, raise_failures
from .resultlist import ResultList

if TYPE_CHECKING:
    from .enginereply import EngineReply


def values(replies: Sequence[EngineReply], method: str, args: tuple[Any, ...] = ()) -> list[Any]:
    """Return one value per reply; None for a reply without a body.

    Raises:
        CompositeError: one engine or more failed.
        SecurityError: a value is not plain data, and the client opens nothing else.
    """
    raise_failures(replies, method, args)
    owners = Counter(id(reply.body) for reply in replies)
    same: dict[int, Any] = {}
    """Values that came once for several engines, and that nobody can change."""
    found: list[Any] = []
    for reply in replies:
        if not isinstance(reply.outcome, Value):
            found.append(None)
            continue
        body = id(reply.body)
        if body not in same:
            shared = owners[body] > 1
            value = reply.opener.loads(_own_buffers(reply.body, shared), reply.engine)
            if not (shared and type(value) in _UNCHANGEABLE):
                found.append(value)
                continue
            same[body] = value
        found.append(same[body])
    return found


_UNCHANGEABLE: Final = frozenset((int, float, complex, bool, str, bytes, type(None)))


def _own_buffers(body: Body, shared: bool) -> list[serialize.Buffer]:
    # Equal replies arrive as one body for many engines. Each array must be writable and independent nevertheless.
    stream, *buffers = body
    return [stream, *(bytearray(item) if shared or memoryview(item).readonly else item for item in buffers)]


def executed(
    replies: Sequence[EngineReply], method: str, args: tuple[Any, ...] = (), source: str | None = None
) -> ResultList:
    """Return what commands printed and displayed, one dict per reply; see :class:`~.resultlist.ResultList`.

    Args:
        replies: replies to an ``execute``, or to the request for an earlier result.
        method: the name of the method, for the CompositeError.
        args: its arguments, for the exceptions' ``_ipython_engine_info``.
        source: the source code that was run; None if the replies contain it.

    Raises:
        CompositeError: one engine or more failed.
    """
    try:
        raise_failures(replies, method, args)
    except CompositeError as error:
        error.results = _results(replies, source)
        raise
    return _results(replies, source)


def _executed(outcome: Outcome) -> Executed | None:
    if isinstance(outcome, Executed):
        return outcome
    return outcome.executed if isinstance(outcome, Failed) else None


def _results(replies: Sequence[EngineReply], source: str | None) -> ResultList:
    found = ((reply, _executed(reply.outcome)) for reply in replies)
    return ResultList(_command(reply, executed, source) for reply, executed in found if executed is not None)


def _command(reply: EngineReply, outcome: Executed, source: str | None) -> dict[str, Any]:
    text = outcome.source if source is None else source
    printed = reply.printed
    command: dict[str, Any] = {
        "input": {"translated": text, "raw": text},
        "number": outcome.number,
        "id": reply.engine,
        "stdout": printed.stdout,
    }
    if printed.stderr:
        command["stderr"] = printed.stderr
    if printed.displays:
        command["displays"] = list(printed.displays)
    if outcome.display_repr is not None:
        pretty = outcome.display_repr if outcome.display_pprint is None else outcome.display_pprint
        command["display"] = {"pprint": pretty, "repr": outcome.display_repr}
        if outcome.display_rich is not None:
            command["display"]["rich"] = outcome.display_rich.formats
    return command
