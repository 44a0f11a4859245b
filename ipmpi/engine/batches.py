"""Batches of tasks between messages and items (layer L3): cut apart on the way in, put together on the way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from .. import limits
from ..protocol import messages as m, packed
from ..protocol.frames import Buffer
from .itemqueue import Finished, Given, Item
from .taskrunner import DONE, FAILED, LARGE, REFUSED, Program

Report = tuple[m.AnyMessage, Sequence[Buffer]]
"""A message and its body."""


def items_of(message: m.GiveTasks, body: Sequence[Buffer], program: Program) -> list[Item]:
    """The items of a message, which is not about a large task."""
    data = b"".join(body)
    indices = packed.unpack(message.indices)
    if not indices:
        return []
    given = Given(message.group, program, message.options.timeout, indices[-1], message.options.label)
    items: list[Item] = []
    start = 0
    for index, end in zip(indices, accumulate(packed.unpack(message.lengths)), strict=True):
        items.append((given, index, data[start:end]))
        start = end
    return items


def returned(items: Iterable[Item], rank: int, why: str) -> list[Report]:
    """What is said of items that did not run, one message for each group."""
    groups: dict[int, list[int]] = {}
    for given, index, _ in items:
        groups.setdefault(given.group, []).append(index)
    return [(m.TasksReturned(group, packed.pack(sorted(found)), rank, why), ()) for group, found in groups.items()]


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
        body = b"".join(self.payloads)
        message = m.TaskResults(
            self.group,
            rank,
            packed.pack(self.indices),
            packed.pack(self.failed),
            packed.pack([len(payload) for payload in self.payloads]),
            self.busy,
            [len(body)] if body else [],
        )
        return message, [body] if body else []


def reports(finished: Iterable[Finished], rank: int) -> tuple[list[Report], list[Finished]]:
    """What is said of items that have run; and those with a large result, which go out as streams."""
    out: list[Report] = []
    large: list[Finished] = []
    refused: list[Item] = []
    batch: _Batch | None = None
    for one in finished:
        given, index, (kind, data), seconds = one
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
        elif kind == LARGE:
            large.append(one)
        elif kind == REFUSED:
            refused.append((given, index, b""))
        else:
            out.append((m.TasksReturned(given.group, packed.pack([index]), rank, "rejected", data), ()))
    if batch is not None:
        out.append(batch.report(rank))
    return out + returned(refused, rank, "refused"), large


def single(group: int, index: int, rank: int, ok: bool, payload: bytes, busy: float) -> Report:
    """The result of one task that is not large."""
    message = m.TaskResults(
        group,
        rank,
        packed.pack([index]),
        b"" if ok else packed.pack([0]),
        packed.pack([len(payload)]),
        busy,
        [len(payload)] if payload else [],
    )
    return message, [payload] if payload else []
