"""Figures that are drawn again and again."""

from __future__ import annotations

import base64
import importlib.util
import itertools
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipmpi.client.display import liveplot
from ipmpi.client.display.liveplot import (
    EndOfPlot,
    FileScreen,
    LivePlot,
    NotebookScreen,
    TerminalScreen,
    screen_here,
)

SOON = 20.0


@pytest.fixture(autouse=True)
def matplotlib(need: Callable[[str, object], None]) -> None:
    need("no matplotlib here", importlib.util.find_spec("matplotlib"))


def width(png: bytes) -> int:
    """In pixels; figures of these tests have as many hundreds as their number."""
    return int(struct.unpack(">I", png[16:20])[0])


class Drawing:
    """Draws figures of different widths, until it raises ``last``."""

    def __init__(self, pictures: int, last: BaseException) -> None:
        self.numbers = itertools.count(1)
        self.pictures = pictures
        self.last = last

    def __call__(self, axes: Any) -> None:
        number = next(self.numbers)
        if number > self.pictures:
            raise self.last
        assert not axes.get_title()
        axes.set_title(f"{number}")
        axes.figure.set_layout_engine("none")
        axes.figure.set_size_inches(number, 1)


class Screen:
    """Keeps what is shown."""

    is_here = False
    place = "here"

    def __init__(self) -> None:
        self.widths: list[int] = []
        self.is_closed = False

    def show(self, png: bytes) -> None:
        self.widths.append(width(png))

    def close(self) -> None:
        self.is_closed = True


def test_it_is_drawn_until_there_is_nothing_more() -> None:
    screen = Screen()
    live = LivePlot(Drawing(3, EndOfPlot("the program has ended")), screen, 0.01)
    live.begin()
    assert live.wait(SOON)
    assert screen.widths == [100, 200, 300]
    assert screen.is_closed
    assert repr(live) == "<LivePlot here: 3 pictures, has ended: the program has ended>"


def test_what_goes_wrong_is_raised_at_first_and_said_later() -> None:
    with pytest.raises(KeyError):
        LivePlot(Drawing(0, KeyError("T")), Screen(), 0.01).begin()
    live = LivePlot(Drawing(1, KeyError("T")), Screen(), 0.01)
    live.begin()
    assert live.wait(SOON)
    assert live.ended == "KeyError: 'T'"


def test_stop_ends_it() -> None:
    live = LivePlot(Drawing(99, KeyError()), Screen(), 1000)
    live.begin()
    assert repr(live) == "<LivePlot here: 1 pictures, is drawn again and again>"
    live.stop()
    assert live.ended == "it was stopped"
    live.stop()


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "T.png"
    seen = []
    screen = FileScreen(path)
    show = screen.show

    def shown(png: bytes) -> None:
        show(png)
        seen.append((width(path.read_bytes()), [each.name for each in tmp_path.iterdir()]))

    screen.show = shown  # type: ignore[method-assign]
    live = LivePlot(Drawing(2, EndOfPlot("")), screen, 0.01)
    live.begin()
    assert live.wait(SOON)
    assert seen == [(100, ["T.png"]), (200, ["T.png"])]


def test_without_a_terminal_that_shows_pictures_there_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPMPI_PICTURES", "kitty")
    screen = screen_here(None)  # the output of tests is no terminal
    assert isinstance(screen, FileScreen)
    path = Path(screen.place.removeprefix("in "))
    assert path.suffix == ".png"
    assert path.stat().st_mode & 0o777 == 0o600
    assert isinstance(screen_here("a.png"), FileScreen)


@pytest.mark.parametrize("protocol", ["kitty", "iterm"])
def test_a_terminal_shows_it_in_one_place_and_comes_back(protocol: str) -> None:
    written: list[str] = []
    drawing = Drawing(3, KeyboardInterrupt())
    live = LivePlot(drawing, TerminalScreen(written.append, protocol), 0.001)
    live.begin()  # until Ctrl-C
    assert live.ended == "it was stopped"
    first, second, third, last = written
    assert first.startswith("\033[?1049h\033[H\033[2J")
    assert second.startswith("\033[H\033[2J")
    assert last.startswith("\033[?1049l")
    assert last.removeprefix("\033[?1049l").strip() in third
    assert ("a=d,d=A" in second) == (protocol == "kitty")


def test_a_notebook_gets_one_output_that_is_replaced() -> None:
    published: list[dict[str, Any]] = []
    threads = []

    def publish(**message: Any) -> None:
        published.append(message)
        threads.append(threading.current_thread().name)

    live = LivePlot(Drawing(3, EndOfPlot("")), NotebookScreen(publish), 0.001)
    live.begin()
    assert live.wait(SOON)
    assert [each["update"] for each in published] == [False, True, True]
    assert len({each["transient"]["display_id"] for each in published}) == 1
    assert [width(base64.b64decode(each["data"]["image/png"])) for each in published] == [100, 200, 300]
    assert threads[1:] == ["ipmpi-plot"] * 2


CELLS = [
    """
from ipmpi.client.display.liveplot import LivePlot, screen_here
def draw(axes):
    axes.figure.set_layout_engine("none")
    axes.figure.set_size_inches(live.count + 1, 1)
live = LivePlot(draw, screen_here(None), 0.01)
live.begin()
""",
    "import time\nwhile live.count < 4:\n    time.sleep(0.01)\nlive.stop()\nlive.count",
]


@pytest.mark.slow
def test_the_output_of_a_cell_follows_while_the_notebook_goes_on(need: Callable[[str, object], None]) -> None:
    for name in ("nbclient", "ipykernel"):
        need(f"no {name}; pip install {name}", importlib.util.find_spec(name))
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    notebook = new_notebook(cells=[new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    [shown] = notebook.cells[0].outputs
    count = int(notebook.cells[1].outputs[0].data["text/plain"])
    assert count >= 4
    assert width(base64.b64decode(shown.data["image/png"])) == 100 * count


def test_matplotlib_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(liveplot.sys.modules, "matplotlib.figure", None)
    with pytest.raises(liveplot.ClientError, match="pip install matplotlib"):
        LivePlot(Drawing(1, KeyError()), Screen(), 1)
