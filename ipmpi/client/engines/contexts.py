"""Run the body of a ``with`` statement on engines instead of locally.

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
    """Mark the first statement of the body: the statements after it run on the engines, and not locally."""
    raise StopLocalExecution("remote() is the first statement of `with RemoteMultiEngine(mec):`, and only of that")


class RemoteMultiEngine:
    """A context manager that executes the body of its ``with`` statement, after ``remote()``, on engines.

    The body is sent as source code, so local variables are not available in it.

    Args:
        multiengine: a client or view; its ``targets`` and ``block`` apply.

    Attributes:
        result: what ``execute`` returned: a :class:`ResultList`, or with ``block=False`` a :class:`PendingResult`
            of it; set when the statement ends.
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
    """Return the source of the statements after the one at ``line`` in its ``with`` statement, dedented.

    Raises:
        ClientError: ``text`` has no such statement, for example because it was typed at a plain Python prompt.
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
