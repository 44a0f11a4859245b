"""An operation for engines, before it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...protocol.frames import Buffer
from ...protocol.operations import Operation


class Submission(NamedTuple):
    """An operation for engines (None: all), and how messages display it."""

    operation: Operation
    targets: list[int] | None
    method: str
    label: str
    body: Sequence[Buffer] = ()
    one_idle: bool = False
