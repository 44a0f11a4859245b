"""A program that is steered, followed in a real terminal: in IPython, in tmux."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("IPython")

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour
    from terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.mpi]
BARS = r"residual [▁▂▃▄▅▆▇█]+ \S+ after step [\d,]+(\^C)? *$"


@pytest.fixture
def terminal(
    flavour_named: Callable[[str], Flavour],
    new_cluster: Callable[..., Cluster],
    need: Callable[[str, object], None],
) -> Iterator[Terminal]:
    """IPython beside the heat equation, on two ranks."""
    from real_clusters import ROOT
    from terminal import Terminal, tmux_is_here

    need("no tmux; apt-get install tmux", tmux_is_here())
    need("no matplotlib; 'make docs' installs it", importlib.util.find_spec("matplotlib"))
    cluster = new_cluster(flavour_named("openmpi"))
    heat = str(ROOT / "examples" / "steering" / "heat.py")
    cluster.launch(cluster.command(2, program=(heat,), args=["1000000000"]))
    cluster.wait_for_engines(2)
    with Terminal(cluster.home, {**cluster.environ, "LC_ALL": "C.UTF-8"}) as terminal:
        terminal.run("from ipmpi import client; sim = client.Simulation()")
        yield terminal


def test_a_value_is_one_line_that_is_replaced(terminal: Terminal) -> None:
    terminal.run("watch = sim.watch('residual', every=10)")
    terminal.run("_ = next(watch)", 60)
    said = terminal.run("watch.live(2)", 60)
    assert len(re.findall("^" + BARS, said, re.MULTILINE)) == 1, said
    # Ctrl-C ends it, and leaves the last line.
    number = terminal.number()
    terminal.enter("watch.live()")
    terminal.wait_for(r"watch\.live\(\)\s+" + BARS)
    terminal.keys("C-c")
    said = terminal.wait_for(rf"In \[{number + 1}\]: $").split("watch.live()")[-1]
    assert len(re.findall("^" + BARS, said, re.MULTILINE)) == 1, said
    assert "Traceback" not in said


def test_a_plot_is_a_file_where_no_pictures_are_shown_and_the_prompt_is_free(terminal: Terminal) -> None:
    said = terminal.run("live = sim.plot('T', 0.1); live", 60)
    assert re.search(r"<LivePlot in \S+\.png: \d+ pictures, is drawn again and again>", said), said
    terminal.run("import time; end = time.time() + 60")
    terminal.run("while live.count < 3 and time.time() < end: time.sleep(0.1)\n", 70)
    assert re.search(r": ([3-9]|\d\d+) pictures, is drawn again and again", terminal.run("live"))
    assert "it was stopped" in terminal.run("live.stop(); live", 60)
