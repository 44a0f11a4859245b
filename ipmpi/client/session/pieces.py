"""Answers of the controller that are larger than a message may be, asked for in pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def in_pieces(ask: Callable[[int], Mapping[str, Any]], rows: str) -> tuple[list[list[Any]], Mapping[str, Any]]:
    """Ask until there is no more; return all rows, and the last answer.

    Args:
        ask: returns the answer with what comes after the row that begins with this number; 0 for the first.
        rows: which part of an answer has its rows. Its part ``more`` says whether there are others.
    """
    found: list[list[Any]] = []
    while True:
        answer = ask(found[-1][0] if found else 0)
        found += answer[rows]
        if not answer["more"]:
            return found, answer
