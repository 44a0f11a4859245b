"""What became of a push of one very big object. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ipmpi.bench.report import number


class BigPush(NamedTuple):
    """Figures of one push.

    Attributes:
        size: bytes.
        rate: GB/s.
        grown: MB by which the controller grew meanwhile: its peak minus its size before.
        status: median of the milliseconds after which it answered ``queue_status`` of another client meanwhile.
        slowest: the slowest of these answers.
        answers: how many there were.
    """

    size: int
    rate: float
    grown: float
    status: float
    slowest: float
    answers: int


def big_rows(found: Iterable[tuple[str, BigPush]]) -> list[list[str]]:
    """A table, with a heading, of where the client was and what came of it."""
    heading = ["one object", "GB/s", "controller grows by", "queue_status meanwhile", "slowest", "answers"]
    rows = [
        [
            f"{each.size / 1e9:g} GB, {where}", number(each.rate), f"{number(each.grown)} MB",
            f"{number(each.status)} ms", f"{number(each.slowest)} ms", f"{each.answers:,}",
        ]
        for where, each in found
    ]  # fmt: skip
    return [heading, *rows]
