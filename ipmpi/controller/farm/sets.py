"""Where tasks can run: engine sets as the farm sees them, and what tasks need of them (no I/O).

An *incarnation* is one engine from its registration to its end. Ids are used again, their numbers are not, so that
what is remembered of an engine is never taken for another one.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ... import limits
from ...protocol import messages as m
from ..effects import Effect, Send
from ..registry import EngineSet

TAKE_BACK_INTERVAL = 0.05
"""Seconds between two requests to one set to return tasks: the first has been answered by then."""

LOOK_INTERVAL = 0.01
"""Seconds between two looks for sets that could spare tasks."""


class Incarnation(NamedTuple):
    """One engine: its number among all there ever were, its set and rank, its id, and where it is."""

    number: int
    key: int
    rank: int
    id: int
    host: str
    text: str


class Condition:
    """Under which groups of tasks may run: what the engines said about it, by their incarnations' numbers.

    ``needs`` are those of waiting tasks that it is a part of, ``groups`` counts its groups.
    """

    __slots__ = ("groups", "needs", "refused")

    def __init__(self) -> None:
        self.refused: set[int] = set()
        self.needs: set[Need] = set()
        self.groups = 0


class SetState:
    """An engine set.

    Attributes:
        incarnations: of its engines, by rank; ``former`` also has those that are gone.
        window: how many tasks it wants to have at a time, ``unanswered`` how many it has; ``coming`` of these have
            been run, and their large results are on the way.
        movable: how many of these any other set could run as well.
        given: how many it has of each group, by serial.
        functions: keys of those it knows.
        reserved: ranks that start no more tasks.
        explained: whether the set told of a lost rank, so that its own loss is no sign against its tasks.
        doomed: ranks that a client has ended: what they had is not to blame.
        told: ranks that were told to end, by a signal.
        exclusive: whether it has a task that is to be alone there.
        ends_at: when its job ends, and ``left`` the seconds until then; infinite if that is not known.
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
        """Tasks that wait or run there."""
        return max(0, self.unanswered - self.coming)

    @property
    def usable(self) -> int:
        """Engines that may start tasks."""
        return len(self.incarnations) - len(self.reserved)

    @property
    def free(self) -> int:
        """How many more tasks the set wants."""
        if self.exclusive:
            return 0
        return max(0, self.window - self.in_hand) if len(self.incarnations) > len(self.reserved) else 0

    @property
    def idle(self) -> int:
        """Engines that have no task, as far as can be told."""
        return max(0, min(self.usable, self.window) - self.in_hand)

    @property
    def surplus(self) -> int:
        """Tasks that wait there and could run elsewhere."""
        return max(0, min(self.in_hand - self.usable, self.movable))

    @property
    def is_single(self) -> bool:
        """Whether its loss is the loss of one engine, and nobody is left to say what that had."""
        return len(self.incarnations) == 1

    def most_on_a_node(self, ranks: Iterable[int]) -> int:
        """How many of these ranks share a host."""
        return max(Counter(self.incarnations[rank].host for rank in ranks).values(), default=0)


class Need(NamedTuple):
    """What waiting tasks ask of the ranks they are given to.

    ``width`` ranks together, on one node if ``same_node``; the engine of ``incarnation`` unless that is 0; none
    that refused ``condition``, and none of the ``barred``. If ``alone``, a rank has nothing else beside it; if
    ``sole``, its whole set has not. Where less than ``expected`` seconds are left they are not begun.
    """

    width: int = 1
    same_node: bool = False
    incarnation: int = 0
    condition: Condition | None = None
    barred: frozenset[int] = frozenset()
    alone: bool = False
    expected: float = 0.0
    sole: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether any engine will do."""
        return self.width == 1 and not self.incarnation and self.condition is None and not self.barred

    def ranks(self, place: SetState) -> list[int] | None:
        """The ranks of a set that may run it, [] for all; None if that are not enough."""
        refused = self.condition.refused if self.condition is not None else ()
        if not self.incarnation and not refused and not self.barred:
            allowed: list[int] = []
            enough = len(place.incarnations) >= self.width
        else:
            allowed = [
                rank
                for rank, incarnation in place.incarnations.items()
                if incarnation.number not in refused
                and incarnation.number not in self.barred
                and self.incarnation in (0, incarnation.number)
            ]
            enough = len(allowed) >= self.width
        if enough and self.same_node:
            enough = place.most_on_a_node(allowed or place.incarnations) >= self.width
        return allowed if enough else None

    def ranks_now(self, place: SetState) -> list[int] | None:
        """The same, but None also if too many are reserved at the moment, or the job ends too soon."""
        if self.expected > place.left:
            return None
        ranks = self.ranks(place)
        if ranks is not None and place.reserved:
            free = [rank for rank in ranks or place.incarnations if rank not in place.reserved]
            if len(free) < self.width or (self.same_node and place.most_on_a_node(free) < self.width):
                return None
        return ranks


def rounded_up(expected: float | None) -> float:
    """Seconds that tasks take, as one of few numbers, since each makes a queue of its own; at most 1/32 more."""
    if not expected:
        return 0.0
    mantissa, exponent = math.frexp(min(max(1.0, expected), limits.LONGEST))
    return math.ldexp(math.ceil(mantissa * 64) / 64, exponent)


class Verdict(enum.Enum):
    """What is to become of waiting tasks with a need."""

    OPEN = enum.auto()
    """They wait for room."""
    PARK = enum.auto()
    """No engine that is there would run them."""
    REJECTED = enum.auto()
    """All engines have rejected them."""
    GONE = enum.auto()
    """The engine that they have to run on is gone."""


def sentence(verdict: Verdict, need: Need, label: str, last_refusal: str) -> tuple[str, str]:
    """The name of the error with which tasks end that nobody will run, and its text."""
    if verdict is Verdict.GONE:
        return "DependencyError", f"{label} was not run: the engine on which it had to run is gone"
    if verdict is Verdict.REJECTED:
        text = f"{label} was rejected by all engines on which it could run"
        return "TaskRejectError", text + (f": {last_refusal}" if last_refusal else "")
    text = f"task {label} failed to execute due to unmet dependencies for {limits.UNSCHEDULABLE_AFTER:.0f} seconds"
    if need.width > 1:
        where = " of one node" if need.same_node else ""
        text += f": it needs {need.width} ranks{where} of one engine set that would run it"
    return "TaskTimeout", text


class SetStates:
    """All engine sets, which of them want tasks, and who has reserved engines."""

    def __init__(self) -> None:
        self.by_key: dict[int, SetState] = {}
        self.incarnations: dict[int, Incarnation] = {}
        self.open: dict[int, SetState] = {}
        """Sets that want more tasks; whoever got some last comes last."""
        self._numbers = itertools.count(1)
        self._look_at = 0.0
        self._reserved: Counter[int] = Counter()
        self._by_client: dict[int, Counter[int]] = {}
        self._ending: dict[int, SetState] = {}
        self._expected: Counter[float] = Counter()

    # --- engines -------------------------------------------------------------------------------------------

    def register(self, engine_set: EngineSet) -> SetState:
        """A set is there; it wants no tasks before it says so."""
        incarnations = {}
        for rank, engine in engine_set.engines.items():
            text = f"engine {engine.id} (rank {rank}, pid {engine.pid} on {engine.host})"
            incarnations[rank] = Incarnation(
                next(self._numbers), engine_set.key, rank, engine.id, engine.host, text
            )
            self.incarnations[incarnations[rank].number] = incarnations[rank]
        place = self.by_key[engine_set.key] = SetState(engine_set.key, incarnations)
        return place

    def remove_ranks(self, place: SetState, ranks: Iterable[int]) -> None:
        """Engines are gone."""
        for rank in ranks:
            incarnation = place.incarnations.pop(rank, None)
            if incarnation is not None:
                del self.incarnations[incarnation.number]
                place.reserved.discard(rank)
                self._reserved.pop(incarnation.number, None)
        self.update(place)

    def remove(self, place: SetState) -> None:
        """A set is gone."""
        self.remove_ranks(place, list(place.incarnations))
        self.by_key.pop(place.key, None)
        self._ending.pop(place.key, None)
        self.open.pop(place.key, None)

    def update(self, place: SetState) -> None:
        """Something has changed that decides whether a set wants tasks."""
        if not place.free:
            self.open.pop(place.key, None)
        elif place.key in self.by_key:
            self.open.setdefault(place.key, place)

    def judge(self, need: Need) -> Verdict:
        """Whether tasks with this need can run on engines that are there."""
        if need.incarnation and need.incarnation not in self.incarnations:
            return Verdict.GONE
        places = self.by_key.values()
        # Without any engine everything waits: some will come.
        if need.is_plain or not self.incarnations or any(need.ranks(place) is not None for place in places):
            return Verdict.OPEN
        if need.barred:
            anyone = Need(need.width, need.same_node, need.incarnation)
            others = Need(need.width, need.same_node, need.incarnation, None, need.barred)
            possible = [place for place in places if anyone.ranks(place) is not None]
            if possible and all(others.ranks(place) is None for place in possible):
                return Verdict.REJECTED
        return Verdict.PARK

    # --- the end of jobs -----------------------------------------------------------------------------------

    def ends(self, place: SetState, ends_at: float | None) -> None:
        """The job of a set ends at that time."""
        place.ends_at = place.left = math.inf if ends_at is None else ends_at
        self._ending[place.key] = place

    def time_is(self, now: float) -> None:
        """Find out how much time is left, if tasks ask for it; to be called before they are given."""
        for place in self._ending.values() if self._expected else ():
            place.left = max(0.0, place.ends_at - now)

    def group_opened(self, expected: float | None) -> None:
        """Tasks came that take so long."""
        if expected is not None:
            self._expected[rounded_up(expected)] += 1

    def group_closed(self, expected: float | None) -> None:
        """Nothing is left of them."""
        if expected is not None:
            seconds = rounded_up(expected)
            self._expected[seconds] -= 1
            if not self._expected[seconds]:
                del self._expected[seconds]

    @property
    def longest_left(self) -> float:
        """The most seconds that any set has left; infinite if there is none."""
        if not self._ending or not self._expected:
            return math.inf
        return max((place.left for place in self.by_key.values()), default=math.inf)

    def _could_take(self, place: SetState) -> bool:
        """Whether a set is idle, and has the time for what others may have."""
        return place.idle > 0 and (place.left == math.inf or place.left >= max(self._expected, default=0.0))

    # --- balance -------------------------------------------------------------------------------------------

    def look_for_surplus(self, now: float) -> tuple[list[Effect], float | None]:
        """Ask sets that have more than their engines can run for tasks back, if another set has nothing to do.

        To be called when all that could be given was given. Returns what to send, and when to look again.
        """
        if len(self.by_key) < 2 or not any(map(self._could_take, self.open.values())):
            return [], None
        rich = [place for place in self.by_key.values() if place.surplus]
        if not rich:
            return [], None
        if now < self._look_at:
            return [], self._look_at
        self._look_at = now + LOOK_INTERVAL
        effects: list[Effect] = []
        for place in rich:
            if now >= place.take_back_at:
                place.take_back_at = now + TAKE_BACK_INTERVAL
                effects.append(Send(place.key, m.TakeBackTasks((place.surplus + 1) // 2)))
        return effects, min(place.take_back_at for place in rich)

    # --- reservations ----------------------------------------------------------------------------------------

    def reserve(self, client: int, incarnations: Iterable[Incarnation]) -> list[Effect]:
        """Start no more tasks on these engines."""
        mine = self._by_client.setdefault(client, Counter())
        turned = []
        for incarnation in incarnations:
            mine[incarnation.number] += 1
            self._reserved[incarnation.number] += 1
            if self._reserved[incarnation.number] == 1:
                turned.append(incarnation)
        return self._turn(turned, True)

    def release(self, client: int, incarnations: Iterable[Incarnation]) -> list[Effect]:
        """The end of one reservation of these engines; of engines that the client has not reserved, nothing."""
        mine = self._by_client.get(client, Counter())
        turned = []
        for incarnation in incarnations:
            if mine[incarnation.number] > 0:
                mine[incarnation.number] -= 1
                self._reserved[incarnation.number] -= 1
                if self._reserved[incarnation.number] == 0:
                    turned.append(incarnation)
        return self._turn(turned, False)

    def client_lost(self, client: int) -> list[Effect]:
        """The end of all reservations of a client."""
        mine = self._by_client.get(client, Counter())
        incarnations = [self.incarnations[number] for number in mine.elements() if number in self.incarnations]
        effects = self.release(client, incarnations)
        self._by_client.pop(client, None)
        return effects

    def _turn(self, incarnations: list[Incarnation], on: bool) -> list[Effect]:
        by_set: dict[int, list[int]] = {}
        for incarnation in incarnations:
            by_set.setdefault(incarnation.key, []).append(incarnation.rank)
        effects: list[Effect] = []
        for key, ranks in by_set.items():
            place = self.by_key[key]
            (place.reserved.update if on else place.reserved.difference_update)(ranks)
            self.update(place)
            effects.append(Send(key, m.ReserveRanks(ranks, on)))
            if not place.usable and place.movable:
                # Nobody there would start what waits; other sets may. What has started comes to its end.
                effects.append(Send(key, m.TakeBackTasks(place.movable)))
        return effects
