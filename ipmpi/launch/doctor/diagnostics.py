"""Diagnostics: a finding, its level and a remedy; and tables that select them (no I/O)."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from enum import Enum
from types import SimpleNamespace
from typing import Any, Final, NamedTuple


class Level(Enum):
    """The level of a diagnostic. Only problems affect the exit code."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


class Diagnostic(NamedTuple):
    """The result of one check.

    Attributes:
        area: its heading.
        check: its name for programs, which does not change between releases.
        level: its level.
        text: the finding.
        fix: the remedy; empty if nothing has to be done.
    """

    area: str
    check: str
    level: Level
    text: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``--json``."""
        return {**self._asdict(), "level": self.level.value}


def ok(area: str, check: str, text: str) -> Diagnostic:
    """Nothing to do."""
    return Diagnostic(area, check, Level.OK, text)


def note(area: str, check: str, text: str, fix: str = "") -> Diagnostic:
    """Worth knowing."""
    return Diagnostic(area, check, Level.NOTE, text, fix)


def warning(area: str, check: str, text: str, fix: str) -> Diagnostic:
    """Something works worse than it could, or will fail for some uses."""
    return Diagnostic(area, check, Level.WARNING, text, fix)


def problem(area: str, check: str, text: str, fix: str) -> Diagnostic:
    """Something does not work."""
    return Diagnostic(area, check, Level.PROBLEM, text, fix)


# --- tables ------------------------------------------------------------------------------------------------

Table = Sequence[tuple[Callable[[Any], object], Diagnostic | None]]
"""Conditions on facts, and the diagnostics if they are true, whose texts have names of facts in braces; None for
no
diagnostic. Conditions get an object with the facts as attributes."""


def always(_facts: object) -> bool:
    """Apply the last row of a table if no other does."""
    return True


def every(table: Table, **facts: Any) -> list[Diagnostic]:
    """Return the diagnostics of all rows whose condition is true."""
    seen = SimpleNamespace(**facts)
    return [_filled(said, facts) for condition, said in table if condition(seen) and said is not None]


def first(table: Table, **facts: Any) -> list[Diagnostic]:
    """Return the diagnostic of the first row whose condition is true; [] if there is none."""
    seen = SimpleNamespace(**facts)
    said = next((said for condition, said in table if condition(seen)), None)
    return [] if said is None else [_filled(said, facts)]


def _filled(said: Diagnostic, facts: dict[str, Any]) -> Diagnostic:
    area, check, text, fix = (words.format_map(facts) for words in (said.area, said.check, said.text, said.fix))
    return Diagnostic(area, check, said.level, text, fix)


# --- reports -----------------------------------------------------------------------------------------------


def exit_code(diagnostics: Sequence[Diagnostic]) -> int:
    """Return 1 if there is a problem, else 0."""
    return int(any(each.level is Level.PROBLEM for each in diagnostics))


_COLOURS: Final = {Level.OK: 32, Level.NOTE: 36, Level.WARNING: 33, Level.PROBLEM: 31}
_BOLD: Final = 1


def render(diagnostics: Sequence[Diagnostic], width: int = 100, *, colours: bool = False) -> str:
    """Format the diagnostics as text, grouped by area."""

    def coloured(word: str, code: int) -> str:
        return f"\x1b[{code}m{word}\x1b[0m" if colours else word

    lines: list[str] = []
    for area in dict.fromkeys(each.area for each in diagnostics):
        lines += [*([""] if lines else []), coloured(area, _BOLD)]
        for each in diagnostics:
            if each.area == area:
                level = each.level.value
                start, *rest = _wrapped(f"  {level:<8} ", each.text, width)
                lines += [start.replace(level, coloured(level, _COLOURS[each.level]), 1), *rest]
                lines += _wrapped(" " * 11 + "-> ", each.fix, width) if each.fix else []
    return "\n".join(lines)


def _wrapped(margin: str, text: str, width: int) -> list[str]:
    # A command or a path that is broken at its hyphens could not be copied.
    return textwrap.wrap(
        text, max(width, 40), initial_indent=margin, subsequent_indent=" " * len(margin),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def size(count: int) -> str:
    """Format a number of bytes for people."""
    if count < 1024:
        return f"{count} bytes"
    value, step = float(count), 0
    while value >= 1000 and step < 4:
        value /= 1024
        step += 1
    return f"{value:.3g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[step]}"
