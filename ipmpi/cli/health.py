"""Query a controller and its engines, without waiting for busy ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ..client import MultiEngineClient
from ..errors import CompositeError, KernelError
from ..launch.doctor.facts import Clock, EngineFacts
from ..launch.doctor.gather import engine_info_command, parse_engine_info

LOOK: Final = 0.02
"""Seconds between checks for replies: the resolution of their times."""


@dataclass(frozen=True)
class Health:
    """The replies.

    Attributes:
        registered: ids of all engines.
        engines: facts about those that have replied.
        silent: the others, with what each runs ('' if unknown).
        clock: the controller's; None if unknown.
        version: its release; '' if unknown.
    """

    registered: Sequence[int]
    engines: Sequence[EngineFacts]
    silent: Mapping[int, str] = field(default_factory=dict)
    clock: Clock | None = None
    version: str = ""


class ClientArguments(NamedTuple):
    """The arguments of MultiEngineClient; ``via`` describes the connection in messages."""

    furl: str = ""
    ssh: str = ""
    proxy: str = ""
    via: str = ""


def check_health(way: ClientArguments, timeout: float, token_file: str) -> Health:
    """Connect, and wait ``timeout`` seconds at most for the engines.

    Raises:
        KernelError: the client cannot connect.
    """
    with MultiEngineClient(way.furl, ssh=way.ssh or None, proxy=way.proxy or None) as mec:
        before = time.time()
        info = mec.cluster_info()
        after = time.time()
        registered = [int(engine["id"]) for engine in info["engines"]]
        engines = _engine_infos(mec, registered, timeout, token_file)
        answered = {engine.id for engine in engines}
        silent = _what_they_do(mec, [engine for engine in registered if engine not in answered])
    # An older controller sends neither.
    reading, version = info.get("time"), str(info.get("version", ""))
    clock = None if reading is None else Clock("the controller", before, float(reading), after)
    return Health(registered, engines, silent, clock, version)


def _engine_infos(
    mec: MultiEngineClient, ids: Sequence[int], timeout: float, token_file: str
) -> list[EngineFacts]:
    command = engine_info_command(token_file)
    before = time.time()
    # One command for each, since one for all would end with the last.
    waiting = {engine: mec.execute(command, targets=[engine], block=False) for engine in ids}
    found: list[EngineFacts] = []
    deadline = time.monotonic() + timeout
    while waiting and time.monotonic() < deadline:
        next(iter(waiting.values())).wait(LOOK)
        after = time.time()
        for engine in [engine for engine, pending in waiting.items() if pending.done()]:
            facts = parse_engine_info(engine, _printed(waiting.pop(engine)), before, after)
            found += [] if facts is None else [facts]
    return sorted(found, key=lambda facts: facts.id)


def _printed(pending: Any) -> str:
    try:
        return str(pending.get_result(timeout=0)[0].get("stdout", ""))
    except (CompositeError, KernelError, LookupError, AttributeError):
        return ""  # the engine was lost or interrupted


def _what_they_do(mec: MultiEngineClient, ids: Sequence[int]) -> dict[int, str]:
    silent = dict.fromkeys(ids, "")
    if not ids:
        return silent
    with contextlib.suppress(KernelError):  # one of them may be lost by now
        for engine, status in mec.queue_status(targets=list(ids), block=True):
            running = status["pending"]
            silent[engine] = "" if running == "None" or "ipcluster doctor" in running else running
    return silent
