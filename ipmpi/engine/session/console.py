"""Runs commands as an interactive session does: numbers, history, displayed values."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

import msgspec.structs

from ipmpi.engine.session import formats
from ipmpi.engine.session.displays import Displays
from ipmpi.engine.session.scripts import as_script
from ipmpi.engine.session.statements import Sources, compile_interactive, future_flags
from ipmpi.engine.session.texts import shorten
from ipmpi.limits import MIB, RESULT_TEXT
from ipmpi.protocol.operations import Display, Execute, Executed

if TYPE_CHECKING:
    from ipmpi.engine.session.ipythonlines import IPythonLines

KEPT_RESULTS: Final = 16 * MIB
"""Text of past results that get_result can still ask for; the oldest go first."""

KEPT_HISTORY: Final = 1000
"""Commands that get_result can ask for, and whose text and displayed value ``In`` and ``Out`` have, as in IPython.
Older ones are let go."""

DISPLAYED: Final = RESULT_TEXT // 8
_LAST: Final = ("_", "__", "___")
_NO_VALUE: Final = object()
_NO_SCRIPT: Final = contextlib.nullcontext()
_DEFAULT_FILENAME: Final = Execute.__struct_defaults__[0]


class Console:
    """The session of one engine. Its history is in the namespace as ``In``, ``Out``, ``_``, ``__``, ``___``.

    Args:
        names: the namespace.
        give: puts names of ipmpi's there, except where the user has something else by that name.
        displays: what user code displays.
    """

    def __init__(
        self, names: dict[str, Any], give: Callable[[dict[str, Any]], None], displays: Displays | None = None
    ) -> None:
        self.sources = Sources()
        self._names = names
        self._give = give
        self._ipython: IPythonLines | None = None
        self._displays = Displays() if displays is None else displays
        self.reset()

    def load_shell(self) -> object:
        """Return IPython's shell, which has this session's names; ImportError where IPython is not installed."""
        return self._ipython_lines().loaded()

    def reset(self) -> None:
        """Start again at number 1, with no history and no ``from __future__`` features."""
        self._number = 0
        self._last_success: int | None = None
        self._inputs: list[str] = [""]
        self._outputs: dict[int, Any] = {}
        self._results: OrderedDict[int, tuple[Executed, str, int]] = OrderedDict()
        self._results_size = 0
        self._flags = 0
        self._displayed: Any = _NO_VALUE
        self.sources.clear()
        self.seed()

    def seed(self) -> None:
        """Put the names of the history in the namespace."""
        self._shown = ("", "", "")
        self._give({"In": self._inputs, "_ih": self._inputs, "Out": self._outputs, "_oh": self._outputs})
        self._give(dict(zip(_LAST, self._shown, strict=True)))

    def execute(self, operation: Execute, reference: int = 0) -> tuple[Executed, BaseException | None]:
        """Run statements until the first that raises. What it raised, if any, comes with what was displayed.

        Args:
            operation: the statements.
            reference: a number that :meth:`result` gives back.
        """
        self._number += 1
        source = operation.source
        filename = operation.filename
        if filename == _DEFAULT_FILENAME:
            filename = f"<ipmpi {self._number}>"
        self._inputs.append(source)
        if len(self._inputs) > KEPT_HISTORY + 1:
            self._inputs[-KEPT_HISTORY - 1] = ""
        self.sources.add(filename, source)
        self._displayed = _NO_VALUE
        error: BaseException | None = None
        displayhook = sys.displayhook
        with warnings.catch_warnings():
            pass  # forget which warnings were shown: each is shown once in a command, not once in an engine's life
        words = operation.argv
        around = _NO_SCRIPT if words is None else as_script(self._names, words, operation.path)
        with around:
            sys.displayhook = self._display
            try:
                error = self._run(source, filename)
                (pretty, text, rich), broken = self._formats_of_displayed(error is None)
                error = broken if error is None else error
                left_open = self._show_figures_left_open()
                error = left_open if error is None else error
                executed = self._executed(pretty, text, rich)
            finally:
                sys.displayhook = displayhook
                self._displayed = _NO_VALUE
        self._keep(executed, shorten(source, RESULT_TEXT // 4), reference)
        if error is None:
            self._last_success = self._number
        return executed, error

    def result(self, number: int | None) -> tuple[Executed, int]:
        """The kept result of a command, by default the last that succeeded, and its reference.

        Raises:
            IndexError: there is none, or it is no longer kept.
        """
        wanted = self._last_success if number is None else number
        if wanted is None:
            raise IndexError("no command has succeeded on this engine yet; run one with execute")
        try:
            executed, source, reference = self._results[wanted]
            return msgspec.structs.replace(executed, source=source), reference
        except KeyError:
            if 0 < wanted <= self._number:
                raise IndexError(
                    f"the result of command {wanted} is no longer kept: an engine keeps those of the last "
                    f"{KEPT_HISTORY:,} commands, up to {KEPT_RESULTS // MIB} MiB of text"
                ) from None
            raise IndexError(f"index {wanted} out of range") from None

    def _run(self, source: str, filename: str) -> BaseException | None:
        try:
            code = self._compiled(source, filename)
            self._flags |= future_flags(code)
            exec(code, self._names)
        except BaseException as error:
            return error
        return None

    def _compiled(self, source: str, filename: str) -> CodeType:
        try:
            return compile_interactive(source, filename, self._flags)
        except SyntaxError as error:
            python = self._ipython_lines().as_python(source, error)
        return compile_interactive(python, filename, self._flags)

    def _ipython_lines(self) -> IPythonLines:
        if self._ipython is None:
            # Most engines never see a line that is not Python.
            from ipmpi.engine.session.ipythonlines import IPythonLines

            self._ipython = IPythonLines(self._names, self._give)
        return self._ipython

    def _display(self, value: Any) -> None:
        if value is None:
            return
        self._shown = (value, *self._shown[:2])
        self._give(dict(zip(_LAST, self._shown, strict=True)))
        self._outputs[self._number] = value
        while len(self._outputs) > KEPT_HISTORY:
            del self._outputs[next(iter(self._outputs))]
        self._displayed = value

    def _formats_of_displayed(
        self, with_rich: bool
    ) -> tuple[tuple[str | None, str | None, Display | None], BaseException | None]:
        """``(pprint, repr, rich)`` of the last displayed value, made once: a loop may display a million.

        Where a traceback has to fit into the answer too, there is no room for the rich formats.
        """
        value = self._displayed
        if value is _NO_VALUE:
            return (None, None, None), None
        try:
            pretty, text = formats.laid_out(value)
            rich = self._displays.last_value(value) if with_rich else None
            return (shorten(pretty, DISPLAYED), shorten(text, DISPLAYED), rich), None
        except BaseException as error:
            return (None, None, None), error

    def _show_figures_left_open(self) -> BaseException | None:
        try:
            self._displays.show_left_open()
        except BaseException as error:
            return error
        return None

    def _executed(self, pretty: str | None, text: str | None, rich: Display | None) -> Executed:
        return Executed(self._number, pretty, text, display_rich=rich)

    def _keep(self, executed: Executed, source: str, reference: int) -> None:
        self._results[executed.number] = executed, source, reference
        self._results_size += _size(executed, source)
        while len(self._results) > KEPT_HISTORY or (self._results_size > KEPT_RESULTS and len(self._results) > 1):
            _, oldest = self._results.popitem(last=False)
            self._results_size -= _size(*oldest[:2])


def _size(executed: Executed, source: str) -> int:
    displayed = len(executed.display_repr or "") + len(executed.display_pprint or "")
    displayed += formats.size(executed.display_rich)
    return 200 + len(source) + displayed
