"""``%autopx``: cells run on the engines instead of locally.

IPython processes a cell as usual: it is stored in the history, checked for completeness, and parsed, so that a
SyntaxError is shown at once. Then its statements are replaced by one call that sends its source to the engines.
This uses two hooks of IPython: an event before each cell, which has its source, and an AST transformer, which has
not. Only the first code that is transformed after the event is the cell: magics use the same transformers for code
they parse.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

LOCAL_MARKS = ("%", "!", "?")
"""Cells that begin with one of these are IPython commands and run locally; one of them ends this mode."""


def is_command(cell: str) -> bool:
    """Return whether a cell begins with an IPython command."""
    return cell.lstrip().startswith(LOCAL_MARKS)


class AutoParallel(ast.NodeTransformer):
    """Redirects cells to the engines between :meth:`enable` and :meth:`disable`.

    Args:
        shell: the ``InteractiveShell`` of IPython.
        call: source of an expression that gives a function with one parameter, the source of a cell.

    Attributes:
        enabled: whether cells are redirected.
        is_local: whether a cell is not.
    """

    def __init__(self, shell: Any, call: str) -> None:
        self.enabled = False
        self.is_local: Callable[[str], bool] = is_command
        self._shell = shell
        self._call = call
        self._cell: str | None = None

    def enable(self) -> None:
        """Send cells to the engines, starting with the next one."""
        if not self.enabled:
            self._shell.events.register("pre_run_cell", self._before_cell)
            self._shell.ast_transformers.append(self)
            self.enabled = True

    def disable(self) -> None:
        """Run cells locally again."""
        if self.enabled:
            self._shell.events.unregister("pre_run_cell", self._before_cell)
            self._shell.ast_transformers.remove(self)
            self.enabled = False
            self._cell = None

    def _before_cell(self, info: Any) -> None:
        text: str = info.raw_cell
        self._cell = None if self.is_local(text) else self._for_engines(text)

    def _for_engines(self, text: str) -> str:
        """As IPython reads it, without prompts that were pasted; engines read commands of IPython themselves."""
        transformed: str = self._shell.transform_cell(text)
        return text if "get_ipython()" in transformed and "get_ipython()" not in text else transformed

    def visit(self, node: ast.AST) -> ast.AST:
        """Replace the code of the cell by the call; return other code unchanged."""
        cell, self._cell = self._cell, None
        if cell is None or not isinstance(node, ast.Module) or not node.body:
            return node
        return ast.parse(f"{self._call}({cell!r})")
