"""Where engines spend their time, by asking again and again where they are."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from ...protocol.inquiries import ENDED, IDLE, STOPPED, RankStack, StackFrame
from ..display.escapes import safe
from ..display.pyplot import axes_for
from ..display.ranksets import RankSet
from ..display.whereabouts import innermost_own, located, waits_in
from ..session.standstill import mpi_function

CODE: Final = "code"
"""Neither idle, nor stopped, nor in an MPI call that is known."""

_LINES: Final = 10
_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"


class Sample(NamedTuple):
    """What an engine did at one moment.

    Attributes:
        activity: the MPI call that it was in, such as ``Allreduce``; :data:`CODE`, ``idle`` or ``stopped``.
        frames: its functions, innermost first.
    """

    activity: str
    frames: tuple[StackFrame, ...]


class Share(NamedTuple):
    """Which part of its samples an engine has spent with something; mean, least and most over the engines."""

    activity: str
    mean: float
    least: float
    least_of: RankSet
    most: float
    most_of: RankSet

    @property
    def imbalance(self) -> float:
        """The most over the mean: 1 if all engines have equally much."""
        return self.most / self.mean


class Profile:
    """Samples of where engines were; shown as a table.

    Attributes:
        seconds: from the first sample to the last.
        rounds: how often all engines were asked.
        samples: for each engine id, how often it was found where.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.rounds = 0
        self.samples: dict[int, Counter[Sample]] = {}

    def add(self, stacks: Mapping[int, RankStack], now: float) -> None:
        """Add one answer of the engines, which came ``now`` seconds after the first question."""
        self.rounds += 1
        self.seconds = now
        for engine, stack in stacks.items():
            if stack.state != ENDED:
                self.samples.setdefault(engine, Counter())[_sample(stack)] += 1

    @property
    def shares(self) -> list[Share]:
        """Return what engines have spent their time with, the largest mean first."""
        parts = {engine: _parts(counts) for engine, counts in sorted(self.samples.items())}
        activities = {activity for found in parts.values() for activity in found}
        shares = []
        for activity in activities:
            values = {engine: found.get(activity, 0.0) for engine, found in parts.items()}
            least, most = min(values.values()), max(values.values())
            shares.append(
                Share(
                    activity, sum(values.values()) / len(values),
                    least, RankSet(engine for engine, value in values.items() if value == least),
                    most, RankSet(engine for engine, value in values.items() if value == most),
                )
            )  # fmt: skip
        return sorted(shares, key=lambda share: (-share.mean, share.activity))

    @property
    def imbalance(self) -> float:
        """Return the largest share of :data:`CODE` over the mean: 1 if all engines compute equally long."""
        code = _code_among(self.shares)
        return 1.0 if code is None else code.imbalance

    @property
    def lines(self) -> list[tuple[float, StackFrame]]:
        """Return lines of the user's code with their share of the samples that are not idle, largest first."""
        found: Counter[StackFrame] = Counter()
        for counts in self.samples.values():
            for sample, count in counts.items():
                if sample.frames and sample.activity != IDLE:
                    found[innermost_own(sample.frames)] += count
        total = sum(found.values())
        return [(count / total, frame) for frame, count in found.most_common()]

    def __repr__(self) -> str:
        if not self.samples:
            return "no samples: there were no engines, or their node agents have not answered"
        lines = [f"{RankSet(self.samples)!r}  {self.rounds} samples in {self.seconds:.1f} s"]
        shares = self.shares
        width = max(len("in"), *(len(share.activity) for share in shares))
        lines.append(f"  {'in':{width}}  {'mean':>5}   {'least':16}  most")
        for share in shares:
            least, most = _of(share.least, share.least_of), _of(share.most, share.most_of)
            lines.append(f"  {safe(share.activity):{width}}  {share.mean:5.0%}   {least:16}  {most}".rstrip())
        code = _code_among(shares)
        if code is not None and len(self.samples) > 1:
            lines.append(f"  longest in code: {code.most_of!r}, {code.imbalance:.2f} times the mean")
        for share_of_line, frame in self.lines[:_LINES]:
            text = f": {safe(frame.text)}" if frame.text else ""
            lines.append(f"  {share_of_line:5.0%}  {located(frame)}{text}")
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the samples as JSON for speedscope (https://www.speedscope.app), one profile for each engine."""
        frames: dict[tuple[str, str, int], int] = {}
        profiles = [
            _speedscope(engine, counts, frames, self.seconds / max(self.rounds, 1))
            for engine, counts in sorted(self.samples.items())
        ]
        shared = [{"name": name, "file": file, "line": line or None} for name, file, line in frames]
        whole = {"$schema": _SCHEMA, "shared": {"frames": shared}, "profiles": profiles, "exporter": "ipmpi"}
        Path(path).write_text(json.dumps(whole), "utf-8")

    def plot(self, ax: Any = None) -> Any:
        """Draw a bar for each engine with what it has spent its time with, with matplotlib; return the Axes.

        Raises:
            ClientError: there is no matplotlib here.
        """
        axes = axes_for(ax)
        engines = sorted(self.samples)
        parts = [_parts(self.samples[engine]) for engine in engines]
        below = [0.0] * len(engines)
        for share in self.shares:
            heights = [found.get(share.activity, 0.0) for found in parts]
            axes.bar(engines, heights, 1.0, bottom=below, label=share.activity)
            below = [low + height for low, height in zip(below, heights, strict=True)]
        axes.set(xlabel="engine", ylabel="share of samples", ylim=(0, 1))
        axes.legend()
        return axes


def sampled(
    where: Callable[[], Mapping[int, RankStack]],
    seconds: float,
    every: float,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
    is_over: Callable[[], bool] = lambda: False,
) -> Profile:
    """Ask ``where`` engines are for so many seconds, and once at least; Ctrl-C ends it earlier.

    Args:
        where: asks all engines.
        seconds: how long to ask.
        every: seconds from one question to the next, if the answers come in less.
        now: returns the time.
        sleep: waits for so many seconds.
        is_over: whether to end earlier; what has come after that is left out, unless it is all there is.
    """
    profile = Profile()
    begun = due = now()
    try:
        while due - begun <= seconds and not (is_over() and profile.rounds):
            stacks = where()
            if is_over() and profile.rounds:
                break  # most engines have nothing to do any more
            profile.add(stacks, now() - begun)
            due = max(due + every, now())
            if due - begun <= seconds:
                sleep(max(due - now(), 0.0))
    except KeyboardInterrupt:
        pass  # what was sampled so far is of use
    return profile


def _sample(stack: RankStack) -> Sample:
    call = waits_in(stack)
    if stack.state in (IDLE, STOPPED):
        activity = stack.state
    elif call is not None:
        activity = call.name
    else:
        activity = mpi_function(stack).removeprefix("MPI_") or CODE
    return Sample(activity, tuple(stack.frames))


def _parts(counts: Counter[Sample]) -> dict[str, float]:
    total = sum(counts.values())
    found: Counter[str] = Counter()
    for sample, count in counts.items():
        found[sample.activity] += count
    return {activity: count / total for activity, count in found.items()}


def _code_among(shares: Sequence[Share]) -> Share | None:
    return next((share for share in shares if share.activity == CODE), None)


def _of(share: float, engines: RankSet) -> str:
    return f"{share:4.0%} {engines!r}"


def _speedscope(
    engine: int, counts: Counter[Sample], frames: dict[tuple[str, str, int], int], interval: float
) -> dict[str, Any]:
    samples, weights = [], []
    for sample, count in counts.items():
        stack = [(frame.function, frame.file, frame.line) for frame in reversed(sample.frames)]
        if sample.activity != CODE:
            stack.append((sample.activity, "", 0))
        samples.append([frames.setdefault(frame, len(frames)) for frame in stack])
        weights.append(count * interval)
    return {
        "type": "sampled", "name": f"engine {engine}", "unit": "seconds", "startValue": 0,
        "endValue": sum(weights), "samples": samples, "weights": weights,
    }  # fmt: skip
