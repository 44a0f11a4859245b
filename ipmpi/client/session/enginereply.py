"""The reply of one engine to a command."""

from __future__ import annotations

from typing import NamedTuple

from ...protocol.deaths import Death
from ...protocol.frames import Buffer
from ...protocol.operations import Outcome
from ..display.blocks import Output
from .opening import EVERYTHING, Opener


class EngineReply(NamedTuple):
    """The reply of one engine, and its output. ``undone``: error name and text if the command will not run.

    ``death`` is what is known of the end of its process, if that is why. ``opener`` opens what is pickled in it.
    """

    engine: int
    ok: bool
    outcome: Outcome
    body: list[Buffer]
    undone: tuple[str, str] | None = None
    printed: Output = Output()
    death: Death | None = None
    opener: Opener = EVERYTHING


def undecodable(engine: int, error: Exception) -> tuple[str, str]:
    """Return name and text of the error for a reply that cannot be decoded."""
    text = (
        f"the reply of engine {engine} cannot be decoded ({error}): it runs another release of ipmpi, or is not "
        "an engine of ipmpi. Compare `ipengine --version` there with ipmpi.__version__"
    )
    return "RemoteProtocolError", text
