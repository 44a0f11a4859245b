"""The engine sets of the farm, and the requirements of tasks (no I/O).

An *incarnation* is one engine from its registration to its end. Engine ids are reused, numbers of incarnations are
not.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ... import limits
from ...protocol import messages as m
from ..effects import Effect, Send
from ..registry import EngineSet

TAKE_BACK_INTERVAL = 0.05
"""Seconds between two requests to one set to return tasks, enough for the reply to the first."""

LOOK_INTERVAL = 0.01
"""Seconds between two checks for sets with surplus tasks."""


class Incarnation(NamedTuple):
    """One engine: its unique number, set, rank, id and location."""

    number: int
    key: int
    rank: int
    id: int
    host: str
    text: str


class Condition:
    """A condition of groups of tasks, and the engines' answers, by number of incarnation.

    ``needs`` are the requirements of waiting tasks with this condition, ``groups`` counts its groups.
    """

    __slots__ = ("groups", "needs", "refused")

    def __init__(self) -> None:
        self.refused: set[int] = set()
        self.needs: set[Need] = set()
        self.groups = 0


class SetState:
    """An engine set.

    Attributes:
        incarnations: its engines, by rank; ``former`` also has lost ones.
        window: how many tasks it may have at a time, ``unanswered`` how many it has; ``coming`` of these have been
            run, and their large results are being forwarded.
        movable: how many of these any other set could run as well.
        given: how many it has of each group, by serial.
        functions: keys of the functions that it has.
        reserved: ranks that start no more tasks.
        explained: whether the set has reported a lost rank, so that its own loss is no sign against its tasks.
        doomed: ranks that a client has ended: their tasks are not suspected.
        told: ranks that were told to end, by a signal.
        exclusive: whether it has a task that must run alone in the set.
        ends_at: when its job ends, and ``left`` the seconds until then; infinite if unknown.
    """

    def __init__(self, key: int, incarnations: Mapping[int, Incarnation]) -> None:
        self.key = key
        self.incarnations = dict(incarnations)
        self.former = dict(incarnations)
        self.window = 0
        self.unanswered = 0
        self.coming = 0
        self.movable = 0
        self.given: dict[int, int] = {}
        self.functions: set[bytes] = set()
        self.reserved: set[int] = set()
        self.explained = False
        self.doomed: set[int] = set()
        self.told: set[int] = set()
        self.exclusive = False
        self.take_back_at = 0.0
        self.ends_at = self.left = math.inf

    @property
    def in_hand(self) -> int:
        """Number of tasks that wait or run there."""
        return max(0, self.unanswered - self.coming)

    @property
    def usable(self) -> int:
        """Number of engines that may start tasks."""
        return len(self.incarnations) - len(self.reserved)

    @property
    def free(self) -> int:
        """How many more tasks the set may get."""
        if self.exclusive:
            return 0
        return max(0, self.window - self.in_hand) if len(self.incarnations) > len(self.reserved) else 0

    @property
    def idle(self) -> int:
        """Estimated number of engines without a task."""
        return max(0, min(self.usable, self.window) - self.in_hand)

    @property
    def surplus(self) -> int:
        """Number of tasks that wait there and could run elsewhere."""
        return max(0, min(self.in_hand - self.usable, self.movable))

    @property
    def is_single(self) -> bool:
        """Whether it has only one engine, whose loss is the loss of the set."""
        return len(self.incarnations) == 1

    def most_on_a_node(self, ranks: Iterable[int]) -> int:
        """Return the largest number of these ranks on one host."""
        return max(Counter(self.incarnations[rank].host for rank in ranks).values(), default=0)


class Need(NamedTuple):
    """The requirements of waiting tasks.

    ``width`` ranks together, on one node if ``same_node``; the engine of ``incarnation`` unless that is 0; no rank
    that refused ``condition``, none of the ``barred``, and if there is ``only``, an engine with one of these ids.
    ``alone``: no other task on its rank; ``sole``: none in its set. A task does not start if less than
    ``expected`` seconds are left.
    """

    width: int = 1
    same_node: bool = False
    incarnation: int = 0
    condition: Condition | None = None
    barred: frozenset[int] = frozenset()
    alone: bool = False
    expected: float = 0.0
    sole: bool = False
    only: frozenset[int] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether any engine can run it."""
        may_be_anywhere = self.condition is None and not self.barred and self.only is None
        return self.width == 1 and not self.incarnation and may_be_anywhere

    def ranks(self, set_state: SetState) -> list[int] | None:
        """Return the ranks of a set that may run it, [] for all; None if there are not enough."""
        refused = self.condition.refused if self.condition is not None else ()
        if not self.incarnation and not refused and not self.barred and self.only is None:
            allowed: list[int] = []
            enough = len(set_state.incarnations) >= self.width
        else:
            allowed = [
                rank
                for rank, incarnation in set_state.incarnations.items()
                if incarnation.number not in refused
                and incarnation.number not in self.barred
                and self.incarnation in (0, incarnation.number)
                and (self.only is None or incarnation.id in self.only)
            ]
            enough = len(allowed) >= self.width
        if enough and self.same_node:
            enough = set_state.most_on_a_node(allowed or set_state.incarnations) >= self.width
        return allowed if enough else None

    def ranks_now(self, set_state: SetState) -> list[int] | None:
        """As :meth:`ranks`, but None also if too many are reserved now, or the job ends too soon."""
        if self.expected > set_state.left:
            return None
        ranks = self.ranks(set_state)
        if ranks is not None and set_state.reserved:
            free = [rank for rank in ranks or set_state.incarnations if rank not in set_state.reserved]
            if len(free) < self.width or (self.same_node and set_state.most_on_a_node(free) < self.width):
                return None
        return ranks


def rounded_up(expected: float | None) -> float:
    """Round up an expected run time, by at most 1/32, since each distinct value has a queue of its own."""
    if not expected:
        return 0.0
    mantissa, exponent = math.frexp(min(max(1.0, expected), limits.LONGEST))
    return math.ldexp(math.ceil(mantissa * 64) / 64, exponent)


class Verdict(enum.Enum):
    """Whether waiting tasks with a need can be run."""

    OPEN = enum.auto()
    """They wait for room."""
    PARK = enum.auto()
    """No registered engine would run them."""
    REJECTED = enum.auto()
    """All engines have rejected them."""
    GONE = enum.auto()
    """The engine that they have to run on is lost."""


def sentence(verdict: Verdict, need: Need, label: str, last_refusal: str) -> tuple[str, str]:
    """Return name and text of the error of tasks that no engine will run."""
    if verdict is Verdict.GONE:
        return "DependencyError", f"{label} was not run: the engine on which it had to run is lost"
    if verdict is Verdict.REJECTED:
        text = f"{label} was rejected by all engines on which it could run"
        return "TaskRejectError", text + (f": {last_refusal}" if last_refusal else "")
    text = f"task {label} failed to execute due to unmet dependencies for {limits.UNSCHEDULABLE_AFTER:.0f} seconds"
    if need.width > 1:
        where = " of one node" if need.same_node else ""
        text += f": it needs {need.width} ranks{where} of one engine set that would run it"
    return "TaskTimeout", text


class SetStates:
    """All engine sets, which of them accept tasks, and the reservations."""

    def __init__(self) -> None:
        self.by_key: dict[int, SetState] = {}
        self.incarnations: dict[int, Incarnation] = {}
        self.open: dict[int, SetState] = {}
        """Sets that accept more tasks; the one that got some last comes last."""
        self._numbers = itertools.count(1)
        self._look_at = 0.0
        self._reserved: Counter[int] = Counter()
        self._by_client: dict[int, Counter[int]] = {}
        self.on_reserved: Callable[[int], object] = lambda client: None
        """Called with each client whose reservations have changed."""
        self._ending: dict[int, SetState] = {}
        self._expected: Counter[float] = Counter()

    # --- engines -------------------------------------------------------------------------------------------

    def register(self, engine_set: EngineSet) -> SetState:
        """Add a set; it accepts no tasks until it reports a window."""
        incarnations = {}
        for rank, engine in engine_set.engines.items():
            text = f"engine {engine.id} (rank {rank}, pid {engine.pid} on {engine.host})"
            incarnations[rank] = Incarnation(
                next(self._numbers), engine_set.key, rank, engine.id, engine.host, text
            )
            self.incarnations[incarnations[rank].number] = incarnations[rank]
        set_state = self.by_key[engine_set.key] = SetState(engine_set.key, incarnations)
        return set_state

    def remove_ranks(self, set_state: SetState, ranks: Iterable[int], reason: str = "") -> None:
        """Remove lost engines; ``reason`` is told of those that were the last that had a task."""
        for rank in ranks:
            incarnation = set_state.incarnations.pop(rank, None)
            if incarnation is not None:
                del self.incarnations[incarnation.number]
                if reason:
                    set_state.former[rank] = incarnation._replace(text=f"{incarnation.text}: {reason}")
                set_state.reserved.discard(rank)
                if self._reserved.pop(incarnation.number, 0):
                    self._reserved_is_lost(incarnation.number)
        self.update(set_state)

    def _reserved_is_lost(self, number: int) -> None:
        for client, theirs in self._by_client.items():
            if theirs.pop(number, 0):
                self.on_reserved(client)

    def remove(self, set_state: SetState) -> None:
        """Remove a lost set."""
        self.remove_ranks(set_state, list(set_state.incarnations))
        self.by_key.pop(set_state.key, None)
        self._ending.pop(set_state.key, None)
        self.open.pop(set_state.key, None)

    def update(self, set_state: SetState) -> None:
        """Update whether a set accepts tasks; call it after changes."""
        if not set_state.free:
            self.open.pop(set_state.key, None)
        elif set_state.key in self.by_key:
            self.open.setdefault(set_state.key, set_state)

    def evaluate(self, need: Need) -> Verdict:
        """Return whether registered engines can run tasks with this need."""
        if need.incarnation and need.incarnation not in self.incarnations:
            return Verdict.GONE
        places = self.by_key.values()
        # Without any engine all tasks wait.
        if (
            need.is_plain
            or not self.incarnations
            or any(need.ranks(set_state) is not None for set_state in places)
        ):
            return Verdict.OPEN
        if need.barred:
            anyone = need._replace(condition=None, barred=frozenset())
            others = need._replace(condition=None)
            possible = [set_state for set_state in places if anyone.ranks(set_state) is not None]
            if possible and all(others.ranks(set_state) is None for set_state in possible):
                return Verdict.REJECTED
        return Verdict.PARK

    # --- the end of jobs -----------------------------------------------------------------------------------

    def ends(self, set_state: SetState, ends_at: float | None) -> None:
        """Set the end of a set's job."""
        set_state.ends_at = set_state.left = math.inf if ends_at is None else ends_at
        self._ending[set_state.key] = set_state

    def time_is(self, now: float) -> None:
        """Update the time left, if tasks depend on it; call it before tasks are given."""
        for set_state in self._ending.values() if self._expected else ():
            set_state.left = max(0.0, set_state.ends_at - now)

    def group_opened(self, expected: float | None) -> None:
        """A group with an expected run time was added."""
        if expected is not None:
            self._expected[rounded_up(expected)] += 1

    def group_closed(self, expected: float | None) -> None:
        """A group with an expected run time has ended."""
        if expected is not None:
            seconds = rounded_up(expected)
            self._expected[seconds] -= 1
            if not self._expected[seconds]:
                del self._expected[seconds]

    @property
    def longest_left(self) -> float:
        """The most seconds that any set has left; infinite if there is no set."""
        if not self._ending or not self._expected:
            return math.inf
        return max((set_state.left for set_state in self.by_key.values()), default=math.inf)

    def _could_take(self, set_state: SetState) -> bool:
        """Return whether a set is idle, and has the time for tasks of others."""
        return set_state.idle > 0 and (
            set_state.left == math.inf or set_state.left >= max(self._expected, default=0.0)
        )

    # --- balance -------------------------------------------------------------------------------------------

    def look_for_surplus(self, now: float) -> tuple[list[Effect], float | None]:
        """Ask sets that have more tasks than engines to return some, if another set is idle.

        Call it after all waiting tasks were given. Returns the effects, and when to call it again.
        """
        if len(self.by_key) < 2 or not any(map(self._could_take, self.open.values())):
            return [], None
        rich = [set_state for set_state in self.by_key.values() if set_state.surplus]
        if not rich:
            return [], None
        if now < self._look_at:
            return [], self._look_at
        self._look_at = now + LOOK_INTERVAL
        effects: list[Effect] = []
        for set_state in rich:
            if now >= set_state.take_back_at:
                set_state.take_back_at = now + TAKE_BACK_INTERVAL
                effects.append(Send(set_state.key, m.TakeBackTasks((set_state.surplus + 1) // 2)))
        return effects, min(set_state.take_back_at for set_state in rich)

    # --- reservations ----------------------------------------------------------------------------------------

    def reserve(self, client: int, incarnations: Iterable[Incarnation]) -> list[Effect]:
        """Start no more tasks on these engines."""
        mine = self._by_client.setdefault(client, Counter())
        self.on_reserved(client)
        turned = []
        for incarnation in incarnations:
            mine[incarnation.number] += 1
            self._reserved[incarnation.number] += 1
            if self._reserved[incarnation.number] == 1:
                turned.append(incarnation)
        return self._turn(turned, True)

    def release(self, client: int, incarnations: Iterable[Incarnation]) -> list[Effect]:
        """End a client's reservation of these engines; ignores engines that it has not reserved."""
        mine = self._by_client.get(client, Counter())
        self.on_reserved(client)
        turned = []
        for incarnation in incarnations:
            if mine[incarnation.number] > 0:
                mine[incarnation.number] -= 1
                self._reserved[incarnation.number] -= 1
                if self._reserved[incarnation.number] == 0:
                    turned.append(incarnation)
        return self._turn(turned, False)

    def client_lost(self, client: int) -> list[Effect]:
        """End all reservations of a client."""
        effects = self.release(client, self.reserved_by(client))
        self._by_client.pop(client, None)
        return effects

    def reserved_by(self, client: int) -> list[Incarnation]:
        """Return the engines that a client has reserved, each as often as it has done so."""
        mine = self._by_client.get(client, Counter())
        return [self.incarnations[number] for number in mine.elements() if number in self.incarnations]

    def _turn(self, incarnations: list[Incarnation], on: bool) -> list[Effect]:
        by_set: dict[int, list[int]] = {}
        for incarnation in incarnations:
            by_set.setdefault(incarnation.key, []).append(incarnation.rank)
        effects: list[Effect] = []
        for key, ranks in by_set.items():
            set_state = self.by_key[key]
            (set_state.reserved.update if on else set_state.reserved.difference_update)(ranks)
            self.update(set_state)
            effects.append(Send(key, m.ReserveRanks(ranks, on)))
            if not set_state.usable and set_state.movable:
                # Waiting tasks are returned for other sets; running ones continue.
                effects.append(Send(key, m.TakeBackTasks(set_state.movable)))
        return effects
