"""Figures of matplotlib that user code makes on a rank, and IPython's display functions there."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

PROGRAM = """\
import base64, contextlib, io, json, sys
from ipmpi.engine.session import importhooks
from ipmpi.engine.session.namespace import Namespace
from ipmpi.protocol.operations import Execute, Failed, decode_outcome, encode

published = []
namespace = Namespace(3)
namespace.displays.connect(published.append)
namespace.install_as_main()
importhooks.install()

def as_json(display):
    return {} if display is None else {**display.text, **{k: base64.b64encode(v).decode() for k, v in display.images.items()}}

for line in sys.stdin:
    published.clear()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        outcome = decode_outcome(namespace.run("execute", encode(Execute(json.loads(line))), []).outcome)
    failed = isinstance(outcome, Failed)
    executed = outcome.executed if failed else outcome
    print(json.dumps({
        "error": outcome.traceback if failed else "",
        "stdout": out.getvalue(),
        "stderr": err.getvalue(),
        "repr": executed.display_repr,
        "rich": as_json(executed.display_rich),
        "published": list(map(as_json, published)),
    }), flush=True)
"""  # noqa: E501

PLAIN, PNG = "text/plain", "image/png"


def picture_size(encoded: str) -> tuple[int, int]:
    """Width and height of a PNG in base64."""
    data = base64.b64decode(encoded)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


class Rank:
    """A process that runs commands as a rank does."""

    def __init__(self, **environ: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env={**environment, **environ}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, source: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(source) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def execute(self, source: str) -> dict[str, Any]:
        answer = self.run(source)
        assert not answer["error"], answer["error"]
        return answer

    def sizes(self, source: str) -> list[tuple[int, int]]:
        """Of the figures that this command publishes."""
        return [picture_size(display[PNG]) for display in self.execute(source)["published"]]

    def stop(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture(scope="module")
def rank(need: Callable[[str, object], None]) -> Iterator[Rank]:
    need("no matplotlib; 'make test' installs it", importlib.util.find_spec("matplotlib"))
    rank = Rank()
    rank.execute("import matplotlib; matplotlib.rcParams['figure.figsize'] = 2, 1")
    rank.execute("import matplotlib.pyplot as plt")
    yield rank
    rank.stop()


@pytest.fixture(autouse=True)
def nothing_open(rank: Rank) -> None:
    rank.execute("plt.close('all'); display.close_figures = True")


def test_a_figure_that_is_left_open_is_shown_and_closed(rank: Rank) -> None:
    answer = rank.execute("plt.plot([1, 2]); None")
    (display,) = answer["published"]
    assert display[PLAIN] == "<Figure size 200x100 with 1 Axes>"
    width, height = picture_size(display[PNG])
    assert 150 < width < 250
    assert 80 < height < 150
    assert rank.execute("plt.get_fignums()")["repr"] == "[]"


def test_equal_figures_have_equal_bytes(rank: Rank) -> None:
    first = rank.execute("plt.plot([1, 2])")["published"]
    assert rank.execute("plt.plot([1, 2])")["published"] == first
    assert rank.execute("plt.plot([1, 3])")["published"] != first


def test_show_shows_all_at_once_and_closes_them(rank: Rank) -> None:
    answer = rank.execute(
        "plt.figure(2, (2, 2)); plt.figure(1, (1, 1)); plt.plot([1]); display('before')\n"
        "plt.show(block=True); display(plt.get_fignums()); None"
    )
    assert [display[PLAIN] for display in answer["published"]] == [
        "'before'",
        "<Figure size 100x100 with 1 Axes>",
        "<Figure size 200x200 with 0 Axes>",
        "[]",
    ]
    assert answer["stderr"] == ""


def test_a_resolution_is_kept(rank: Rank) -> None:
    (low,), (high,) = (rank.sizes(f"plt.figure(dpi={dpi}).subplots(); None") for dpi in (50, 150))
    assert high[0] / low[0] == pytest.approx(3, rel=0.1)


def test_a_figure_as_last_value_comes_once(rank: Rank) -> None:
    answer = rank.execute("plt.plot([1, 2]); plt.gcf()")
    assert answer["published"] == []
    assert picture_size(answer["rich"][PNG])
    assert answer["repr"] == "<Figure size 200x100 with 1 Axes>"
    assert rank.execute("plt.get_fignums()")["repr"] == "[]"


def test_a_displayed_figure_comes_again_if_it_has_changed(rank: Rank) -> None:
    assert len(rank.sizes("f = plt.figure(); display(f)")) == 1
    assert len(rank.sizes("f, a = plt.subplots(); display(f); a.plot([1, 2]); None")) == 2
    assert len(rank.sizes("f, a = plt.subplots()\nfor i in range(3): a.plot([i, 0]); display(f)\n")) == 3


def test_a_single_figure_can_be_shown(rank: Rank) -> None:
    answer = rank.execute("a = plt.figure(); b = plt.figure(); a.show(); open_ones = plt.get_fignums(); open_ones")
    assert answer["repr"] == "[2]"
    assert answer["stderr"] == ""
    assert len(answer["published"]) == 2


def test_figures_without_pyplot_are_the_users(rank: Rank) -> None:
    rank.execute("from matplotlib.figure import Figure")
    assert rank.execute("f = Figure((1, 1)); f.subplots().plot([1, 2]); None")["published"] == []
    assert picture_size(rank.execute("f")["rich"][PNG])
    assert len(rank.sizes("display(f)")) == 1


def test_figures_can_stay_open(rank: Rank) -> None:
    assert rank.sizes("display.close_figures = False; plt.plot([1, 2]); None") == []
    assert rank.execute("plt.get_fignums()")["repr"] == "[1]"
    assert len(rank.sizes("plt.title('later'); plt.show()")) == 1


def test_a_figure_as_last_value_of_a_command_that_fails_is_not_lost(rank: Rank) -> None:
    answer = rank.run("plt.plot([1, 2])\nplt.gcf()\n1/0")
    assert answer["rich"] == {}
    assert len(answer["published"]) == 1


def test_a_command_that_fails_shows_its_figures(rank: Rank) -> None:
    answer = rank.run("plt.plot([1, 2]); 1/0")
    assert answer["error"].endswith("ZeroDivisionError: division by zero\n")
    assert len(answer["published"]) == 1


def test_a_figure_that_cannot_be_drawn_is_the_users_error(rank: Rank) -> None:
    answer = rank.run(r"plt.figure(); plt.plot(); plt.figure(); plt.title(r'$\nothing$')")
    assert "Unknown symbol" in answer["error"]
    assert len(answer["published"]) == 1
    assert rank.execute("plt.get_fignums()")["repr"] == "[]"


def test_a_figure_that_is_too_large_is_made_smaller(rank: Rank) -> None:
    # Noise cannot be compressed: at its own resolution this one has some 6 MB.
    source = "import numpy as np\nf = plt.figure(figsize=(14, 14), dpi=100)\nf.add_axes([0, 0, 1, 1]).imshow("
    source += "np.random.default_rng(1).random((1400, 1400, 3)))\nNone"
    ((width, height),) = rank.sizes(source)
    assert 200 < min(width, height) <= max(width, height) < 1300


def test_the_environment_is_not_changed(rank: Rank) -> None:
    assert rank.execute("import os; os.environ.get('MPLBACKEND')")["repr"] is None


def test_a_backend_that_the_user_has_chosen_is_left_alone() -> None:
    rank = Rank(MPLBACKEND="Agg")
    try:
        rank.execute("import matplotlib.pyplot as plt")
        assert rank.execute("plt.plot([1, 2]); None")["published"] == []
        assert rank.execute("plt.get_backend().lower(), plt.get_fignums()")["repr"] == "('agg', [1])"
    finally:
        rank.stop()


def test_display_of_ipython_is_ours(rank: Rank) -> None:
    answer = rank.execute("from IPython.display import HTML, Image, display as shows; shows(HTML('<i>a</i>'))")
    assert answer["published"] == [{"text/html": "<i>a</i>", PLAIN: "<IPython.core.display.HTML object>"}]
    assert answer["stdout"] == ""
    assert rank.execute("HTML('<i>a</i>')")["rich"] == {"text/html": "<i>a</i>"}
    png = "b'\\x89PNG\\r\\n\\x1a\\n' + bytes(20)"
    answer = rank.execute(f"Image({png}, width=30)")
    assert base64.b64decode(answer["rich"][PNG]).startswith(b"\x89PNG")
    assert json.loads(answer["rich"]["application/vnd.ipmpi.metadata+json"]) == {PNG: {"width": 30}}


def test_other_functions_of_ipython_show_too(rank: Rank) -> None:
    rank.execute("import IPython.display as ip; handle = ip.display(1, display_id='x')")
    assert rank.execute("ip.publish_display_data({'text/markdown': '# a'})")["published"] == [
        {"text/markdown": "# a"}
    ]
    assert rank.execute("ip.update_display(2, display_id='x')")["published"] == [{PLAIN: "2"}]
    assert rank.execute("ip.display_html('<b>b</b>', raw=True)")["published"] == [{"text/html": "<b>b</b>"}]


def test_adapted_modules_have_their_own_loaders(rank: Rank) -> None:
    source = "import inspect, matplotlib; inspect.getsource(matplotlib)[:3], type(matplotlib.__loader__).__name__"
    assert rank.execute(source)["repr"].endswith("'SourceFileLoader')")
