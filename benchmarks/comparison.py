"""What all turns came to: medians, quartiles, and how ours compares with the best of the others. No I/O here."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .rows import BY_KEY, ROWS, UNITS, Row
from .systems import OWN
from .turns import Turn


class Summary(NamedTuple):
    """Seconds of one row by one system, of all samples of all rounds.

    Attributes:
        low: the quartile below which the quick quarter is.
        median: half of the samples took longer.
        high: the quartile above which the slow quarter is.
        samples: how many there are.
    """

    low: float
    median: float
    high: float
    samples: int


class Against(NamedTuple):
    """Ours and the best of the others.

    Attributes:
        peer: the system with the lowest median, of those that have the row.
        ratio: its median, divided by ours: above 1 where ours is better.
        lowest: the same of the round in which it was lowest; only rounds in which both were measured count.
        highest: the same of the round in which it was highest.
    """

    peer: str
    ratio: float
    lowest: float
    highest: float


def summary(samples: Sequence[float]) -> Summary:
    """Median and quartiles.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("there is no median of no samples")
    if len(samples) == 1:
        return Summary(samples[0], samples[0], samples[0], 1)
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Summary(low, median, high, len(samples))


def shown(seconds: float, row: Row) -> float:
    """A time in the unit of its row; a rate where that is one."""
    scale = UNITS[row.unit]
    return seconds * scale if scale else 1 / max(seconds, 1e-9)


class Comparison:
    """Collects turns.

    Args:
        systems: their names, ours among them.
        keys: of the rows to measure.
    """

    def __init__(self, systems: Iterable[str], keys: Sequence[str]) -> None:
        self.systems = list(systems)
        self.keys = list(keys)
        self.failed: dict[str, dict[str, str]] = {}
        """System -> row (or empty: the system as a whole) -> why."""
        self.calls: dict[str, dict[str, str]] = {}
        self._rounds: list[dict[str, Mapping[str, list[float]]]] = []

    def begin_round(self) -> list[str]:
        """Begin a round; returns whose turns it has, in the other direction each time."""
        self._rounds.append({})
        still = [name for name in self.systems if "" not in self.failed.get(name, {})]
        return still if len(self._rounds) % 2 else still[::-1]

    def rows_for(self, name: str) -> list[str]:
        """The rows that a system should do, not those that failed before; transfers are last, as they may hang."""
        left = [key for key in reversed(self.keys) if key not in self.failed.get(name, {})]
        return sorted(left, key=lambda key: BY_KEY[key].kind == "transfer")

    def add(self, name: str, turn: Turn) -> None:
        """A system had its turn in the present round."""
        self._rounds[-1][name] = turn.seconds
        if turn.calls:
            self.calls[name] = dict(turn.calls)
        if turn.failed:
            self.failed.setdefault(name, {}).update(turn.failed)
        if turn.why:
            self.add_failure(name, turn.why)

    def add_failure(self, name: str, why: str) -> None:
        """A system has no more turns, or none at all."""
        self.failed.setdefault(name, {})[""] = why

    @property
    def rounds(self) -> int:
        """How many were begun."""
        return len(self._rounds)

    def has(self, name: str) -> bool:
        """Whether a system has been measured at all."""
        return any(turns.get(name) for turns in self._rounds)

    def summaries(self, key: str) -> dict[str, Summary]:
        """What each system that has a row needed for it."""
        found = {}
        for name in self.systems:
            samples = [each for turns in self._rounds for each in turns.get(name, {}).get(key, [])]
            if samples:
                found[name] = summary(samples)
        return found

    def against(self, key: str) -> Against | None:
        """Ours against the best; None where nobody else has the row, or ours has not."""
        found = self.summaries(key)
        others = {name: each.median for name, each in found.items() if name != OWN}
        if OWN not in found or not others:
            return None
        peer = min(others, key=others.__getitem__)
        pairs = [
            statistics.median(turns[peer][key]) / statistics.median(turns[OWN][key])
            for turns in self._rounds
            if turns.get(peer, {}).get(key) and turns.get(OWN, {}).get(key)
        ]
        ratio = others[peer] / found[OWN].median
        return Against(peer, ratio, min(pairs, default=ratio), max(pairs, default=ratio))

    def record(self) -> dict[str, Any]:
        """Everything, for ``json.dump``: seconds; of a task, where the row is about tasks."""
        rows = []
        for row in (row for row in ROWS if row.key in self.keys):
            found = {name: each._asdict() for name, each in self.summaries(row.key).items()}
            against = self.against(row.key)
            rows.append(
                {"key": row.key, "unit": "s", "systems": found, "best_peer": against and against._asdict()}
            )
        return {
            "rounds": [{name: dict(found) for name, found in turns.items()} for turns in self._rounds],
            "rows": rows, "failed": self.failed, "calls": self.calls,
        }  # fmt: skip


def may_begin(rounds: int, most: int, longest: float, left: float) -> bool:
    """Whether there is a next round.

    Args:
        rounds: how many there were.
        most: how many there may be.
        longest: seconds of the longest one so far.
        left: seconds until the end of the time for all of them.
    """
    return rounds == 0 or (rounds < most and longest <= left)


def named(keys: Iterable[str], size: int, engines: int) -> dict[str, str]:
    """The rows in words."""
    text = f"{size / 1e6:g} MB"
    return {key: BY_KEY[key].name.format(size=text, engines=engines) for key in keys}
