"""What a controller knows of its engines and clients, asked for in pieces."""

from __future__ import annotations

import functools
from typing import Any

from ...protocol import messages
from .calls import Calls


def cluster_info(calls: Calls, client: object) -> dict[str, Any]:
    """Ask the controller; the result is that of ``MultiEngineClient.cluster_info``."""
    engines: list[dict[str, Any]] = []
    more, after = True, -1
    while more:
        answer: dict[str, Any] = calls.request(
            client, functools.partial(messages.ClusterInfo, after=after), dict, True, "cluster_info"
        )
        engines += answer["engines"]
        after = engines[-1]["id"] if engines else -1
        more = answer.pop("more", False)
    return {**answer, "engines": engines}
