"""Ask a controller and its engines how they are, without waiting for those that are busy."""

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
"""Seconds between looks at who has answered: what an answer's time is known to."""


@dataclass(frozen=True)
class Health:
    """What was learnt.

    Attributes:
        registered: ids of all engines.
        engines: those that told about themselves.
        silent: the others, with what each runs ('' if not known).
        clock: the controller's; None if it tells none.
        version: its release; '' if it tells none.
    """

    registered: Sequence[int]
    engines: Sequence[EngineFacts]
    silent: Mapping[int, str] = field(default_factory=dict)
    clock: Clock | None = None
    version: str = ""


class ClientArguments(NamedTuple):
    """How a client comes to the controller: the arguments of MultiEngineClient. Words for it are in ``via``."""

    furl: str = ""
    ssh: str = ""
    proxy: str = ""
    via: str = ""


def check_health(way: ClientArguments, timeout: float, token_file: str) -> Health:
    """Connect, and wait ``timeout`` seconds at most for the engines.

    Raises:
        KernelError: the controller does not take this client.
    """
    with MultiEngineClient(way.furl, ssh=way.ssh or None, proxy=way.proxy or None) as mec:
        before = time.time()
        info = mec.cluster_info()
        after = time.time()
        registered = [int(engine["id"]) for engine in info["engines"]]
        engines = _engine_infos(mec, registered, timeout, token_file)
        answered = {engine.id for engine in engines}
        silent = _what_they_do(mec, [engine for engine in registered if engine not in answered])
    # An older controller tells neither.
    reading, version = info.get("time"), str(info.get("version", ""))
    clock = None if reading is None else Clock("the controller", before, float(reading), after)
    return Health(registered, engines, silent, clock, version)


def _engine_infos(
    mec: MultiEngineClient, ids: Sequence[int], timeout: float, token_file: str
) -> list[EngineFacts]:
    command = engine_info_command(token_file)
    before = time.time()
    # One command for each: one for all would be over when the last is.
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
        return ""  # the engine was lost, or interrupted by somebody: it told nothing


def _what_they_do(mec: MultiEngineClient, ids: Sequence[int]) -> dict[int, str]:
    silent = dict.fromkeys(ids, "")
    if not ids:
        return silent
    with contextlib.suppress(KernelError):  # one of them may be gone by now
        for engine, status in mec.queue_status(targets=list(ids), block=True):
            running = status["pending"]
            silent[engine] = "" if running == "None" or "ipcluster doctor" in running else running
    return silent
