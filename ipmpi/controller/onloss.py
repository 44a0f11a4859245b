"""What becomes of a launch that has lost an engine: ``on_loss`` (no I/O; the time is an argument).

With ``shrink`` nothing is done: the others go on, if their launcher lets them. With ``abort`` the others end, too;
with ``restart`` they end and are started again, and get the names of their last snapshot back.

Each set brings the choice with which it was started. What a client chooses later holds for the launch, and so for
the sets that are started in its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from .. import limits
from ..errors import ClientError
from ..protocol import messages as m
from ..protocol.losses import LOSS_MODES
from ..ranges import engines_named
from .commands.router import Router
from .lossnotices import Losses
from .registry import EngineSet
from .restarts import SetRestarts

MOST: Final = 3
WITHIN: Final = 600.0
"""Restarts after losses that a launch has within so many seconds; then it ends. As ``ipcluster --restarts``: where
engines die again and again, somebody has to look."""

_SHRINK: Final = "shrink"
_RESTORE: Final = "mec.restore() after the restart"
_WORDS: Final = ", ".join(map(repr, LOSS_MODES))

Launch = str | int
"""The name of a launch, or the key of a set that nobody starts again."""


class SetFates:
    """Decides about the launches whose engines are lost.

    Args:
        router: the router.
        losses: reports the losses themselves.
        restarts: ends launches.
        announce: called with a notice for all clients.

    Attributes:
        aborted: why the last launch was ended, "" if none was; for ``ipcluster``.
        restarted: why it was ended to be started again, as a clause; as well.
    """

    def __init__(
        self, router: Router, losses: Losses, restarts: SetRestarts, announce: Callable[[str], None]
    ) -> None:
        self._router = router
        self._registry = router.registry
        self._losses = losses
        self._restarts = restarts
        self._announce = announce
        self._chosen: dict[Launch, str] = {}
        self._snapshots: dict[Launch, dict[int, bytes]] = {}
        """The operation that restores the names of an engine, by its id."""
        self._to_restore: dict[Launch, dict[int, bytes]] = {}
        self._restarted: dict[Launch, deque[float]] = {}
        self.aborted = self.restarted = ""

    # --- clients -------------------------------------------------------------------------------------------

    def choose(self, message: m.OnLoss) -> list[tuple[int, str]]:
        """Set what becomes of the launches of these engines, if anything is given; return what is set, by engine.

        Raises:
            ClientError: there is no such choice for these, or nobody would start some of them again.
        """
        if message.mode and message.mode not in LOSS_MODES:
            raise ClientError(f"on_loss is one of {_WORDS}, not {message.mode[: limits.LABEL]!r}")
        ids = self._registry.resolve(message.targets)
        sets = [self._registry.sets[key] for key in self._registry.by_set(ids)]
        programs = sorted(number for number in ids if message.mode and self._set_of(number).program)
        if programs:
            are = "is a rank" if len(programs) == 1 else "are ranks"
            raise ClientError(
                f"{engines_named(programs)} {are} of a program that is steered, which ipmpi neither ends nor "
                "starts. on_loss is for engines: name those in targets"
            )
        if message.mode == "restart":
            self._restarts.refuse_started_by_hand([each.key for each in sets], "{} cannot have on_loss='restart'")
        if message.mode:
            self._chosen.update({_launch(each): message.mode for each in sets})
        return [(number, self._mode(self._set_of(number))) for number in ids]

    def _set_of(self, engine: int) -> EngineSet:
        return self._registry.sets[self._registry.engines[engine].set_key]

    def remember(self, message: m.RestoreAfterLoss) -> None:
        """These engines have a snapshot.

        Raises:
            ClientError: what restores it is too long to be kept.
        """
        if len(message.operation) > limits.RESTORE:
            raise ClientError(
                f"what restores a snapshot has at most {limits.RESTORE} bytes, not {len(message.operation)}: name "
                "a folder with a shorter path"
            )
        for number in message.targets:
            if number in self._registry.engines:
                self._snapshots.setdefault(_launch(self._set_of(number)), {})[number] = message.operation

    # --- engine sets -----------------------------------------------------------------------------------------

    def registered(self, key: int, ids: Sequence[int]) -> None:
        """A set has registered, perhaps in place of one that was restarted: have it restore its names."""
        launch = _launch(self._registry.sets[key])
        self.aborted = self.restarted = ""
        waiting = self._to_restore.get(launch, {})
        by_operation: dict[bytes, list[int]] = {}
        for number in ids:
            if number in waiting:
                by_operation.setdefault(waiting.pop(number), []).append(number)
        for operation, engines in by_operation.items():
            self._router.own.queue(key, engines, "restore", _RESTORE, operation)

    def ranks_lost(self, key: int, message: m.RanksLost, now: float, *, expected: bool) -> None:
        """Some engines of a set are lost; ``expected``: they were told to end, or their job has ended."""
        engine_set = self._registry.sets.get(key)
        before = () if engine_set is None else self._registry.of_ranks(key, message.ranks)
        reason, death = message.reason, message.death
        self._losses.ranks_lost(key, message.ranks, reason, now, expected=expected, death=death)
        if engine_set is not None and before and not expected:
            self._decide(engine_set, before, reason, now)

    def set_lost(self, key: int, reason: str, now: float, *, silent: bool, expected: bool) -> None:
        """All engines of a set are lost; ``silent``: its process ended without a message."""
        engine_set = self._registry.sets.get(key)
        before = () if engine_set is None else engine_set.ids()
        self._losses.set_lost(key, reason, now, silent=silent, expected=expected)
        if engine_set is not None and before and not expected:
            self._decide(engine_set, before, reason, now)
        self._chosen.pop(key, None)
        self._snapshots.pop(key, None)

    def _mode(self, engine_set: EngineSet) -> str:
        return self._chosen.get(_launch(engine_set)) or engine_set.on_loss

    def _decide(self, engine_set: EngineSet, lost: Sequence[int], reason: str, now: float) -> None:
        mode, launch = self._mode(engine_set), _launch(engine_set)
        if mode == _SHRINK:
            return
        what = f"{engines_named(lost)} {_were(lost)} lost: {reason}"
        left = [each for each in self._registry.sets.values() if _launch(each) == launch]
        others = [each.key for each in left]
        refused = self._restarts.why_not([engine_set, *left]) if mode == "restart" else ""
        if refused:
            self._announce(f"{what}. on_loss is 'restart', but {refused}")
        elif mode == "restart" and self._may_restart(launch, now):
            self._restart(launch, others, lost, what)
        else:
            vain = f"; {MOST} restarts within {WITHIN / 60:.0f} minutes were in vain" if mode == "restart" else ""
            self._abort(mode, others, f"{what}{vain}")

    def _may_restart(self, launch: Launch, now: float) -> bool:
        times = self._restarted.setdefault(launch, deque(maxlen=MOST))
        if len(times) == MOST and now - times[0] < WITHIN:
            return False
        times.append(now)
        return True

    def _restart(self, launch: Launch, others: list[int], lost: Sequence[int], what: str) -> None:
        self.restarted = f"{what} (on_loss='restart')"
        told = m.EndSet(self.restarted, True)
        ended = self._restarts.end(others, f"its set is restarted (on_loss='restart'), as {what}", told)
        saved = self._to_restore[launch] = dict(self._snapshots.get(launch, {}))
        names = (
            "the names of their last snapshot" if saved else "empty namespaces, as mec.snapshot() has saved none"
        )
        again = engines_named(sorted({*ended, *lost}))
        self._announce(f"{what}. on_loss='restart': {again} are restarted, with {names}")

    def _abort(self, mode: str, others: list[int], what: str) -> None:
        self.aborted = f"{what}. on_loss={mode!r}: all engines of that set have ended."
        told = m.EndSet(f"{what} (on_loss={mode!r})", False)
        ended = self._restarts.end(others, f"its set was ended (on_loss={mode!r}), as {what}", told)
        rest = f"{engines_named(sorted(ended))} {_were(ended)} ended, too" if ended else "nothing is started again"
        if ended or mode == "restart":
            self._announce(f"{what}. on_loss={mode!r}: {rest}")


def _were(engines: Sequence[int]) -> str:
    return "was" if len(engines) == 1 else "were"


def _launch(engine_set: EngineSet) -> Launch:
    return engine_set.launch or engine_set.key
