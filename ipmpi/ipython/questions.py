"""``%px obj?``: IPython would answer the question itself, before it looks at the magic."""

from __future__ import annotations

import re
from typing import Final

_QUESTION: Final = re.compile(r"(?P<magic>\s*%px\s+(?:-\S+\s+)*)(?P<name>[^\s?'\"#]+)\s*(?P<marks>\?\??)\s*$")


def questions_for_engines(lines: list[str]) -> list[str]:
    """Return the lines of a cell with ``%px obj?`` as ``%px %pinfo obj``; a transformer of IPython's."""
    return [_on_engines(line) for line in lines]


def _on_engines(line: str) -> str:
    found = _QUESTION.match(line)
    if found is None:
        return line
    magic = "%pinfo2" if len(found["marks"]) == 2 else "%pinfo"
    return f"{found['magic']}{magic} {found['name']}\n"
