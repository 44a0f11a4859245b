"""What a session opens of the pickles that engines send: everything, or plain data only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, Protocol

from ... import serialize
from ...errors import SecurityError
from ...plaindata.arrays import OBJECTS
from ...plaindata.refused import Refused
from ...plaindata.unpickler import allowed_names, loads
from .given import shown

Unpickle = Literal["all", "safe"]


class Opener:
    """Opens pickles of engines; immutable, and may be used from any thread.

    Args:
        allowed: names of classes and modules that are opened besides plain data; None: everything is.
    """

    def __init__(self, allowed: frozenset[str] | None = None) -> None:
        self.allowed = allowed

    @property
    def is_open(self) -> bool:
        """Whether it opens everything."""
        return self.allowed is None

    def loads(self, segments: Sequence[serialize.Buffer], engine: int | None = None) -> Any:
        """Return the object in the segments of a pickle.

        Args:
            segments: see :func:`ipmpi.serialize.dumps`.
            engine: who sent it; None if that is not known.

        Raises:
            SecurityError: it is not plain data, and not allowed.
            Exception: whatever its unpickling raises, if everything is opened.
        """
        if self.allowed is None:
            return serialize.loads(segments)
        try:
            return loads(segments, self.allowed)
        except Refused as error:
            raise SecurityError(_refusal(error, engine)) from None


EVERYTHING: Final = Opener()


class _Session(Protocol):
    opener: Opener


def opener_of(unpickle: Unpickle, allow: Iterable[object]) -> Opener:
    """Return what the options ``unpickle`` and ``allow`` of a client mean.

    Raises:
        TypeError, ValueError: one is wrong, or they contradict each other.
    """
    if not isinstance(unpickle, str):
        raise TypeError(f"unpickle must be 'all' or 'safe': {shown(unpickle)}")
    if unpickle not in ("all", "safe"):
        raise ValueError(f"unpickle must be 'all' or 'safe': {shown(unpickle)}")
    names = allowed_names(allow)
    if unpickle == "safe":
        return Opener(names)
    if names:
        raise ValueError("allow= adds to unpickle='safe'; unpickle='all' opens everything")
    return EVERYTHING


def restrict(session: _Session, opener: Opener) -> None:
    """Have a session open no more than this; one that is restricted already stays so."""
    if not opener.is_open:
        session.opener = opener


def _refusal(error: Refused, engine: int | None) -> str:
    who = "an engine" if engine is None or engine < 0 else f"engine {engine}"
    begin = f"{who} sent {error}, and unpickle='safe' opens plain data only"
    name = error.name
    if name == OBJECTS:
        return f"{begin}: allow=[numpy.object_] allows such arrays, with plain data as elements"
    try:
        allowed_names([name])
    except (TypeError, ValueError):
        return f"{begin}. This can run any code here: find out who sends it before you use unpickle='all'"
    if name.startswith("__main__.") or "<" in name:
        return begin
    return f"{begin}: if you trust what it does, make the client with unpickle='safe', allow=[{name!r}]"
