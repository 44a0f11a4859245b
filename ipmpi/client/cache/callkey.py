"""The keys of calls: two calls with equal keys have the same result, as far as can be told from outside."""

from __future__ import annotations

import hashlib
import marshal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from ... import serialize
from ..session.functions import label_of
from .modules import NoState
from .values import NotComparable, Values

_FORMAT: Final = b"ipmpi call 1"
"""Another one for each change of what counts: no key of before is found any more."""

_Seen = dict[int, tuple[object, bytes]]
"""Objects and their digests, by id."""

SIZE: Final = 20
"""Bytes of a key."""


class CallKeys:
    """Makes the keys of calls of one function, as it is now.

    Not thread-safe. Mutable objects among the arguments count as they are when a key is made.

    Args:
        function: what is called.
        ranks: on how many ranks together.
        restricted: whether the results are opened as plain data only. They have keys of their own: whoever opens
            everything must not find what an engine has sent to somebody who did not trust it.

    Raises:
        TypeError: something that the function uses cannot be compared with that of another process.
    """

    def __init__(self, function: Callable[..., Any], ranks: int = 1, restricted: bool = False) -> None:
        self._label = label_of(function)
        try:
            of_function = Values().digest(function)
        except NotComparable as error:
            raise self._refusal(error, f"{' of '.join(error.path) or 'it'}") from None
        except NoState as error:
            raise TypeError(f"{self._begin()}: a module that it uses {error}; {_ADVICE}") from None
        python = f"{sys.implementation.cache_tag} {ranks}{' plain' if restricted else ''}"
        self._begins = hashlib.blake2b(_FORMAT + of_function + python.encode(), digest_size=SIZE).digest()

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> bytes:
        """Return the key of a call.

        Raises:
            TypeError: an argument cannot be compared with that of another process; the message names it.
        """
        if not kwargs and serialize.ATOMS.issuperset(map(type, args)):
            return hashlib.blake2b(self._begins + b"a" + marshal.dumps(args, 2), digest_size=SIZE).digest()
        return self._of_any(args, kwargs or {}, {})

    def of_rows(self, rows: Sequence[tuple[Any, ...]]) -> list[bytes]:
        """Return the keys of many calls. An object that several of them have as an argument is looked at once.

        Raises:
            TypeError: as :meth:`of`.
        """
        seen: _Seen = {}
        begins, atoms = self._begins + b"a", serialize.ATOMS
        blake2b, dumps = hashlib.blake2b, marshal.dumps
        return [
            blake2b(begins + dumps(row, 2), digest_size=SIZE).digest()
            if atoms.issuperset(map(type, row))
            else self._of_any(row, {}, seen)
            for row in rows
        ]

    def _of_any(self, args: tuple[Any, ...], kwargs: dict[str, Any], seen: _Seen) -> bytes:
        whole = hashlib.blake2b(self._begins, digest_size=SIZE)
        for number, value in enumerate(args):
            whole.update(b"v" + self._digest(seen, value, f"argument {number + 1}"))
        for name in sorted(kwargs):
            key = name.encode("utf-8", "backslashreplace")
            whole.update(b"k%d %b" % (len(key), key))
            whole.update(self._digest(seen, kwargs[name], f"argument {name!r}"))
        return whole.digest()

    def _digest(self, seen: _Seen, value: object, what: str) -> bytes:
        known = seen.get(id(value))
        if known is not None:
            return known[1]
        try:
            digest = Values().digest(value)
            seen[id(value)] = (value, digest)
            return digest
        except NotComparable as error:
            error.path.append(what)
            raise self._refusal(error, " of ".join(error.path)) from None
        except NoState as error:
            raise TypeError(f"{self._begin()}: a module that {what} uses {error}; {_ADVICE}") from None

    def _refusal(self, error: NotComparable, what: str) -> TypeError:
        return TypeError(f"{self._begin()}: {what} {error.reason}; {_ADVICE}")

    def _begin(self) -> str:
        return f"cache=True cannot tell whether two calls of {self._label} are equal"


_ADVICE: Final = "pass plain data in its place, or leave cache=True out"
