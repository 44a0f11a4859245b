"""The unpickler: names are looked up in tables, and all calls go through functions that check their arguments."""

from __future__ import annotations

import importlib
import io
import pickle
import struct
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

from ipmpi.errors import text_of

from .arrays import NUMPY, OBJECTS, Arrays
from .names import MAKERS, NAMED, OWN, set_state
from .refused import Refused, check_types

Buffer = bytes | bytearray | memoryview

_ANYTHING: Final = frozenset({
    "builtins", "os", "posix", "nt", "sys", "subprocess", "importlib", "runpy", "ctypes", "pickle", "cloudpickle",
    "dill", "marshal", "code", "codeop", "types", "functools", "operator", "copyreg", "shutil", "pty", "socket",
    "multiprocessing", "concurrent", "threading", "asyncio", "webbrowser", "timeit", "pdb", "ipmpi",
})  # fmt: skip
"""Modules by whose functions any code can be run."""


def allowed_names(allow: Iterable[object]) -> frozenset[str]:
    """Return the names of classes and modules: what ``allow=`` of a client says.

    Args:
        allow: classes, modules, or names of either as texts.

    Raises:
        TypeError: an item is something else, or ``allow`` is not a collection of them.
        ValueError: an item would allow to run any code.
    """
    if isinstance(allow, str) or not isinstance(allow, Iterable):
        raise TypeError(f"allow= takes a list of classes and modules, or their names: {allow!r:.80}")
    names = set()
    for each in allow:
        if isinstance(each, types.ModuleType):
            name = each.__name__
        elif isinstance(each, type):
            name = f"{each.__module__}.{each.__qualname__}"
        elif isinstance(each, str) and all(part.isidentifier() for part in each.split(".")):
            name = each
        else:
            raise TypeError(f"allow= takes classes and modules, or their names: {each!r:.80}")
        if "<" in name or name.startswith("__main__"):
            raise ValueError(
                f"allow={name}: a class of __main__, or inside a function, comes with its code, which would be "
                "run. Define it in a module that the engines import"
            )
        if name.partition(".")[0] in _ANYTHING:
            raise ValueError(f"allow={name} would let engines run any code here: unpickle='all' says so plainly")
        names.add(name)
    return frozenset(names)


def loads(segments: Sequence[Buffer], allowed: frozenset[str] = frozenset()) -> Any:
    """Return the object that :func:`ipmpi.serialize.dumps` took apart, if it is plain data.

    Args:
        segments: the pickle and its buffers.
        allowed: names of further classes, and of modules of which all classes and functions may be called; see
            :func:`allowed_names`.

    Raises:
        Refused: there is something else in it, or it is no pickle.
    """
    stream, *buffers = segments
    try:
        return _Unpickler(stream, buffers, allowed).load()
    except Refused:
        raise
    except Exception as error:  # whatever malformed input leads to
        raise Refused(f"a pickle that cannot be opened ({type(error).__name__}: {text_of(error)[:200]})") from None


def _is_within(name: str, allowed: frozenset[str]) -> bool:
    """Whether a name, or a module or class that it is in, is among those that are allowed."""
    while name:
        if name in allowed:
            return True
        name = name.rpartition(".")[0]
    return False


_OfPython: Final[Any] = pickle._Unpickler


class _Unpickler(_OfPython):  # type: ignore[misc]
    """Interprets one pickle."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_OfPython.dispatch)

    def __init__(self, stream: Buffer, buffers: Sequence[Buffer], allowed: frozenset[str]) -> None:
        self._stream = io.BytesIO(stream)
        self._size = memoryview(stream).nbytes
        super().__init__(self._stream, buffers=buffers)
        self._allowed = allowed
        self._found: dict[int, object] = {}
        """What this pickle has named of what the user has allowed, and of ipmpi's own records, by id."""
        self._arrays: Arrays | None = None

    # --- names -----------------------------------------------------------------------------------------------

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for; see :meth:`pickle.Unpickler.find_class`."""
        if type(module) is not str or type(name) is not str:
            raise Refused("a name that is not a text")
        if (module, name) in NUMPY:
            if self._arrays is None:
                self._arrays = Arrays(OBJECTS in self._allowed)
            return self._arrays.named(name)
        if (module, name) == ("ipmpi.serialize", "loads"):
            return self._nested
        known = NAMED.get((module, name))
        if known is not None:
            return known
        whole = f"{module}.{name}"
        if (module, name) in OWN:
            found = getattr(importlib.import_module(module), name)
        elif _is_within(whole, self._allowed):
            found = self._allowed_by_user(module, name)
        else:
            raise Refused(_shown(whole), whole)
        self._found[id(found)] = found
        return found

    def _allowed_by_user(self, module: str, name: str) -> Any:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
            # A module has names that it has imported from others, which nobody has allowed.
            own = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
            if not callable(found) or not _is_within(own, self._allowed):
                raise Refused(f"{_shown(f'{module}.{name}')}, which is {_shown(own)}", own)
        return found

    def _nested(self, segments: Any) -> Any:
        """What was several segments when it was sent, and one piece on its way."""
        check_types((list, tuple), segments)
        check_types((bytes, bytearray, memoryview), *segments)
        if not segments:
            raise Refused("nothing, in place of a pickle")
        return loads(segments, self._allowed)

    # --- calls -----------------------------------------------------------------------------------------------

    def _call(self, function: Any, args: Any) -> Any:
        check_types((tuple,), args)
        if id(function) in self._found:
            return function(*args)
        try:
            make = MAKERS.get(function)
        except TypeError:  # it is not hashable, so it is none of them
            make = None
        if make is not None:
            return make(*args)
        if function == self._nested:
            return self._nested(*args)
        if self._arrays is not None and self._arrays.has(function):
            return self._arrays.make(function, args)
        raise Refused(f"a call of {_shown(repr(function))}")

    def _reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def _new(self) -> None:
        args = self.stack.pop()
        self._made(self.stack.pop(), args, {})

    def _new_with_names(self) -> None:
        names = self.stack.pop()
        args = self.stack.pop()
        self._made(self.stack.pop(), args, names)

    def _made(self, kind: Any, args: Any, names: Any) -> None:
        check_types((tuple,), args)
        check_types((dict,), names)
        if id(kind) in self._found and isinstance(kind, type):
            self.append(kind.__new__(kind, *args, **names))
        elif names:
            raise Refused(f"a call of {_shown(repr(kind))} with names")
        else:
            self.append(self._call(kind, args))

    def _instantiate(self, klass: Any, args: Any) -> None:  # of the opcodes INST and OBJ, of old protocols
        self.append(self._call(klass, tuple(args)))

    # --- states ----------------------------------------------------------------------------------------------

    def _build(self) -> None:
        state = self.stack.pop()
        changed = self.stack[-1]
        kind = type(changed)
        if self._arrays is not None and kind is self._arrays.array:
            self._arrays.set_array(changed, state)
        elif self._arrays is not None and isinstance(changed, self._arrays.dtype):
            self._arrays.set_dtype(changed, state)
        elif isinstance(changed, BaseException) and kind in MAKERS:
            set_state(changed, state)
        elif id(kind) in self._found:
            self.stack.append(state)
            _load_build(self)
        else:
            raise Refused(f"a state of {_shown(kind.__qualname__)}")

    # --- what is never in a pickle of ours -------------------------------------------------------------------

    def persistent_load(self, pid: Any) -> Any:
        """Refuse an object that is somewhere else."""
        raise Refused(f"an object that is somewhere else ({_shown(repr(pid))})")

    def get_extension(self, code: int) -> None:
        """Refuse a number for a name."""
        raise Refused(f"a name by its number ({code})")

    def _bytearray(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        if size > self._size:  # else so much memory would be filled before anybody looks
            raise Refused("a bytearray that is larger than its pickle")
        data = bytearray(self.read(size))
        if len(data) != size:
            raise Refused("a bytearray that was cut off")
        self.append(data)

    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.NEWOBJ[0]] = _new
    dispatch[pickle.NEWOBJ_EX[0]] = _new_with_names
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.BYTEARRAY8[0]] = _bytearray


_load_build: Final[Callable[[Any], None]] = _OfPython.dispatch[pickle.BUILD[0]]


def _shown(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:97]}..."
