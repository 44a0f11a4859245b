"""Restarts that clients ask for (no I/O).

The controller starts nothing itself. It tells engine sets to end, and whoever has started them, which is
``ipcluster`` or a job script, starts them again. The sets of one launch end together: a launcher that has ranks
left is not started again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ..errors import ClientError
from ..ids import Ids, IdSet
from ..protocol import messages as m
from ..ranges import engines_named
from .commands.router import Router
from .deadlines import Deadlines
from .farm.farm import Farm

REASON: Final = "it is restarted, as a client has asked for"
"""Why its commands do not end."""


class SetRestarts:
    """Ends launches that are started again.

    Args:
        router: the router.
        farm: the farm, whose tasks on these engines run again elsewhere.
        deadlines: knows whose job is about to end.
        log: called with each line for the log.
        changed: called when engines have ended; it announces that before the client has its answer.
    """

    def __init__(
        self,
        router: Router,
        farm: Farm,
        deadlines: Deadlines,
        log: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._router = router
        self._farm = farm
        self._deadlines = deadlines
        self._log = log
        self._changed = changed

    def restart(self, client: int, targets: Sequence[int] | None) -> Ids:
        """End the launches of these engines; return the ids of all engines that have ended.

        Raises:
            ClientError: nobody would start some of them again. Nothing has ended then.
        """
        registry = self._router.registry
        wanted = registry.by_set(registry.resolve(targets))
        self.refuse_started_by_hand(wanted)
        self._refuse([key for key in wanted if self._deadlines.is_ending(key)], _JOB_ENDS)
        launches = {registry.sets[key].launch for key in wanted}
        keys = [key for key, each in registry.sets.items() if each.launch in launches]
        ended = self.end(keys, REASON, m.EndSet("a client has asked for a restart", True))
        self._log(f"client {client} has {engines_named(ended)} restarted")
        return ended

    def end(self, keys: Iterable[int], reason: str, told: m.EndSet) -> Ids:
        """End these sets at once, and announce it; return the ids of their engines. Tasks are run again elsewhere.

        Args:
            keys: the sets.
            reason: why their engines are gone, for clients.
            told: what the sets are told.
        """
        ended = IdSet()
        for key in list(keys):
            self._farm.ranks_lost(key, self._router.registry.sets[key].ranks(), ordered=True)
            ended.add(self._router.set_lost(key, reason, told=told))
        self._changed()
        return ended.ids()

    def why_not(self, keys: Iterable[int]) -> str:
        """Return why these sets cannot be started again; "" if they can."""
        registry = self._router.registry
        if not all(registry.sets[key].launch for key in keys):
            return _BY_HAND
        return _JOB_ENDS if any(self._deadlines.is_ending(key) for key in keys) else ""

    def refuse_started_by_hand(self, keys: Iterable[int]) -> None:
        """Raise ClientError if nobody would start one of these sets again."""
        self._refuse([key for key in keys if not self._router.registry.sets[key].launch], _BY_HAND)

    def _refuse(self, keys: list[int], why: str) -> None:
        if keys:
            sets = [self._router.registry.sets[key] for key in keys]
            ids = IdSet(engine for each in sets for engine in each.ids()).ids()
            raise ClientError(f"{engines_named(ids)} {why}")


_BY_HAND = (
    "cannot be restarted, and nothing has ended: this set was started by hand, as with `mpirun ipengine`: nobody "
    "would start it again. To replace it, end it by mec.kill(), and type that command again. What `ipcluster` and "
    "its job scripts start can be restarted"
)
_JOB_ENDS = (
    "cannot be restarted, and nothing has ended: the batch system has warned that their job ends, and its script "
    "starts nothing any more"
)
