"""Completion by Tab of code that is typed for engines."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

_LINE: Final = re.compile(r"\s*%px\s+(?P<code>.*)$", re.DOTALL)
_CELL: Final = re.compile(r"\s*%%px\b[^\n]*\n")
_WORD: Final = re.compile(r"[\w.]*$")


class Completes(Protocol):
    """The part of a client that completion uses."""

    def complete(self, text: str) -> list[str]:
        """Return what the last word can become."""


def code_for_engines(text: str, cursor: int, everything: bool) -> str | None:
    """Return the line of code for engines up to the cursor; None if the cursor is in local code.

    Args:
        text: the whole cell.
        cursor: position in it.
        everything: whether ``%autopx`` is on.
    """
    before = text[:cursor]
    line = before.rpartition("\n")[2]
    magic = _LINE.match(line)
    if magic is not None:
        return magic["code"]
    if _CELL.match(before) or (everything and not line.lstrip().startswith(("%", "!", "?"))):
        return line
    return None


class PxCompletion:
    """A matcher of IPython's completer that asks an idle engine, for 0.3 s at most.

    Args:
        client: gives the active client, or None.
        everything: whether all code is for engines (``%autopx``).
    """

    def __init__(self, client: Callable[[], Completes | None], everything: Callable[[], bool]) -> None:
        self._client = client
        self._everything = everything
        self._matcher: Any = None

    def install(self, shell: Any) -> None:
        """Use it from now on."""
        from IPython.core import completer

        if self._matcher is None:

            def match(context: Any) -> Any:
                return self._match(context)

            decorate: Callable[..., Any] = completer.context_matcher
            self._matcher = decorate(identifier="ipmpi.px", priority=1000)(match)
            shell.Completer.custom_matchers.append(self._matcher)

    def remove(self, shell: Any) -> None:
        """Use it no more."""
        if self._matcher is not None and self._matcher in shell.Completer.custom_matchers:
            shell.Completer.custom_matchers.remove(self._matcher)
        self._matcher = None

    def _match(self, context: Any) -> Any:
        from IPython.core.completer import SimpleCompletion

        text = context.full_text
        lines = text.split("\n")
        line = min(context.cursor_line, len(lines) - 1)
        cursor = sum(len(each) + 1 for each in lines[:line]) + context.cursor_position
        code = code_for_engines(text, cursor, self._everything())
        client = self._client()
        if code is None or client is None:
            return {"completions": [], "suppress": False}
        word = _WORD.search(code)
        start = "" if word is None else word[0]
        found = client.complete(code)
        # What local names would be is of no use in code for engines.
        return {
            "completions": [SimpleCompletion(text=each, type="engine") for each in found],
            "matched_fragment": start.rpartition(".")[2] if found and "." not in found[0] else start,
            "suppress": True,
        }
