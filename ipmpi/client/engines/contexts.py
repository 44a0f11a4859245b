"""Run the body of a with-statement on engines instead of here.

::

    with RemoteMultiEngine(mec) as pr:
        remote()
        x = compute()                   # runs on the engines
    pr.result                           # the ResultList
"""

from __future__ import annotations

import ast
import linecache
import textwrap
from types import TracebackType
from typing import Any, NoReturn, Protocol

from ...errors import ClientError, StopLocalExecution


class Executes(Protocol):
    """A client or view."""

    def execute(self, lines: str) -> Any:
        """Run source text."""


def remote() -> NoReturn:
    """First statement of the body: everything after it runs on the engines, and not here."""
    raise StopLocalExecution("remote() is the first statement of `with RemoteMultiEngine(mec):`, and only of that")


class RemoteMultiEngine:
    """A with-statement whose body, from ``remote()`` on, is taken as source text and executed on engines.

    Args:
        multiengine: a client or view; its ``targets`` and ``block`` count.

    Attributes:
        result: what ``execute`` returned, after the statement.
    """

    def __init__(self, multiengine: Executes) -> None:
        self.multiengine = multiengine
        self.result: Any = None

    def __enter__(self) -> RemoteMultiEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if kind is None or traceback is None or not issubclass(kind, StopLocalExecution):
            return False
        frame = traceback.tb_frame
        text = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
        self.result = self.multiengine.execute(body_after(text, traceback.tb_lineno))
        return True


def body_after(text: str, line: int) -> str:
    """The statements that follow the one at ``line`` in the with-statement around it, at the left margin.

    Raises:
        ClientError: ``text`` has no such statement (the program was typed where its source is not kept).
    """
    withs = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.With, ast.AsyncWith)) and any(inner.lineno == line for inner in node.body)
    ]
    if not withs:
        raise ClientError(
            "the source of this with-statement is not available: write it in a file or in IPython, "
            "with remote() on a line of its own, or use execute()"
        )
    after = [inner for inner in withs[-1].body if inner.lineno > line]
    if not after:
        return ""
    lines = text.splitlines(keepends=True)[after[0].lineno - 1 : after[-1].end_lineno]
    return textwrap.dedent("".join(lines))
