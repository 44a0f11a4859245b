"""Lines that are not Python but IPython: magics, shell commands and questions. IPython is loaded for these only."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import os
import re
import signal
import sys
import tempfile
import types
from collections.abc import Callable
from typing import Any, Final

_LINE: Final = re.compile(r"^\s*(?:[\w.,\s()\[\]*]+=\s*)?[%!](?=[%!\w./~$\"'({\[])|\?\??\s*$|^\s*\?", re.MULTILINE)
_QUESTION: Final = re.compile(r"\s*(?:%pinfo2?\s+)?(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)\s*(?P<marks>\?\??)?\s*$")


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
        if _LINE.search(source) is None:
            raise error
        if self._shell is None and importlib.util.find_spec("IPython") is None:
            question = _QUESTION.match(source)
            if question is not None and (question["marks"] or source.lstrip().startswith("%")):
                return f"print(__import__({__name__!r}, fromlist=['x']).described({question['name']}))"
            raise SyntaxError(
                "lines that begin with % or ! need IPython, which is not installed for this engine's Python "
                f"({sys.executable}): pip install ipython there"
            ) from error
        shell = self._loaded()
        transformed: str = shell.transform_cell(source)
        try:
            ast.parse(transformed)
        except SyntaxError:
            raise error from None
        self._give({"get_ipython": shell.get_ipython, "_dh": shell.user_ns_hidden["_dh"]})
        return transformed

    def _loaded(self) -> Any:
        if self._shell is None:
            self._shell = _new_shell(self._names)
        return self._shell


def _new_shell(names: dict[str, Any]) -> Any:
    from IPython.core import page
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False  # many ranks would write one database
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.autocall = 0
    before = dict(names)
    # Not in the user's folder: ranks of all nodes would make files there at the same time.
    folder = tempfile.TemporaryDirectory(prefix="ipmpi-ipython-")
    shell = InteractiveShell.instance(
        config=config, user_module=sys.modules[names["__name__"]], user_ns=names, ipython_dir=folder.name
    )
    shell._ipmpi_folder = folder  # removed with the shell
    for name in [name for name in names if name not in before]:
        del names[name]
    names.update(before)
    # A question is answered as text, not in a pager that waits for keys.
    shell.set_hook("show_in_pager", page.as_hook(page.display_page), 90)
    shell.system = types.MethodType(_system, shell)
    return shell


def _system(shell: Any, command: str) -> None:
    """Run a shell command; its output is shown line by line. An interrupt ends it."""
    import subprocess

    child = subprocess.Popen(
        shell.var_expand(command, depth=1), shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="backslashreplace", start_new_session=True,
    )  # fmt: skip
    try:
        with child:
            for line in child.stdout or ():
                sys.stdout.write(line)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        raise
    shell.user_ns["_exit_code"] = child.returncode


def described(thing: object) -> str:
    """Return what a question about an object is answered with where there is no IPython."""
    lines = []
    with contextlib.suppress(TypeError, ValueError):
        name = getattr(thing, "__name__", type(thing).__name__)
        lines.append(f"Signature: {name}{inspect.signature(thing)}")  # type: ignore[arg-type]
    lines.append(f"Type:      {type(thing).__name__}")
    if not callable(thing):
        lines.append(f"Value:     {repr(thing)[:500]}")
    lines.append(f"Docstring: {inspect.getdoc(thing) or '<none>'}")
    return "\n".join(lines)
