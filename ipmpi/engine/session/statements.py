"""Compiling source text, and providing its lines for tracebacks."""

from __future__ import annotations
import __future__

import ast
import contextlib
import functools
import linecache
from collections import OrderedDict
from types import CodeType
from typing import Final

KEPT_SOURCES: Final = 500
"""Commands whose lines tracebacks can still show. Later ones push out the oldest."""

_KEPT_CODES: Final = 64
_KEPT_SOURCE: Final = 10_000
"""How many commands' code is kept, since who steers a program sends the same text again and again; and up to how
many characters."""

_kept: dict[tuple[str, int], CodeType] = {}

_FUTURE: Final[int] = functools.reduce(
    int.__or__, (getattr(__future__, n).compiler_flag for n in __future__.all_feature_names)
)


def compile_interactive(source: str, filename: str, flags: int = 0) -> CodeType:
    """Code in which every top-level expression, a leading string too, is handed to ``sys.displayhook``.

    Args:
        source: any number of statements.
        filename: what tracebacks call it.
        flags: those of :func:`future_flags` of earlier commands.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as ``compile`` does; nothing has run then.
    """
    kept = _kept.get((source, flags))
    if kept is not None:
        return _renamed(kept, filename)
    code = _compiled(source, filename, flags)
    if len(source) <= _KEPT_SOURCE:
        if len(_kept) >= _KEPT_CODES:
            del _kept[next(iter(_kept))]
        _kept[source, flags] = code
    return code


def _compiled(source: str, filename: str, flags: int) -> CodeType:
    if "\n" not in source:
        # One statement needs no tree, which takes longer than all the rest of a short command.
        with contextlib.suppress(SyntaxError):
            code: CodeType = compile(source, filename, "single", flags, dont_inherit=True)
            return code
    module: ast.Module = compile(source, filename, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    code = compile(ast.Interactive(module.body), filename, "single", flags, dont_inherit=True)
    return code


def _renamed(code: CodeType, filename: str) -> CodeType:
    """The same code, and that of the functions and classes in it, under another filename."""
    inner = [_renamed(each, filename) if isinstance(each, CodeType) else each for each in code.co_consts]
    return code.replace(co_filename=filename, co_consts=tuple(inner))


@functools.lru_cache(maxsize=64)
def compile_task(source: str, filename: str) -> CodeType:
    """Code of a string task, which displays nothing; kept, because a farm runs the same text again and again."""
    return compile(source, filename, "exec", dont_inherit=True)


def future_flags(code: CodeType) -> int:
    """The ``from __future__`` features that are on in ``code``."""
    return code.co_flags & _FUTURE


class Sources:
    """The texts of the last commands, under their filenames in :mod:`linecache`."""

    def __init__(self, kept: int = KEPT_SOURCES) -> None:
        self._kept = kept
        self._filenames: OrderedDict[str, None] = OrderedDict()

    def add(self, filename: str, source: str) -> None:
        """Let tracebacks and ``inspect.getsource`` find ``source``."""
        # No modification time: checkcache then never looks for a file of this name.
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        self._filenames[filename] = None
        self._filenames.move_to_end(filename)
        if len(self._filenames) > self._kept:
            oldest, _ = self._filenames.popitem(last=False)
            linecache.cache.pop(oldest, None)

    def clear(self) -> None:
        """Forget all of them."""
        for filename in self._filenames:
            linecache.cache.pop(filename, None)
        self._filenames.clear()
