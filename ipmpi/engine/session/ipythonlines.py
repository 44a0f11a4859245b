"""Lines that are not Python but IPython: magics, shell commands and questions. They load IPython."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Callable
from typing import Any, Final

_LINE: Final = re.compile(r"^\s*(?:[\w.,\s()\[\]*]+=\s*)?[%!](?=[%!\w./~$\"'({\[])|\?\??\s*$|^\s*\?", re.MULTILINE)
_QUESTION: Final = re.compile(r"\s*(?:%pinfo2?\s+)?(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)\s*(?P<marks>\?\??)?\s*$")

_DESCRIPTIONS: Final = "ipmpi.engine.session.descriptions"

_FIGURES: Final = re.compile(r"^([ \t]*)%matplotlib\b.*$", re.MULTILINE)
"""Notebooks begin with this. Engines show figures without it, and IPython's would want a window, or a kernel."""


class IPythonLines:
    """Turns IPython's syntax to Python on one engine.

    Args:
        names: the namespace.
        give: puts names of ipmpi's in it, except where the user has something else by that name.
    """

    def __init__(self, names: dict[str, Any], give: Callable[[dict[str, Any]], None]) -> None:
        self._names = names
        self._give = give
        self._shell: Any = None

    def as_python(self, source: str, error: SyntaxError) -> str:
        """Return Python code for a source that has raised ``error`` as Python.

        Raises:
            SyntaxError: it is no code of IPython either, or IPython is not installed.
        """
        without = _FIGURES.sub(r"\1pass", source)
        if without != source and _LINE.search(without) is None:
            return without
        source = without
        if _LINE.search(source) is None:
            raise error
        if self._shell is None and importlib.util.find_spec("IPython") is None:
            question = _QUESTION.match(source)
            if question is not None and (question["marks"] or source.lstrip().startswith("%")):
                return f"print(__import__({_DESCRIPTIONS!r}, fromlist=['x']).described({question['name']}))"
            raise SyntaxError(
                "lines that begin with % or ! need IPython, which is not installed for this engine's Python "
                f"({sys.executable}): pip install ipython there"
            ) from error
        shell = self.loaded()
        transformed: str = shell.transform_cell(source)
        try:
            ast.parse(transformed)
        except SyntaxError:
            raise error from None
        self._give({"get_ipython": shell.get_ipython, "_dh": shell.user_ns_hidden["_dh"]})
        return transformed

    def loaded(self) -> Any:
        """Return IPython's shell, which is made by the first call."""
        if self._shell is None:
            from ipmpi.engine.session.ipythonshell import new_shell

            self._shell = new_shell(self._names)
        return self._shell
