"""Blocks put together: what each rank has printed, once for all ranks that have printed the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from .blocks import DISPLAY, STDOUT, Block, Output
from .ranksets import RankSet

T = TypeVar("T")


def classes(sets: Iterable[Sequence[int]]) -> dict[tuple[int, ...], list[int]]:
    """Engines that are in the same sets, by the positions of these sets.

    The work is that of going through all sets once; a set that comes again and again should be given once.
    """
    member: dict[int, list[int]] = {}
    for position, engines in enumerate(sets):
        for engine in engines:
            member.setdefault(engine, []).append(position)
    found: dict[tuple[int, ...], list[int]] = {}
    for engine, positions in member.items():
        found.setdefault(tuple(positions), []).append(engine)
    return found


def streams(blocks: Sequence[Block]) -> list[tuple[list[int], list[Block]]]:
    """Engines of which all blocks are the same, and these blocks in their order."""
    by_set: dict[tuple[int, ...], list[int]] = {}
    for number, block in enumerate(blocks):
        by_set.setdefault(block.engines, []).append(number)
    numbers = list(by_set.values())
    return [
        (engines, [blocks[number] for number in sorted(each for place in places for each in numbers[place])])
        for places, engines in classes(by_set).items()
    ]


def outputs(blocks: Sequence[Block]) -> list[tuple[RankSet, Output]]:
    """Different outputs, each with the ranks that have it; in the order of the first rank."""
    joined = ((engines, _joined(part)) for engines, part in streams(blocks))
    return folded((engines, output, identity(output)) for engines, output in joined)


def folded(parts: Iterable[tuple[Iterable[int], T, Hashable]]) -> list[tuple[RankSet, T]]:
    """Things with equal keys once, with the ranks of all; in the order of the first rank."""
    found: dict[Hashable, tuple[list[int], T]] = {}
    for engines, thing, key in parts:
        found.setdefault(key, ([], thing))[0].extend(engines)
    return sorted(((RankSet(engines), thing) for engines, thing in found.values()), key=lambda pair: pair[0][:1])


def _joined(blocks: Sequence[Block]) -> Output:
    return Output(
        "".join(block.text for block in blocks if block.kind == STDOUT),
        "".join(block.text for block in blocks if block.kind not in (STDOUT, DISPLAY)),
        tuple(block.formats for block in blocks if block.kind == DISPLAY),
    )


def identity(output: Output) -> Hashable:
    """What is equal if and only if all of two outputs is."""
    displays = tuple(map(key_of, output.displays))
    return output.stdout, output.stderr, displays, output.value, key_of(output.formats)


def key_of(formats: dict[str, str | bytes]) -> Hashable:
    """What is equal if and only if all formats are."""
    return tuple(sorted(formats.items(), key=lambda item: item[0]))
