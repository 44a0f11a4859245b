"""What an object is, in a few lines: the answer to ``name?`` where there is no IPython."""

from __future__ import annotations

import contextlib
import inspect


def described(thing: object, with_source: bool = False) -> str:
    """Return what a question about an object is answered with where there is no IPython."""
    lines = []
    with contextlib.suppress(TypeError, ValueError):
        name = getattr(thing, "__name__", type(thing).__name__)
        lines.append(f"Signature: {name}{inspect.signature(thing)}")  # type: ignore[arg-type]
    lines.append(f"Type:      {type(thing).__name__}")
    if not callable(thing):
        lines.append(f"Value:     {repr(thing)[:500]}")
    lines.append(f"Docstring: {inspect.getdoc(thing) or '<none>'}")
    if with_source:
        with contextlib.suppress(TypeError, OSError):
            lines.append(f"Source:\n{inspect.getsource(thing)}")  # type: ignore[arg-type]
    return "\n".join(lines)
