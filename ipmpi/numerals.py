"""Numbers in texts: masked, so that texts that differ by them alone are alike, and shown as ranges."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

# A number after a letter or digit has no sign (``10-12``, ``e-3``). Hexadecimal ones are addresses, mostly.
NUMBER: Final = re.compile(
    r"0x[0-9a-fA-F]+"
    r"|(?<![\w.)\]])[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
    r"|(?:\d+(?:\.\d*)?)(?:[eE][+-]?\d+)?"
    r"|(?<![\w.])[+-]?(?:nan|inf)(?![\w.])",
)
_PADDED: Final = re.compile(rf"( *)({NUMBER.pattern})( *)")
_MARK: Final = "\0"
_DIGITS: Final = (3, 6)
"""Significant digits of a mean, at least and at most."""


def masked(text: str) -> str:
    """The text with a mark for each number, without its padding; texts are alike if this is equal."""
    return _PADDED.sub(_mark, text)


def _mark(found: re.Match[str]) -> str:
    return f"{' ' * bool(found[1])}{_MARK}{' ' * bool(found[3])}"


def with_ranges(texts: Sequence[tuple[int, str]]) -> str:
    """One text for several that are alike, with the range of each number that differs.

    ``residual = 1.2e-06 .. 3.4e-06 (mean 2.1e-06, min: rank 3, max: rank 17)``. A line with several such numbers
    has that behind each of them. Numbers that are the ranks' own are shown as a range only.

    Args:
        texts: pairs of a rank and its text; of all of them :func:`masked` is the same.
    """
    if all(text == texts[0][1] for _, text in texts):
        return texts[0][1]
    columns = [text.split("\n") for _, text in texts]
    ranks = [rank for rank, _ in texts]
    return "\n".join(_line(ranks, list(lines)) for lines in zip(*columns, strict=True))


def _line(ranks: list[int], lines: list[str]) -> str:
    first = lines[0]
    if all(line == first for line in lines):
        return first
    numbers = [[found[0] for found in NUMBER.finditer(line)] for line in lines]
    places = list(NUMBER.finditer(first))
    ranges = [_range(ranks, [row[place] for row in numbers]) for place in range(len(places))]
    notes = [found[1] for found in ranges if found is not None and found[1]]
    made, end = "", 0
    for place, found in zip(places, ranges, strict=True):
        made += first[end : place.start()]
        end = place.end()
        if found is None:
            made += place[0]
        else:
            made += found[0] + (f" ({found[1]})" if found[1] and len(notes) > 1 else "")
    made += first[end:]
    return f"{made} ({notes[0]})" if len(notes) == 1 else made


def _range(ranks: list[int], texts: list[str]) -> tuple[str, str] | None:
    """``("1 .. 5", "mean 3, min: rank 0, max: rank 4")``; None if the number is the same in all texts."""
    if len(set(texts)) == 1:
        return None
    if all(text.startswith("0x") for text in texts):
        return "0x..", ""
    pairs = [(_value(text), rank, text) for rank, text in zip(ranks, texts, strict=True)]
    usable = [pair for pair in pairs if not math.isnan(pair[0])]
    unusable = [rank for value, rank, _ in pairs if math.isnan(value)]
    if not usable:
        return texts[0], ""
    least, most = min(usable, key=lambda pair: pair[0]), max(usable, key=lambda pair: pair[0])
    text = least[2] if least[0] == most[0] else f"{least[2]} .. {most[2]}"
    notes = []
    if any(value != rank for value, rank, _ in pairs) and least[0] != most[0]:
        mean = math.fsum(value for value, _, _ in usable) / len(usable) if _is_finite(usable) else math.nan
        if not math.isnan(mean):
            digits = max(_significant(least[2]), _significant(most[2]))
            notes.append(f"mean {mean:.{min(max(digits, _DIGITS[0]), _DIGITS[1])}g}")
        notes += [f"min: rank {least[1]}", f"max: rank {most[1]}"]
    if unusable:
        notes.append(f"nan: {'rank ' if len(unusable) == 1 else f'{len(unusable)} ranks, first '}{unusable[0]}")
    return text, ", ".join(notes)


def _value(text: str) -> float:
    return float(int(text, 16)) if text.startswith("0x") else float(text)


def _is_finite(pairs: Sequence[tuple[float, int, str]]) -> bool:
    return all(math.isfinite(value) for value, _, _ in pairs)


def _significant(text: str) -> int:
    mantissa = re.split("[eE]", text.lstrip("+-"))[0].replace(".", "")
    return len(mantissa.lstrip("0"))
