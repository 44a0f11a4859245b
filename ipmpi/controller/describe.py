"""Descriptions of the engines for clients, in pieces that fit into messages (no I/O)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from .. import __version__, limits
from .deadlines import Deadlines
from .registry import Registry

_PIECE = limits.MESSAGE // 2
"""Approximate bytes of one piece, without the rest of the reply."""

_ROW = 128
"""Bytes of the description of one engine, without its texts."""


def cluster_described(
    engines: list[dict[str, Any]], more: bool, roles: Iterable[str], started: float
) -> dict[str, Any]:
    """Return the reply to :class:`~ipmpi.protocol.messages.ClusterInfo`.

    Args:
        engines: those that :func:`described` has returned.
        more: whether there are more.
        roles: of all sessions.
        started: when the controller was started.
    """
    clients, clock = [role for role in roles if role != "engine"], time.time()
    info = {"engines": engines, "clients": clients, "time": clock, "version": __version__, "more": more}
    return {**info, "up": clock - started}


def described(
    registry: Registry, deadlines: Deadlines, after: int, now: float, only: frozenset[int] | None = None
) -> tuple[list[dict[str, Any]], bool]:
    """Return the engines with ids above ``after``, as many as fit into a message, and whether there are more.

    ``only`` are the engines that the client may see, None for all.
    """
    engines: list[dict[str, Any]] = []
    size = 0
    for key, rows in registry.columns(after):
        engine_set = registry.sets[key]
        mpi, python, program = engine_set.mpi, engine_set.python, engine_set.program
        job, left = deadlines.job(key), deadlines.left(key, now)
        usual = _ROW + sum(len(text.encode("utf-8", "replace")) for text in (mpi, python, program, job))
        sizes: dict[str, int] = {}
        for number, rank, pid, host in rows:
            if only is not None and number not in only:
                continue
            if size > _PIECE:
                return engines, True
            engines.append({
                "id": number, "rank": rank, "pid": pid, "set": key, "time_left": left, "host": host, "mpi": mpi,
                "python": python, "job": job, "program": program,
            })  # fmt: skip
            if host not in sizes:
                sizes[host] = usual + len(host.encode("utf-8", "replace"))
            size += sizes[host]
    return engines, False
