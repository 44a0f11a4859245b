"""What the agent of a program tells its ranks about ticks, and reads of them in shared memory."""

from __future__ import annotations

from ...protocol import rankmessages as rm
from ...protocol.inquiries import RankStep
from ..rank.controlblock import DUE, LABEL, PAUSED, STEP
from .localrank import LocalRank


def words(local: LocalRank) -> memoryview:
    """The words of its control block."""
    return local.announce()


def hold_at_tick(local: LocalRank, round_: int) -> int:
    """Tell a rank to hold at its next tick; return the first tick that it will certainly not pass.

    The packet is announced before the rank is looked at: see :mod:`ipmpi.engine.rank.controlblock`.
    """
    local.send(rm.HoldHere(round_))
    at = local.announce()[STEP]
    return int(at >> 1) + (not at & 1)


def stop_at_tick(local: LocalRank, round_: int, step: int) -> None:
    """Let a rank go on to this tick."""
    local.send(rm.StopAtStep(round_, step))
    local.announce()


def let_go(local: LocalRank, round_: int, resume: bool, why: str) -> None:
    """Let a rank go on with its program."""
    local.send(rm.LetGo(round_, resume, why))
    local.announce()


def at_step(local: LocalRank) -> RankStep:
    """Return where a rank is; an engine that has no loop is before the first tick."""
    words = local.announce()
    if not words[DUE]:
        return RankStep(-1, -1)
    at = words[STEP]
    return RankStep(at >> 1, (at >> 1) + words[LABEL], bool(at & 1), bool(words[PAUSED]))
