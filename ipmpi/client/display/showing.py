"""Outputs of engines put on the screen, pictures among them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from .blocks import DISPLAY, STDERR, STDOUT, Block, Output
from .pictures import PLAIN, Pictures, pictures_here
from .portions import folded, identity, key_of
from .ranksets import RankSet
from .render import MAX_LINES, Fold, GroupOutputs, Renderer
from .screens import renderer_here


def groups_of(outputs: Mapping[int, Output]) -> dict[RankSet, Output]:
    """Equal outputs once, by the engines that have them; in the order of the first engine."""
    return dict(folded(((engine,), output, identity(output)) for engine, output in outputs.items()))


def blocks_of(groups: Mapping[RankSet, Output]) -> list[Block]:
    """What was printed and displayed, as blocks; in which order the two came is not known."""
    made: list[Block] = []
    for ids, output in groups.items():
        made += [Block(STDOUT, ids, output.stdout)] if output.stdout else []
        made += [Block(STDERR, ids, output.stderr)] if output.stderr else []
        made += [Block(DISPLAY, ids, formats=formats) for formats in output.displays]
    return made


def values_of(groups: Mapping[RankSet, Output]) -> dict[int, str | None]:
    """The texts of values, by engine."""
    return {engine: output.value for ids, output in groups.items() for engine in ids}


def show(
    outputs: Mapping[int, Output],
    *,
    fold: Fold = "exact",
    group_outputs: GroupOutputs = "type",
    max_lines: int | None = MAX_LINES,
    printed: bool = True,
    ranks: Collection[int] | None = None,
    stream: Any = None,
) -> None:
    """Show outputs, folded, on a terminal, in a notebook or in a file.

    Args:
        outputs: by engine.
        fold: see :class:`~ipmpi.client.display.render.Renderer`, as for the next two.
        group_outputs: see there.
        max_lines: see there.
        printed: whether to show what was printed and displayed, too; False shows only values.
        ranks: the engines whose displays and pictures are shown; None for all.
        stream: what to write to; by default standard output, or the notebook.

    Raises:
        TypeError: ``stream`` has no ``write``.
        ValueError: ``fold``, ``group_outputs`` or ``max_lines`` is not possible.
    """
    renderer = renderer_here(stream, fold, group_outputs, max_lines)
    pictures = pictures_here(renderer, stream, ranks=ranks)
    groups = groups_of(outputs)
    blocks = blocks_of(groups) if printed else []
    displays = folded(
        (each.engines, each.formats, key_of(each.formats)) for each in blocks if each.kind == DISPLAY
    )
    out = sys.stdout if stream is None else stream
    write_outputs(blocks, displays, groups, renderer, pictures, out.write)
    out.flush()


def write_outputs(
    blocks: Sequence[Block],
    displays: Iterable[tuple[Iterable[int], dict[str, str | bytes]]],
    groups: Mapping[RankSet, Output],
    renderer: Renderer,
    pictures: Pictures,
    write: Callable[[str], object],
) -> None:
    """Show what was printed and displayed, then the values.

    Args:
        blocks: what was printed and displayed.
        displays: those of it that are displays, with their engines, as they are shown where pictures are no text.
        groups: equal outputs once; their values are shown.
        renderer: of text.
        pictures: of displays.
        write: called with text.
    """
    if pictures.is_text:
        write(renderer.render(blocks, _text_values(groups, pictures), pictures.text))
        return
    write(renderer.render([block for block in blocks if block.kind != DISPLAY]))
    for ids, formats in displays:
        write(pictures.show(ids, formats) or "")
    _write_values(groups, renderer, pictures, write)


def _text_values(groups: Mapping[RankSet, Output], pictures: Pictures) -> dict[int, str | None]:
    """The texts of values by engine, where pictures are shown as text, as files."""
    values = values_of(groups)
    for ids, formats in _rich(groups):
        # Once for all that have the same: a picture becomes a file.
        values.update(dict.fromkeys(ids, pictures.text(ids, formats) or formats[PLAIN]))
    return values


def _write_values(
    groups: Mapping[RankSet, Output], renderer: Renderer, pictures: Pictures, write: Callable[[str], object]
) -> None:
    """Show values where pictures are no text: those that are text alone first."""
    rich = _rich(groups)
    others = {engine for ids, _ in rich for engine in ids}
    write(
        renderer.render([], {engine: text for engine, text in values_of(groups).items() if engine not in others})
    )
    for ids, formats in rich:
        write(pictures.show_value(ids, formats) or "")


def _rich(groups: Mapping[RankSet, Output]) -> list[tuple[RankSet, dict[str, Any]]]:
    """Values that have other formats than text, with all of these, once."""
    found = (
        (ids, {PLAIN: output.value or "", **output.formats}, _rich_key(output))
        for ids, output in groups.items()
        if output.formats
    )
    return folded(found)


def _rich_key(output: Output) -> tuple[object, ...]:
    """What is equal for values that look alike: the text beside a picture may have an address in memory."""
    has_picture = any(isinstance(data, bytes) for data in output.formats.values())
    return "" if has_picture else output.value, key_of(output.formats)
