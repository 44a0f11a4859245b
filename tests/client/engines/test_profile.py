"""Where engines spend their time, from samples of where they were."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ipmpi.client.engines.profile import Profile, sampled
from ipmpi.protocol.inquiries import ENDED, IDLE, RUNNING, STOPPED, RankStack, StackFrame
from ipmpi.protocol.mpicalls import MpiCall

STEP = StackFrame("step", "/home/me/heat.py", 37, "u = solve(u)")
REDUCE = StackFrame("step", "/home/me/heat.py", 41, "comm.Allreduce(a, b)")
MAIN = StackFrame("<module>", "/home/me/run.py", 3)
LIBRARY = StackFrame("solve", "/usr/lib/python3/dist-packages/numpy/linalg.py", 9)
CALL = MpiCall("comm", 118, "Allreduce", 1, "float64", None, None, None, REDUCE.file, 41, "step", 0.0, True)

COMPUTES = RankStack(RUNNING, runs="execute", frames=[LIBRARY, STEP, MAIN])
WAITS = RankStack(RUNNING, runs="execute", frames=[REDUCE, MAIN], calls=[CALL])
IN_C = RankStack(RUNNING, frames=[StackFrame("MPI_Barrier", "libmpi.so", 0), STEP])


def profile_of(*answers: Mapping[int, RankStack]) -> Profile:
    profile = Profile()
    for number, stacks in enumerate(answers):
        profile.add(stacks, float(number))
    return profile


def four() -> Profile:
    """Two engines and four samples: one computes in all of them, the other in one."""
    return profile_of({0: COMPUTES, 1: COMPUTES}, *[{0: COMPUTES, 1: WAITS}] * 3)


def test_the_table_says_who_computes_and_who_waits() -> None:
    assert repr(four()) == (
        "[0-1]  4 samples in 3.0 s\n"
        "  in          mean   least             most\n"
        "  code         62%    25% [1]          100% [0]\n"
        "  Allreduce    38%     0% [0]           75% [1]\n"
        "  longest in code: [0], 1.60 times the mean\n"
        "    62%  heat.py:37 in step: u = solve(u)\n"
        "    38%  heat.py:41 in step: comm.Allreduce(a, b)"
    )


def test_shares_and_lines_are_there_for_programs() -> None:
    code, reduce = four().shares
    assert (code.activity, code.mean, code.least, code.most) == ("code", 0.625, 0.25, 1.0)
    assert (reduce.activity, reduce.mean, list(reduce.most_of)) == ("Allreduce", 0.375, [1])
    assert four().imbalance == 1.6
    assert four().lines == [(0.625, STEP), (0.375, REDUCE)]


def test_states_and_calls_of_c_are_told_apart() -> None:
    states = {0: RankStack(IDLE), 1: RankStack(STOPPED, 19, frames=[STEP]), 2: IN_C, 3: RankStack(ENDED)}
    profile = profile_of(states)
    assert [(share.activity, list(share.most_of)) for share in profile.shares] == [
        ("Barrier", [2]), ("idle", [0]), ("stopped", [1]),
    ]  # fmt: skip
    assert sorted(profile.samples) == [0, 1, 2], "a process that has ended spends no time"
    assert profile.imbalance == 1.0


def test_without_samples_it_says_why() -> None:
    assert repr(Profile()).startswith("no samples: there were no engines, or their node agents")
    assert Profile().shares == []


def test_speedscope_gets_a_profile_of_each_engine(tmp_path: Path) -> None:
    four().save(tmp_path / "heat.json")
    whole = json.loads((tmp_path / "heat.json").read_text())
    assert whole["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = whole["shared"]["frames"]
    first, second = whole["profiles"]
    assert (first["type"], first["name"], first["unit"]) == ("sampled", "engine 0", "seconds")
    assert [[frames[number]["name"] for number in stack] for stack in second["samples"]] == [
        ["<module>", "step", "solve"], ["<module>", "step", "Allreduce"],
    ]  # fmt: skip
    assert second["weights"] == [0.75, 2.25]
    assert second["endValue"] == 3.0
    assert {"name": "step", "file": "/home/me/heat.py", "line": 41} in frames


def test_the_picture_has_a_bar_for_each_engine(need: Callable[[str, object], None]) -> None:
    need("no matplotlib here", importlib.util.find_spec("matplotlib"))
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    assert four().plot(axes) is axes
    assert [bar.get_height() for bar in axes.patches] == [1.0, 0.25, 0.0, 0.75]
    assert [bar.get_y() for bar in axes.patches] == [0.0, 0.0, 1.0, 0.25]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["code", "Allreduce"]


class Clock:
    """Time that passes only while somebody sleeps, or an answer takes it."""

    def __init__(self, answer: float) -> None:
        self.time = 100.0
        self.answer = answer
        self.asked: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.time += seconds

    def where(self) -> Any:
        self.asked.append(self.time - 100.0)
        self.time += self.answer
        return {0: COMPUTES}


@pytest.mark.parametrize(
    ("answer", "seconds", "asked"),
    [
        (0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (0.125, 0.5, [0.0, 0.25, 0.5]),
        (0.5, 1.0, [0.0, 0.5, 1.0]),  # as fast as answers come
        (0.0, 0.1, [0.0]),
        (9.0, 1.0, [0.0]),
    ],
)
def test_questions_are_asked_at_equal_distances(answer: float, seconds: float, asked: list[float]) -> None:
    clock = Clock(answer)
    profile = sampled(clock.where, seconds, 0.25, clock.now, clock.sleep)
    assert clock.asked == asked
    assert profile.rounds == len(asked)
    assert profile.seconds == asked[-1] + answer


def test_time_may_pass_between_two_looks_at_the_clock() -> None:
    clock = Clock(0.25)

    def now() -> float:
        clock.time += 0.0625
        return clock.time

    assert sampled(clock.where, 1.0, 0.25, now, clock.sleep).rounds == 3


def test_ctrl_c_ends_it_and_keeps_what_there_is() -> None:
    clock = Clock(0.0)

    def sleep(_seconds: float) -> None:
        if len(clock.asked) == 3:
            raise KeyboardInterrupt
        clock.time += 0.25

    assert sampled(clock.where, 10.0, 0.25, clock.now, sleep).rounds == 3
