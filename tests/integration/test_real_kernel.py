"""The kernel whose cells run on all ranks, as Jupyter uses it: started from its spec, over its sockets."""

from __future__ import annotations

import importlib
import importlib.util
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi.cli import ipcluster

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
WITHIN = 60


class Notebook:
    """A client of a running kernel."""

    def __init__(self, manager: Any) -> None:
        self.manager = manager
        self.client = manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=WITHIN)

    def run(
        self, code: str, each: Callable[[str], object] = lambda text: None
    ) -> tuple[str, list[dict[str, Any]]]:
        """What a cell prints and displays; ``each`` is called with texts as they come."""
        texts: list[str] = []
        bundles: list[dict[str, Any]] = []

        def came(message: Any) -> None:
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                texts.append(content["text"])
                each(content["text"])
            elif message["msg_type"] == "error":
                texts.append("\n".join(content["traceback"]))
            elif message["msg_type"] in ("display_data", "execute_result"):
                bundles.append(content["data"])

        self.client.execute_interactive(code, output_hook=came, timeout=WITHIN)
        return COLOURS.sub("", "".join(texts)), bundles

    def ask(self, request: str) -> dict[str, Any]:
        """The answer to a request."""
        while True:
            reply = self.client.get_shell_msg(timeout=WITHIN)
            if reply["parent_header"]["msg_id"] == request:
                content: dict[str, Any] = reply["content"]
                return content


def ranks(text: str) -> dict[str, list[int]]:
    """Lines and their ranks, however late one of them was: then lines are not folded while they come."""
    found: dict[str, list[int]] = {}
    for mark, ids, line in re.findall(r"^(Out)?\[([\d-]+)\]:? ?(.*)$", text, re.MULTILINE):
        first, _, last = ids.partition("-")
        found.setdefault(f"{mark}{line}", []).extend(range(int(first), int(last or first) + 1))
    return {line: sorted(ids) for line, ids in found.items()}


@pytest.fixture(scope="module")
def cluster(
    flavour_named: Callable[[str], Flavour],
    tmp_path_factory: pytest.TempPathFactory,
    need: Callable[[str, object], None],
) -> Iterator[Cluster]:
    from real_clusters import Cluster

    for name in ("ipykernel", "matplotlib"):
        need(f"no {name}; 'make test' installs it", importlib.util.find_spec(name))
    cluster = Cluster(tmp_path_factory.mktemp("kernel"), flavour_named("openmpi"))
    try:
        cluster.start(2)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def notebook(cluster: Cluster) -> Iterator[Notebook]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_DATA_DIR", str(cluster.home / "jupyter"))
        patch.setenv("IPYTHONDIR", str(cluster.home))
        assert ipcluster.main(["kernel", "install"]) == 0
        manager = importlib.import_module("jupyter_client.manager").KernelManager(kernel_name="ipmpi")
        manager.start_kernel(env=cluster.environ)
    running = Notebook(manager)
    try:
        yield running
    finally:
        running.client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_cells_run_on_all_ranks(notebook: Notebook) -> None:
    assert ranks(notebook.run("here = id\nprint('hello')\nhere * 0")[0]) == {"hello": [0, 1], "Out0": [0, 1]}
    assert ranks(notebook.run("print(here)")[0]) == {"0": [0], "1": [1]}


def test_a_figure_is_shown(notebook: Notebook) -> None:
    text, bundles = notebook.run(
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nfigure, axes = plt.subplots(figsize=(1, 1))"
    )
    # Of ranks that are more than a moment apart, the second one is only named.
    assert re.fullmatch(r"\[0-1\]\n|\[0\]\n\[1\] the same as \[0\]\n|\[1\]\n\[0\] the same as \[1\]\n", text), text
    (bundle,) = bundles
    assert set(bundle) == {"text/plain", "image/png"}


def test_a_value_comes_in_its_formats(notebook: Notebook) -> None:
    source = "class T:\n    def _repr_html_(self): return '<b>5</b>'\n    def __repr__(self): return 'T'\nT()"
    assert notebook.run(source) == ("Out[0-1]:\n", [{"text/html": "<b>5</b>", "text/plain": "T"}])
    text, bundles = notebook.run("display(T())")
    assert ranks(text) == {"": [0, 1]}
    assert {"text/html": "<b>5</b>", "text/plain": "T"} in bundles


def test_an_exception_is_told_once(notebook: Notebook) -> None:
    text, _ = notebook.run("1/0")
    assert text.count("ZeroDivisionError") == 1
    assert "[0-1]" in text
    assert "ipmpi/" not in text


def test_commands_of_ipython_run_on_ranks_and_ours_here(notebook: Notebook) -> None:
    assert ranks(notebook.run("!echo a program")[0]) == {"a program": [0, 1]}
    assert ranks(notebook.run("%px print(5)")[0]) == {"5": [0, 1]}
    assert notebook.run("%autopx")[0] == "Auto Parallel Disabled\n"
    try:
        assert notebook.run("type(mec).__name__")[1] == [{"text/plain": "'MultiEngineClient'"}]
    finally:
        notebook.run("%autopx")
    text, _ = notebook.run("print(id * 0)")
    assert ranks(text) == {"0": [0, 1]}, text


def test_names_of_the_ranks_are_completed(notebook: Notebook) -> None:
    notebook.run("some_long_name = 5; import collections")
    found = notebook.ask(notebook.client.complete("print(some_lo"))
    assert found["matches"] == ["some_long_name"]
    assert (found["cursor_start"], found["cursor_end"]) == (6, 13)
    assert "collections.OrderedDict" in notebook.ask(notebook.client.complete("collections.Ord"))["matches"]


def test_names_of_the_ranks_are_inspected(notebook: Notebook) -> None:
    notebook.run("def area(r: float) -> float:\n    '''Of a circle.'''\n    return 3.14 * r * r")
    told = notebook.ask(notebook.client.inspect("area", 4))
    assert told["found"]
    assert "area(r: float) -> float" in told["data"]["text/plain"]
    assert "Of a circle." in told["data"]["text/plain"]
    assert "3.14" not in told["data"]["text/plain"]
    assert "3.14 * r" in notebook.ask(notebook.client.inspect("area", 4, detail_level=1))["data"]["text/plain"]
    assert not notebook.ask(notebook.client.inspect("no_such_name", 5))["found"]


def test_the_interrupt_button_interrupts_the_ranks(notebook: Notebook) -> None:
    started = time.monotonic()
    pressed: list[str] = []

    def press(text: str) -> None:
        if "runs" in text and not pressed:
            pressed.append(text)
            notebook.manager.interrupt_kernel()

    text, _ = notebook.run("import time\nprint('runs')\ntime.sleep(50)", press)
    assert time.monotonic() - started < 30
    assert "KeyboardInterrupt" in text
    text, _ = notebook.run("print(id * 0)")
    assert ranks(text) == {"0": [0, 1]}, text


def test_without_its_cluster_a_cell_says_so(cluster: Cluster, tmp_path: Path) -> None:
    manager = importlib.import_module("jupyter_client.manager").KernelManager(kernel_name="python3")
    spec = manager.kernel_spec
    spec.argv = [*spec.argv[:1], "-m", "ipmpi.ipython.kernel", "-f", "{connection_file}", "--cluster", "none"]
    manager.start_kernel(env={**cluster.environ, "IPYTHONDIR": str(tmp_path)})
    try:
        lonely = Notebook(manager)
        text, _ = lonely.run("1 + 1")
        assert "none" in text
        assert "Error" in text
        lonely.client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)
