"""What a client makes of the values that a program tells."""

from __future__ import annotations

import io
import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ipmpi.client.engines import watching
from ipmpi.client.engines.watching import KEPT, Sample, Watch
from ipmpi.client.session.presence import Presence
from ipmpi.errors import ClientError, EngineLost
from ipmpi.protocol.steering import Watched


class Stage:
    """A watch of engine 3, and what the controller says."""

    def __init__(self) -> None:
        self.presence = Presence()
        self.presence.update([3, 4], [])
        self.presence.watch(7)
        self.stopped: list[int] = []
        self.watch = Watch(self.presence, 7, [3], "residual", lambda: self.stopped.append(7))

    def tells(self, *values: float, first: int = 1) -> None:
        """The program tells these values."""
        self.presence.watched(Watched(7, list(range(first, first + len(values))), list(values)))


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_it_iterates_until_the_program_has_ended(stage: Stage) -> None:
    stage.tells(0.5, 0.25)
    stage.presence.watched(Watched(8, [1], [9.0]))  # of another watch
    stage.tells(0.125, first=3)
    assert [next(stage.watch) for _ in range(3)] == [(1, 0.5), (2, 0.25), (3, 0.125)]
    stage.tells(0.0, first=4)
    stage.presence.update([], [3])
    assert list(stage.watch) == [Sample(4, 0.0)]
    assert repr(stage.watch) == "<watch of residual: 0 after step 4, ended █▅▃▁>"


def test_stop_ends_it(stage: Stage) -> None:
    with stage.watch as watch:
        assert repr(watch) == "<watch of residual: nothing yet>"
    assert stage.stopped == [7]
    assert list(watch) == []


def test_older_samples_are_thinned_out(stage: Stage) -> None:
    stage.tells(*map(float, range(KEPT)))
    assert next(stage.watch).step == 1
    stage.tells(1.0, first=KEPT + 1)
    stage.watch.refresh()
    steps = [each.step for each in stage.watch.samples]
    assert len(steps) < KEPT
    assert steps == sorted(steps)
    assert steps[-1] == KEPT + 1


@pytest.mark.parametrize(
    ("values", "bars"),
    [([], ""), ([1.0, 1.0], "▁▁"), ([0.0, 7.0, math.nan, math.inf, 3.5], "▁█??▅"), ([math.nan], "")],
    ids=str,
)
def test_sparklines(stage: Stage, values: list[float], bars: str) -> None:
    stage.tells(*values)
    assert stage.watch.refresh().sparkline() == bars


def test_a_table_needs_pandas(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ClientError, match=r"frame\(\) makes a DataFrame of pandas: pip install pandas"):
        stage.watch.frame()
    pandas: Any = ModuleType("pandas")
    pandas.Index = lambda steps, name: (name, steps)
    pandas.DataFrame = lambda columns, index: (columns, index)
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    stage.tells(0.5, 0.25)
    assert stage.watch.frame() == ({"residual": [0.5, 0.25]}, ("step", [1, 2]))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_line_follows_the_program(stage: Stage, is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stdout", screen)
    stage.tells(0.5, 0.25)
    stage.presence.update([], [3])
    stage.watch.live()
    line = "residual █▁ 0.25 after step 2"
    assert screen.getvalue() == (f"\r\033[K{line}\n" if is_terminal else f"{line}\n")


def test_a_figure_in_a_notebook_is_replaced(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    display = pytest.importorskip("IPython.display")
    shown: list[Any] = []

    def first(figure: Any, display_id: bool) -> Any:
        assert display_id
        return SimpleNamespace(update=shown.append)

    monkeypatch.setattr(display, "display", first)
    screen = watching._NotebookScreen()
    stage.tells(0.5, 0.25)
    screen.show(stage.watch.refresh())
    screen.show(stage.watch.refresh())  # nothing new
    stage.tells(0.125, first=3)
    screen.show(stage.watch.refresh())
    screen.show(None)
    assert len(shown) == 2
    (line,) = shown[0].axes[0].lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2, 3], [0.5, 0.25, 0.125])


@pytest.mark.parametrize(
    ("name", "every", "reduce", "words"),
    [
        (3, 1, None, "name, of a published value, must be"),
        ("T" * 256, 1, None, "name, of a published value,"),
        ("T", 0, None, "every, a number of steps,"),
        ("T", 1.5, None, "every, a number of steps,"),
        ("T", 1 << 50, None, "every, a number of steps,"),
        ("T", 1, "median", "reduce must be one of 'max', 'min', 'sum', 'mean' or None: 'median'"),
        ("T", 1, 3, "reduce must be one of"),
    ],
)
def test_what_cannot_be_watched_is_refused_here(name: Any, every: Any, reduce: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        watching.checked(name, every, reduce)


def test_a_watch_that_the_program_cannot_begin_says_why(stage: Stage) -> None:
    stage.presence.watched(Watched(7, [], [], "the program has published no 'residual'"))
    with pytest.raises(ClientError, match="the program has published no 'residual'"):
        stage.watch.wait_until_begun()
    assert list(stage.watch) == []


def test_a_watch_begins_before_its_first_value_or_with_it(stage: Stage) -> None:
    stage.tells(0.5)
    stage.presence.watched(Watched(7, [], []))
    stage.watch.wait_until_begun()
    assert next(stage.watch) == (1, 0.5)
    stage.presence.update([], [3])
    with pytest.raises(EngineLost, match="the program has ended before it could begin to tell residual"):
        stage.watch.wait_until_begun()
