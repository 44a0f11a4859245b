"""Lists of machines, as batch systems write them (no I/O)."""

from __future__ import annotations

from collections.abc import Sequence


def expand_nodes(text: str) -> list[str]:
    """Return the machines in a Slurm list such as ``n[1-3,07],gpu1``, or in a list with commas."""
    names: list[str] = []
    for part in _at_top_commas(text):
        head, bracket, rest = part.partition("[")
        inside, _, tail = rest.partition("]")
        if not bracket:
            names += [part] if part else []
            continue
        for piece in inside.split(","):
            low, _, high = piece.partition("-")
            if not low.isdigit() or not (high or low).isdigit() or int(high or low) - int(low) > 100_000:
                return []
            found = (f"{head}{number:0{len(low)}d}{tail}" for number in range(int(low), int(high or low) + 1))
            names += [name for one in found for name in (expand_nodes(one) if "[" in tail else [one])]
    return names


def _at_top_commas(text: str) -> Sequence[str]:
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
