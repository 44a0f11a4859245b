"""What executed commands return: what each engine has printed and shown."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from ...colours import BLUE, GREEN, NORMAL, RED
from ...ranges import label
from ..display.blocks import Output
from ..display.escapes import safe
from ..display.portions import folded
from ..display.ranksets import RankSet
from ..display.render import MAX_LINES, Fold, GroupOutputs, Renderer
from ..display.screens import has_colours, width
from ..display.showing import blocks_of, groups_of, show, values_of

_PLAIN = ("", "", "", "")

FEW: Final = 4
"""Up to so many engines, each is shown by itself, as in IPython.kernel; of more, equal output is shown once."""


class ResultList(list[Any]):
    """The output of one command, one dict per engine, in the order of the targets; shown as ``<Results List>``.

    Each dict has the keys ``'id'`` (of the engine), ``'number'`` (of the command), ``'input': {'translated',
    'raw'}`` and ``'stdout'``; if there was any, also ``'stderr'``, ``'display': {'pprint', 'repr'}`` (the last
    value that was displayed; with ``'rich'``, a dict of other formats by MIME type, if it has any) and
    ``'displays'`` (a list of such dicts of formats, of what the code displayed).

    The text is coloured only on a terminal. With more than four engines, equal output is shown once, with the
    ranks that it came from, and with the values.
    """

    @property
    def groups(self) -> dict[RankSet, Output]:
        """Equal outputs once, by the engines that have them.

        The keys are tuples of ids, shown as ``[0-62, 64]``. An :class:`Output` has ``stdout``, ``stderr``,
        ``displays``, ``value`` (the text of the last value, or None) and ``formats`` (others of that value).
        """
        return groups_of(self.outputs)

    @property
    def outputs(self) -> dict[int, Output]:
        """The output of each engine, by its id."""
        return {each["id"]: _output(each) for each in self if isinstance(each, dict)}

    @property
    def stdout(self) -> list[str]:
        """What each engine has printed on standard output."""
        return [output.stdout for output in self.outputs.values()]

    @property
    def stderr(self) -> list[str]:
        """What each engine has printed on standard error."""
        return [output.stderr for output in self.outputs.values()]

    @property
    def values(self) -> list[str | None]:
        """The text of the value of each engine's last expression; None where it had none."""
        return [output.value for output in self.outputs.values()]

    def display(
        self,
        fold: Fold = "exact",
        *,
        group_outputs: GroupOutputs = "type",
        max_lines: int | None = MAX_LINES,
        printed: bool = True,
        ranks: Collection[int] | None = None,
        stream: Any = None,
    ) -> None:
        """Show what was printed and displayed, and the values; equal ones once, with their ranks.

        Args:
            fold: ``'exact'`` shows equal outputs once; ``'numeric'`` also those that differ only by numbers, with
                minimum, mean and maximum; ``'off'`` shows each engine by itself.
            group_outputs: ``'type'`` shows all that was printed, then displays, then values; ``'engine'`` all of
                one set of engines after the other.
            max_lines: lines of one output that are shown; its middle is left out. None for all.
            printed: False shows only the values.
            ranks: the engines whose pictures are shown; None for all.
            stream: a file to write to; by default standard output, or the notebook.

        Raises:
            TypeError: ``stream`` has no ``write``.
            ValueError: ``fold``, ``group_outputs`` or ``max_lines`` is not possible.
        """
        show(
            self.outputs,
            fold=fold,
            group_outputs=group_outputs,
            max_lines=max_lines,
            printed=printed,
            ranks=ranks,
            stream=stream,
        )

    def __repr__(self) -> str:
        return self.render(colours=has_colours())

    def render(self, colours: bool = False) -> str:
        """Format the output of all engines as text.

        Args:
            colours: whether to use ANSI colours.
        """
        palette = (GREEN, BLUE, RED, NORMAL) if colours else _PLAIN
        if len(self) <= FEW or not all(isinstance(each, dict) for each in self):
            return "<Results List>\n" + "".join(_render_command(command, palette) for command in self)
        green, blue, _, normal = palette
        inputs = folded(((each["id"],), _input(each), _input(each)) for each in self)
        text = "".join(
            f"{green}{label(ids)}{blue} In [{number}]:{normal} {source}\n" for ids, (number, source) in inputs
        )
        groups = self.groups
        rest = Renderer("exact", colours, width()).render(blocks_of(groups), values_of(groups))
        return f"<Results List>\n{text}{rest}"


class RunResults(ResultList):
    """The output of a file that was run, one dict per engine; shown with the file's name, not its text."""

    def __init__(self, filename: str, commands: Iterable[Any] = ()) -> None:
        super().__init__(commands)
        self._filename = filename

    def render(self, colours: bool = False) -> str:
        """Format the output of all engines as text; see :meth:`ResultList.render`."""
        run = f"run({self._filename!r})"
        short = [{**each, "input": {"translated": run}} if isinstance(each, dict) else each for each in self]
        return ResultList(short).render(colours)


def _output(command: dict[str, Any]) -> Output:
    shown = command.get("display", {})
    displays = tuple(command.get("displays", ()))
    texts = command.get("stdout", ""), command.get("stderr", "")
    return Output(*texts, displays, shown.get("pprint"), shown.get("rich", {}))


def _input(command: dict[str, Any]) -> tuple[int, str]:
    return command["number"], command["input"]["translated"] if "input" in command else "No Input"


def _render_command(command: Any, palette: tuple[str, str, str, str]) -> str:
    green, blue, red, normal = palette
    if not isinstance(command, dict):
        return str(command)
    engine, (number, source) = command["id"], _input(command)
    text = f"{green}[{engine}]{blue} In [{number}]:{normal} {source}\n"
    if command.get("stdout"):
        text += f"{green}[{engine}]{red} Out[{number}]:{normal} {safe(command['stdout'])}\n"
    if command.get("stderr"):
        text += f"{green}[{engine}]{red} Err[{number}]:\n{normal} {safe(command['stderr'])}"
    return text
