"""All that a command has printed and shown, as one text: equal blocks once, with their ranks (no I/O)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final, Literal, TypeVar, get_args

from ...colours import GREEN, NORMAL, RED
from ...numerals import masked, with_ranges
from ...ranges import label
from .blocks import DISPLAY, STDERR, STDOUT, Block, Output
from .escapes import safe, settled, uncoloured
from .lineorder import Line, lines_of, merged
from .portions import folded, identity, key_of, outputs
from .ranksets import RankSet

T = TypeVar("T")
Show = Callable[[RankSet, dict[str, str | bytes]], str]
Fold = Literal["exact", "numeric", "off"]
FOLDS: Final = get_args(Fold)
GroupOutputs = Literal["type", "order", "engine"]
_GROUPS: Final = get_args(GroupOutputs)

MAX_LINES: Final = 40
"""Lines of one block on a terminal; its middle is left out if it has more."""

_BLOCKS: Final = 2.5
"""Different blocks of one kind that are shown, times ``max_lines``."""

SHOW_ALL: Final = "result.display(max_lines=None) shows all"


def choice(value: object, what: str, words: Sequence[str]) -> None:
    """Check an option: ValueError that says what is possible, unless ``value`` is one of these words."""
    if value not in words:
        given = repr(value)
        given = given if len(given) <= 100 else f"{given[:97]}..."
        raise ValueError(f"{what} must be {', '.join(map(repr, words[:-1]))} or {words[-1]!r}, not {given}")


class Renderer:
    """How output is shown.

    Args:
        fold: ``'exact'`` shows equal blocks once, with their ranks; ``'numeric'`` also those that differ only by
            numbers, with the ranges of these; ``'off'`` shows each rank by itself.
        colours: whether to use ANSI colours, and to let those of ranks pass.
        width: of the screen, in characters.
        max_lines: lines of one block that are shown; None for all.
        group_outputs: ``'type'`` shows what was printed, then displays, then values; ``'engine'`` all that is
            alike of some ranks together; ``'order'`` lines in the order in which they came.
        show_all: what a note about lines that were left out recommends.

    Raises:
        ValueError: ``fold`` or ``group_outputs`` is none of these, or ``max_lines`` is no number of lines.
    """

    def __init__(
        self,
        fold: Fold = "exact",
        colours: bool = False,
        width: int = 80,
        max_lines: int | None = MAX_LINES,
        group_outputs: GroupOutputs = "type",
        show_all: str = SHOW_ALL,
    ) -> None:
        choice(fold, "fold", FOLDS)
        choice(group_outputs, "group_outputs", _GROUPS)
        if max_lines is not None and (
            not isinstance(max_lines, int) or isinstance(max_lines, bool) or max_lines < 1
        ):
            raise ValueError(
                f"max_lines must be a number of lines, 1 or more, or None for all; not {max_lines!r:.100}"
            )
        self.fold = fold
        self.colours = colours
        self.width = max(width, 20)
        self.max_lines = max_lines
        self.group_outputs = group_outputs
        self.show_all = show_all

    def render(
        self,
        blocks: Sequence[Block],
        values: Mapping[int, str | None] | None = None,
        shown: Show | None = None,
    ) -> str:
        """The text, which ends with a newline unless it is empty.

        Args:
            blocks: what was printed and displayed, in the order in which it came.
            values: the text of each engine's value of the last expression.
            shown: gives the text for a display, which may be empty; by default its plain text.
        """
        show = _plain if shown is None else shown
        if self.group_outputs == "order":
            parts = self._in_order(blocks, show)
        elif self.group_outputs == "engine":
            return "".join(self._by_engine(blocks, dict(values or {}), show))
        else:
            parts = self._by_type(outputs(blocks), show)
        return "".join([*parts, *self._values(values or {})])

    # --- the three orders -------------------------------------------------------------------------------------

    def _by_type(self, found: Sequence[tuple[RankSet, Output]], show: Show) -> list[str]:
        parts = self._texts(((ids, output.stdout) for ids, output in found), STDOUT)
        parts += self._texts(((ids, output.stderr) for ids, output in found), STDERR)
        most = max((len(output.displays) for _, output in found), default=0)
        for place in range(most):
            here = [(ids, each.displays[place]) for ids, each in found if len(each.displays) > place]
            parts += self._displays(here, show)
        return parts

    def _by_engine(
        self,
        blocks: Sequence[Block],
        values: dict[int, str | None],
        show: Show,
    ) -> Iterable[str]:
        of_engine = {engine: output for ids, output in outputs(blocks) for engine in ids}
        engines = sorted({*of_engine, *values})
        each = [(engine, of_engine.get(engine, Output())._replace(value=values.get(engine))) for engine in engines]
        for ids, same in self._groups((((engine,), output) for engine, output in each), identity):
            yield from self._by_type(same, show)
            yield from self._values({engine: values.get(engine) for engine in ids})

    def _in_order(self, blocks: Sequence[Block], show: Show) -> list[str]:
        parts: list[str] = []
        lines: list[Block] = []
        for block in [*blocks, Block(DISPLAY, ())]:
            if block.kind != DISPLAY:
                lines.append(block)
                continue
            parts += map(self.line, merged(lines_of(lines), self.fold))
            lines = []
            parts += self._displays([(RankSet(block.engines), block.formats)], show) if block.engines else []
        return parts

    # --- the three kinds of things ------------------------------------------------------------------------------

    def _texts(self, found: Iterable[tuple[Iterable[int], str]], kind: int) -> list[str]:
        groups = self._groups(((ids, settled(text)) for ids, text in found if text), str)
        parts = [self.block(kind, ids, self._one(same)) for ids, same in groups]
        return self._limited(parts, [ids for ids, _ in groups])

    def _displays(
        self,
        found: Iterable[tuple[Iterable[int], dict[str, str | bytes]]],
        show: Show,
    ) -> list[str]:
        parts = []
        for ids, same in self._groups(found, key_of):
            text = show(ids, same[0][1])
            if text:
                parts.append(self.block(DISPLAY, ids, text))
        return parts

    def _values(self, values: Mapping[int, str | None]) -> list[str]:
        engines: dict[str, list[int]] = {}
        for engine, text in values.items():
            if text is not None:
                engines.setdefault(text, []).append(engine)
        groups = self._groups(((ids, text) for text, ids in engines.items()), str)
        parts = [self.value(ids, self._one(same)) for ids, same in groups]
        return self._limited(parts, [ids for ids, _ in groups])

    # --- folding ------------------------------------------------------------------------------------------------

    def _groups(
        self, found: Iterable[tuple[Iterable[int], T]], key: Callable[[T], Hashable]
    ) -> list[tuple[RankSet, list[tuple[RankSet, T]]]]:
        """Groups to be shown, each with its different things and their ranks."""
        if self.fold == "off":
            single = [((engine,), thing, engine) for ids, thing in found for engine in ids]
            return [(ids, [(ids, thing)]) for ids, thing in folded(single)]
        same = folded((ids, thing, key(thing)) for ids, thing in found)
        if self.fold == "exact":
            return [(ids, [(ids, thing)]) for ids, thing in same]
        alike: dict[Hashable, list[tuple[RankSet, T]]] = {}
        for ids, thing in same:
            alike.setdefault(_alike(thing), []).append((ids, thing))
        return [(RankSet(engine for ids, _ in each for engine in ids), each) for each in alike.values()]

    def _one(self, same: Sequence[tuple[Iterable[int], str]]) -> str:
        if len(same) == 1:
            return same[0][1]
        return with_ranges([(engine, text) for ids, text in same for engine in ids])

    # --- text ---------------------------------------------------------------------------------------------------

    def block(self, kind: int, ids: Iterable[int], text: str) -> str:
        """Some ranks' output: their label, then the text, whose lines stand below each other."""
        name = label(ids)
        if kind == STDERR:
            name = f"{name[:-1]} stderr]"
        return self._labelled(name, RED if kind == STDERR else GREEN, text)

    def line(self, line: Line) -> str:
        """One line that some ranks have printed."""
        return self.block(line.kind, line.engines, self._one(line.texts))

    def value(self, ids: Iterable[int], text: str) -> str:
        """A value as IPython shows it, with ranks in place of the number."""
        return self._labelled(f"Out{label(ids)}:", RED, text)

    def _labelled(self, name: str, colour: str, text: str) -> str:
        lines = self._cut(safe(text).rstrip("\n").split("\n"), len(name) + 1)
        if not self.colours:
            lines = list(map(uncoloured, lines))
        shown = f"{colour}{name}{NORMAL}" if self.colours else name
        indent = " " * (len(name) + 1)
        return (
            "\n".join([f"{shown} {lines[0]}", *(f"{indent}{line}" if line else "" for line in lines[1:])]) + "\n"
        )

    def _cut(self, lines: list[str], indent: int) -> list[str]:
        if self.max_lines is None:
            return lines
        longest = self.max_lines * max(self.width - indent, 20)
        lines = [self._cut_line(line, longest) if len(line) > longest else line for line in lines]
        if len(lines) <= self.max_lines:
            return lines
        head = (self.max_lines + 1) // 2
        tail = max(self.max_lines - head - 1, 0)
        note = f"... {len(lines) - head - tail:,} lines left out: {self.show_all} ..."
        return [*lines[:head], note, *lines[len(lines) - tail :]]

    def _cut_line(self, line: str, longest: int) -> str:
        half = longest // 2
        left_out = len(line) - 2 * half
        return f"{line[:half]} ... {left_out:,} characters left out: {self.show_all} ... {line[-half:]}"

    def _limited(self, parts: list[str], sets: list[RankSet]) -> list[str]:
        if self.max_lines is None or len(parts) <= (most := max(int(self.max_lines * _BLOCKS), 2)):
            return parts
        head, tail = (most + 1) // 2, most // 2
        hidden = label(engine for ids in sets[head : len(sets) - tail] for engine in ids)
        advice = "" if self.fold == "numeric" else ", and fold='numeric' puts numbers together"
        note = f"{hidden} ... {len(parts) - most:,} other blocks left out: {self.show_all}{advice} ...\n"
        return [*parts[:head], note, *parts[len(parts) - tail :]]


def _alike(thing: object) -> Hashable:
    if isinstance(thing, str):
        return masked(thing)
    if isinstance(thing, Output):
        return (
            masked(thing.stdout),
            masked(thing.stderr),
            tuple(map(key_of, thing.displays)),
            masked(thing.value or ""),
        )
    return key_of(thing) if isinstance(thing, dict) else id(thing)


def _plain(_ids: RankSet, formats: dict[str, str | bytes]) -> str:
    """The text of a display without pictures: its plain text, or what it is."""
    text = formats.get("text/plain")
    return text if isinstance(text, str) else f"<{', '.join(formats)}>"
