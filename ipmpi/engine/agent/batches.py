"""Results of task items, combined into messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ... import limits
from ...protocol import messages as m, packed
from ...protocol.frames import Buffer
from ..rank.outcomes import DONE, FAILED, REFUSED, SKIPPED
from .itembook import Finished, Item, ResultRun

Report = tuple[m.AnyMessage, Sequence[Buffer]]
"""A message and its body."""


def returned(items: Iterable[Item], rank: int, why: str, text: str = "") -> list[Report]:
    """Return the messages about items that did not run, one for each group."""
    groups: dict[int, list[int]] = {}
    for given, index in items:
        groups.setdefault(given.group, []).append(index)
    return [
        (m.TasksReturned(group, packed.pack(sorted(found)), rank, why, text), ())
        for group, found in groups.items()
    ]


class _Batch:
    """Results of one group that go out in one message."""

    __slots__ = ("busy", "failed", "group", "indices", "payloads", "size")

    def __init__(self, group: int) -> None:
        self.group = group
        self.indices: list[int] = []
        self.failed: list[int] = []
        self.payloads: list[bytes] = []
        self.busy = 0.0
        self.size = 0

    def report(self, rank: int) -> Report:
        lengths = [len(payload) for payload in self.payloads]
        return _results(self.group, rank, self.indices, self.failed, lengths, self.busy, b"".join(self.payloads))


def reports(finished: Iterable[Finished], rank: int) -> list[Report]:
    """Return the messages about items that have run or were skipped."""
    out: list[Report] = []
    others: dict[str, list[Item]] = {}
    batch: _Batch | None = None
    for given, index, (kind, data), seconds in finished:
        if kind in (DONE, FAILED):
            full = batch is not None and (
                batch.size + len(data) > limits.TASK_BATCH or len(batch.indices) >= limits.TASKS_PER_MESSAGE
            )
            if batch is None or batch.group != given.group or full:
                if batch is not None:
                    out.append(batch.report(rank))
                batch = _Batch(given.group)
            if kind == FAILED:
                batch.failed.append(len(batch.indices))
            batch.indices.append(index)
            batch.payloads.append(data)
            batch.size += len(data)
            batch.busy += seconds
        elif kind == REFUSED:
            others.setdefault("refused", []).append((given, index))
        elif kind == SKIPPED:
            others.setdefault(data.decode(), []).append((given, index))
        else:
            text = data.decode(errors="replace")
            out.append((m.TasksReturned(given.group, packed.pack([index]), rank, "rejected", text), ()))
    if batch is not None:
        out.append(batch.report(rank))
    for why, items in others.items():
        out += returned(items, rank, why)
    return out


def report_of(run: ResultRun, rank: int) -> Report:
    """Return the message about a run of items with values."""
    return _results(run.given.group, rank, run.indices, (), run.lengths, run.seconds, run.data)


def single(group: int, index: int, rank: int, ok: bool, payload: bytes, busy: float) -> Report:
    """Return the message with the small result of one task."""
    return _results(group, rank, [index], () if ok else [0], [len(payload)], busy, payload)


def _results(
    group: int,
    rank: int,
    indices: Sequence[int],
    failed: Sequence[int],
    lengths: Sequence[int],
    busy: float,
    body: bytes,
) -> Report:
    sizes = [len(body)] if body else []
    numbers = packed.pack(indices), packed.pack(failed), packed.pack(lengths)
    return m.TaskResults(group, rank, *numbers, busy, sizes), [body] if body else []
