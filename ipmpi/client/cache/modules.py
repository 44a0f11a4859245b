"""What tells one state of a module from another: the version of what was installed, or the text of a user's file.

Files below ``site-packages`` do not change while their version stays. All other modules are taken to be the
user's, who edits them: their contents count, and those of other such modules that they refer to.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
import types
from pathlib import PurePath
from typing import Any, Final

from ... import __version__

_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})


class NoState(Exception):
    """Nothing tells one state of a module from another; the message is the rest of a sentence about it."""


def installed(name: str) -> str:
    """Return what an installed module is, with its version; "" for a module of the user.

    Args:
        name: of the module, with its packages.
    """
    top = name.partition(".")[0]
    if top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return f"python {name}"
    if top == "ipmpi":
        return f"ipmpi {__version__} {name}"
    file = _file(name) or _file(top)
    if not file or not _is_installed(file):
        return ""
    version = _version(top)
    return f"{top} {version} {name}" if version else ""


def has(module: str, name: str, value: object) -> bool:
    """Whether a loaded module has this value by this name.

    Others only say that they are the module's: :func:`functools.wraps` gives the user's function the name of the
    one inside, and classes that a library has made for the user may bear the library's name.
    """
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return getattr(found, "__func__", found) is value


def contents(name: str) -> bytes:
    """Return a digest of a module of the user, and of those that it refers to.

    Raises:
        NoState: it has no file.
    """
    found: dict[str, bytes] = {}
    missing = [name]
    while missing:
        each = missing.pop()
        if each in found:
            continue
        known = installed(each)
        if known:
            found[each] = known.encode()
            continue
        file = _file(each)
        if not file:
            if each == name:
                raise NoState("has no file, so that nothing tells whether it has changed")
            continue
        found[each] = _of_file(file)
        missing += _referred(sys.modules.get(each))
    whole = hashlib.blake2b(digest_size=16)
    for each in sorted(found):
        whole.update(b"%d %s %s" % (len(each), each.encode("utf-8", "backslashreplace"), found[each]))
    return whole.digest()


def _referred(module: types.ModuleType | None) -> set[str]:
    """The names of the modules whose contents, or parts of them, a loaded module has as globals."""
    names: set[Any] = set()
    for value in list(vars(module).values()) if module is not None else ():
        if isinstance(value, types.ModuleType):
            names.add(value.__name__)
        elif isinstance(value, (types.FunctionType, type)):
            names.add(value.__module__)
    return {name for name in names if isinstance(name, str) and name != "__main__"}


def _file(name: str) -> str:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None:
        with contextlib.suppress(ImportError, ValueError, AttributeError):
            spec = importlib.util.find_spec(name)
            file = None if spec is None or not spec.has_location else spec.origin
    return file if isinstance(file, str) else ""


@functools.lru_cache(maxsize=1024)
def _is_installed(file: str) -> bool:
    return not _INSTALLED.isdisjoint(PurePath(file).parts)


@functools.lru_cache(maxsize=1024)
def _version(top: str) -> str:
    version = getattr(sys.modules.get(top), "__version__", None)
    if isinstance(version, str):
        return version
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _of_file(file: str) -> bytes:
    try:
        status = os.stat(file)
        return _read(file, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise NoState(f"cannot be read from {file} ({error.strerror})") from None


@functools.lru_cache(maxsize=1024)
def _read(file: str, _changed: int, _size: int) -> bytes:
    with open(file, "rb") as opened:
        return hashlib.blake2b(opened.read(), digest_size=16).digest()
