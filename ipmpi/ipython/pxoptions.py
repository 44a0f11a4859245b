"""The options of ``%%px``, ``%pxconfig`` and ``%pxresult``, spelled as in ipyparallel where it has them."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, NoReturn

from IPython.core.error import UsageError

from .. import limits
from ..client.display.render import Fold, GroupOutputs

OnInterrupt = Literal["ranks", "detach", "kill"]
Item = int | slice

SIGNALS: Final[dict[str, OnInterrupt]] = {
    "SIGINT": "ranks", "2": "ranks", "0": "detach", "SIGTERM": "kill", "15": "kill", "SIGKILL": "kill",
    "9": "kill",
}  # fmt: skip
"""What Ctrl-C does for a value of ``--signal-on-interrupt``."""

_NUMBER: Final = re.compile(r"-?\d+$")
_RANGE: Final = re.compile(r"(\d+)-(\d+)$")
_SLICE: Final = re.compile(r"(-?\d+)?:(-?\d+)?(?::(-?\d+)?)?$")
_TARGETS: Final = (
    "targets are ids (-t 3, -t 0,2,5), ranges (-t 0-3), slices as in Python (-t 0:8:2, -t ::2, -t -1), or all; "
    "not "
)


class PxOptions(NamedTuple):
    """How a cell runs and is shown; None where the default of ``%pxconfig``, or of the client, holds.

    Attributes:
        block: whether to wait.
        stream: whether output is shown while it comes.
        targets: the text of ``--targets``.
        verbose: whether a line says on which engines the cell runs.
        progress_after: seconds until the status line is shown; negative for never.
        on_interrupt: what the first Ctrl-C does.
        fold: how equal output is put together.
        group_outputs: how output that is not streamed is ordered.
        ranks: text that selects the engines whose displays are shown.
        out: the name under which the result is stored.
        local: whether the cell also runs in this process.
        everything: whether long output is shown as a whole.
        profile: whether it is said where engines have spent their time.
    """

    block: bool | None = None
    stream: bool | None = None
    targets: str | None = None
    verbose: bool | None = None
    progress_after: float | None = None
    on_interrupt: OnInterrupt | None = None
    fold: Fold | None = None
    group_outputs: GroupOutputs | None = None
    ranks: str | None = None
    out: str | None = None
    local: bool = False
    everything: bool = False
    profile: bool = False

    def over(self, defaults: PxOptions) -> PxOptions:
        """Return these options, with ``defaults`` where nothing was chosen."""
        return defaults._replace(**{name: value for name, value in self._asdict().items() if value is not None})


class OptionParser(argparse.ArgumentParser):
    """A parser of a magic's line; its errors are those of IPython."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(message)


def _parser(name: str, *parts: Callable[[OptionParser], None]) -> OptionParser:
    made = OptionParser(prog=name, add_help=False)
    for part in parts:
        part(made)
    return made


def _switch(parser: OptionParser, name: str, value: object, text: str, *flags: str) -> None:
    parser.add_argument(*flags, action="store_const", const=value, dest=name, help=text)


def _execution(parser: OptionParser) -> None:
    """Add what says how a cell runs."""
    _switch(parser, "block", True, "wait for the result", "-b", "--block")
    _switch(parser, "block", False, "do not wait: the value is a PendingResult", "-a", "--noblock")
    _switch(parser, "stream", True, "show output while it comes (the default)", "--stream")
    _switch(parser, "stream", False, "show output when the command has ended", "--no-stream")
    parser.add_argument("-t", "--targets", help="engines: ids (0,2), ranges (0-3), slices (0:8:2), or all")
    _switch(parser, "verbose", True, "say on which engines it runs (the default)", "-v", "--verbose")
    _switch(parser, "verbose", False, "do not say it", "--no-verbose")
    parser.add_argument(
        "--progress-after", type=float, help="seconds until a line shows for whom it waits; 0 at once, -1 never"
    )
    text = "what Ctrl-C does: SIGINT interrupts engines, SIGTERM or SIGKILL ends them, 0 leaves them alone"
    parser.add_argument("--signal-on-interrupt", dest="signal", help=text)


def _shown(parser: OptionParser) -> None:
    """Add what says which output is shown."""
    parser.add_argument("--fold", choices=["exact", "numeric", "off"], help="which output is put together")
    parser.add_argument("--ranks", help="engines whose figures and displays are shown")


def _output(parser: OptionParser) -> None:
    """Add what says how output is ordered, and kept."""
    _switch(parser, "group_outputs", "order", "as --group-outputs=order", "-r")
    _switch(parser, "group_outputs", "engine", "as --group-outputs=engine", "-e")
    text = "by type (stdout, stderr, displays, values), by engine, or in the order of arrival"
    parser.add_argument("--group-outputs", choices=["engine", "order", "type"], help=text)
    parser.add_argument("-o", "--out", help="store the PendingResult under this name")


def _local(parser: OptionParser) -> None:
    _switch(parser, "local", True, "run the cell in this process as well", "--local")


def _profile(parser: OptionParser) -> None:
    text = "say afterwards where engines have spent their time; it is kept as _profile"
    _switch(parser, "profile", True, text, "--profile")


def _everything(parser: OptionParser) -> None:
    _switch(parser, "everything", True, "show long output as a whole", "--all")


PX: Final = _parser("%%px", _execution, _shown, _output, _local, _profile)
PXCONFIG: Final = _parser("%pxconfig", _execution, _shown, _output)
PXRESULT: Final = _parser("%pxresult", _shown, _output, _everything)


def parse(parser: OptionParser, words: str | list[str], code_goes: str = "") -> PxOptions:
    """Return the options in the line of a magic.

    Args:
        parser: knows the options.
        words: what follows its name.
        code_goes: where code belongs, for the error if some is here.

    Raises:
        UsageError: one is unknown, or has no meaning.
    """
    try:
        given = shlex.split(words) if isinstance(words, str) else words
    except ValueError as error:
        raise UsageError(f"{error} in: {words}") from None
    found, rest = parser.parse_known_args(given)
    if rest:
        advice = f"; {code_goes}" if code_goes else f"\n{parser.format_usage()}"
        raise UsageError(f"these are no options: {' '.join(rest)}{advice}")
    return _options(found)


class WhereOptions(NamedTuple):
    """The options of ``%where``.

    Attributes:
        native: whether functions of C are shown.
        all: whether all functions are shown.
    """

    native: bool
    all: bool


def where_options(line: str) -> tuple[WhereOptions, str | None]:
    """Return the options of ``%where``, and the text that names engines, if there is one.

    Raises:
        UsageError: one is unknown.
    """
    words = line.split()
    known = {"--native", "--all"}
    unknown = [word for word in words if word.startswith("--") and word not in known]
    if unknown:
        raise UsageError(f"%where has the options --all and --native, and takes engines (0:4), not {unknown[0]}")
    targets = " ".join(word for word in words if word not in known)
    return WhereOptions("--native" in words, "--all" in words), targets or None


def since_option(line: str) -> str | None:
    """Return the moment after ``--since`` in the line of ``%pxlog``; None if there is no such option.

    Raises:
        UsageError: there is no moment.
    """
    name, _, moment = line.strip().replace("=", " ", 1).partition(" ")
    if name != "--since":
        return None
    if not moment.strip():
        raise UsageError("%pxlog --since takes a moment, as in --since last, --since 10:30 or --since 2h")
    return moment.strip().strip("'\"")


def _options(found: argparse.Namespace) -> PxOptions:
    values = vars(found)
    signal = values.pop("signal", None)
    if signal is not None:
        values["on_interrupt"] = _on_interrupt(signal)
    for name in ("targets", "ranks"):
        if values.get(name) is not None:
            items(values[name])
    if values.get("out") is not None and not values["out"].isidentifier():
        raise UsageError(f"-o takes the name of a variable, not {values['out']!r}")
    return PxOptions(**{name: value for name, value in values.items() if value is not None})


def _on_interrupt(signal: str) -> OnInterrupt:
    try:
        return SIGNALS[signal.upper()]
    except KeyError:
        raise UsageError(
            f"--signal-on-interrupt {signal}: Ctrl-C can interrupt engines (SIGINT, 2), end them (SIGTERM, "
            "SIGKILL, 15, 9), or leave them alone (0)"
        ) from None


def split_line(parser: OptionParser, line: str) -> tuple[list[str], str]:
    """Split ``-t 0:2 --fold=off a = 1`` into options and code; a line that is valid Python has no options."""
    rest = line.lstrip()
    if not rest.startswith("-"):
        return [], line
    try:
        compile(rest, "<line>", "exec")
    except SyntaxError:
        pass
    else:
        return [], line
    actions = {flag: action for action in parser._actions for flag in action.option_strings}
    words: list[str] = []
    while rest.startswith("-"):
        word, _, after = rest.partition(" ")
        name, has_value, _ = word.partition("=")
        action = actions.get(name)
        if action is None:
            break
        words.append(word)
        rest = after.lstrip()
        if action.nargs != 0 and not has_value:
            value, _, rest = rest.partition(" ")
            words.append(value)
            rest = rest.lstrip()
    return words, rest


def items(text: str) -> list[Item] | Literal["all"]:
    """Return what ``--targets`` names: ids and slices.

    Raises:
        UsageError: it is nothing of this.
    """
    if text.strip() == "all":
        return "all"
    found: list[Item] = []
    for part in text.strip().removeprefix("[").removesuffix("]").split(","):
        word = part.strip()
        if _NUMBER.match(word):
            found.append(int(word))
        elif (span := _RANGE.match(word)) is not None:
            found += range(int(span[1]), min(int(span[2]), limits.ENGINE_ID) + 1)[: limits.MAX_ENGINES + 1]
        elif (cut := _SLICE.match(word)) is not None and cut[3] != "0":
            found.append(slice(*(None if number is None else int(number) for number in cut.groups())))
        else:
            raise UsageError(f"{_TARGETS}{text!r}")
    return found


def engines(text: str, client: Any) -> list[int] | Literal["all"]:
    """Return the ids that ``text`` names, each once; slices and negative numbers count through those of a client.

    Raises:
        UsageError: it names none.
    """
    wanted = items(text)
    if wanted == "all":
        return "all"
    ids: dict[int, None] = {}
    for item in wanted:
        try:
            chosen = client[item].targets
        except IndexError as error:
            raise UsageError(f"--targets {text}: {error}") from None
        ids.update(dict.fromkeys([chosen] if isinstance(chosen, int) else chosen))
    if not ids:
        raise UsageError(f"--targets {text} names no engine: there are {len(client)}")
    return list(ids)
