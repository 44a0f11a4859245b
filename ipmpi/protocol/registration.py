"""Large sets of engines, which do not fit into one message (sans-IO)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from .. import limits
from ..errors import RemoteProtocolError
from .messages import EngineInfo, Register


def parts(message: Register) -> Iterator[Register]:
    """The messages that say together what ``message`` says; the last of them has the old ids."""
    engines = message.engines
    while len(engines) > limits.REGISTER_PART:
        yield Register(engines[: limits.REGISTER_PART], message.mpi, message.python, [], True)
        engines = engines[limits.REGISTER_PART :]
    yield msgspec.structs.replace(message, engines=engines, more=False)


class Registration:
    """What has come of the parts of one peer."""

    def __init__(self) -> None:
        self._engines: list[EngineInfo] = []

    def add(self, part: Register) -> Register | None:
        """The whole, when this is the last part of it.

        Raises:
            RemoteProtocolError: that are more engines than there may be.
        """
        self._engines += part.engines
        if len(self._engines) > limits.MAX_ENGINES:
            raise RemoteProtocolError(
                f"a set of more than {limits.MAX_ENGINES:,} engines: start several sets, with a controller each"
            )
        if part.more:
            return None
        engines, self._engines = self._engines, []
        return msgspec.structs.replace(part, engines=engines)
