"""``%autopx``: cells run on the engines instead of here.

A cell goes through IPython as always: it is kept in the history, checked for completeness, and parsed, so that a
SyntaxError shows at once. Then, in place of its statements, one call is run that sends its text to the engines.
IPython's hooks for this are an event before a cell, which tells its text, and a transformer of parsed code, which
sees no text. Only the first code after the event is the cell: magics parse code with the same transformers.
"""

from __future__ import annotations

import ast
from typing import Any

LOCAL_MARKS = ("%", "!", "?")
"""A cell that begins with one of these is a command to IPython and stays here: how else to end this mode?"""


class AutoParallel(ast.NodeTransformer):
    """The redirection of cells; :meth:`enable` and :meth:`disable` it.

    Args:
        shell: IPython's.
        call: source of an expression that gives a function of one argument, the text of a cell.
    """

    def __init__(self, shell: Any, call: str) -> None:
        self.enabled = False
        self._shell = shell
        self._call = call
        self._cell: str | None = None

    def enable(self) -> None:
        """Send cells to the engines, from the next one on."""
        if not self.enabled:
            self._shell.events.register("pre_run_cell", self._before_cell)
            self._shell.ast_transformers.append(self)
            self.enabled = True

    def disable(self) -> None:
        """Run cells here again."""
        if self.enabled:
            self._shell.events.unregister("pre_run_cell", self._before_cell)
            self._shell.ast_transformers.remove(self)
            self.enabled = False
            self._cell = None

    def _before_cell(self, info: Any) -> None:
        text: str = info.raw_cell
        self._cell = None if text.lstrip().startswith(LOCAL_MARKS) else self._shell.transform_cell(text)

    def visit(self, node: ast.AST) -> ast.AST:
        """The code of the cell, replaced by the call; other code as it is."""
        cell, self._cell = self._cell, None
        if cell is None or not isinstance(node, ast.Module) or not node.body:
            return node
        return ast.parse(f"{self._call}({cell!r})")
