"""What can follow the text that a user has typed: names, attributes and keys, found without running user code."""

from __future__ import annotations

import builtins
import inspect
import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

MOST: Final = 500
"""Completions that are sent; nobody reads more."""

_LONGEST: Final = 500
"""Characters before the cursor that are looked at: the time that a search takes grows with their square."""

_DOTTED: Final = re.compile(r"(?<![\w.)\]}'\"])(?:(?P<object>[^\W\d]\w*(?:\.[^\W\d]\w*)*)\.)?(?P<start>\w*)$")
_KEY: Final = re.compile(r"(?P<object>[^\W\d]\w*(?:\.[^\W\d]\w*)*)\[(?P<quote>['\"])(?P<start>[^'\"\]]*)$")
MISSING: Final = object()
"""What :func:`resolved` returns for a name that is not there."""


def completions(text: str, names: Mapping[str, Any]) -> list[str]:
    """Return what the last word of ``text`` can become, sorted.

    ``np.lin`` gives ``np.linalg`` and others, ``table['te`` gives ``temperature``. Attributes are read as
    :func:`inspect.getattr_static` does, except those of modules: properties are not called.

    Args:
        text: the line up to the cursor.
        names: the namespace.
    """
    text = text[-_LONGEST:]
    key = _KEY.search(text)
    if key is not None:
        found = resolved(key["object"], names)
        return _starting(_keys(found), key["start"])
    word = _DOTTED.search(text)
    if word is None:
        return []
    if word["object"] is None:
        known = {*names, *vars(builtins), *keyword.kwlist}
        return _starting(known, word["start"]) if word["start"] else _starting(names, "")
    found = resolved(word["object"], names)
    attributes = () if found is MISSING else _directory(found)
    return [f"{word['object']}.{name}" for name in _starting(attributes, word["start"])]


def _starting(words: Iterable[object], start: str) -> list[str]:
    hidden = not start.startswith("_")
    found = {word for word in words if isinstance(word, str) and word.startswith(start)}
    return sorted(word for word in found if not (hidden and word.startswith("_")))[:MOST]


def resolved(dotted: str, names: Mapping[str, Any]) -> Any:
    """Return what a name with attributes stands for, or :data:`MISSING`, without running user code."""
    first, *rest = dotted.split(".")
    found = names.get(first, vars(builtins).get(first, MISSING))
    for name in rest:
        if found is MISSING:
            break
        found = _attribute(found, name)
    return found


def _attribute(owner: Any, name: str) -> Any:
    if inspect.ismodule(owner):
        return getattr(owner, name, MISSING)  # a lazy module loads it, as typing the line would
    found = inspect.getattr_static(owner, name, MISSING)
    return MISSING if hasattr(type(found), "__get__") and not callable(found) else found


def _directory(found: Any) -> list[str]:
    try:
        return list(dir(found))
    except Exception:  # __dir__ is user code
        return []


def _keys(found: Any) -> list[object]:
    try:
        if isinstance(found, dict):
            return list(found)
        keys = getattr(found, "_ipython_key_completions_", None)  # pandas, xarray, h5py
        return [] if keys is None else list(keys())
    except Exception:  # user code
        return []
