"""Figures and values that real ranks display, as they come to a client."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi.client import MultiEngineClient, PendingResult
from ipmpi.client.display.blocks import DISPLAY, STDERR, Block
from ipmpi.client.display.imageprotocols import size_of_png
from ipmpi.client.display.pictures import PictureFiles, Pictures
from ipmpi.client.display.render import Renderer

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

PNG = "image/png"


@pytest.fixture(scope="module")
def mec(
    flavour_named: Callable[[str], Flavour],
    tmp_path_factory: pytest.TempPathFactory,
    need: Callable[[str, object], None],
) -> Iterator[MultiEngineClient]:
    """Eight ranks."""
    from real_clusters import Cluster

    need("no matplotlib; 'make test' installs it", importlib.util.find_spec("matplotlib"))
    cluster: Cluster = Cluster(tmp_path_factory.mktemp("pictures"), flavour_named("openmpi"))
    try:
        yield cluster.start(8)
    finally:
        cluster.stop()


@pytest.fixture
def files(tmp_path: Path) -> PictureFiles:
    return PictureFiles(str(tmp_path))


def displays(result: PendingResult[Any]) -> list[Block]:
    """What a command has displayed, when it has ended."""
    result.get_result()
    return [block for output in result.outputs for block in output.blocks if block.kind == DISPLAY]


def bytes_of(block: Block) -> bytes:
    png = block.formats[PNG]
    assert isinstance(png, bytes)
    return png


def pixels(png: str | bytes) -> str:
    image: Any = importlib.import_module("PIL.Image")
    assert isinstance(png, bytes)
    with image.open(io.BytesIO(png)) as opened:
        return hashlib.sha256(opened.convert("RGBA").tobytes()).hexdigest()


def test_matplotlib_is_loaded_by_user_code_alone(mec: MultiEngineClient) -> None:
    mec.execute("import sys; found = {'matplotlib', 'IPython', 'PIL'} & set(sys.modules)\ndisplay(1); [found]")
    assert mec.pull("found") == [set()] * 8


@pytest.mark.parametrize("ranks", [2, 8])
def test_equal_figures_come_once(mec: MultiEngineClient, files: PictureFiles, ranks: int) -> None:
    chosen = list(range(ranks))
    mec.execute("import matplotlib.pyplot as plt", targets=chosen)
    source = "plt.figure(figsize=(4, 3), dpi=80); plt.plot([1, 3, 2]); None"
    blocks = displays(mec.execute(source, targets=chosen, block=False))
    assert {engine for block in blocks for engine in block.engines} == set(chosen)
    assert all(set(block.formats) == {"text/plain", PNG} for block in blocks)
    assert len({pixels(block.formats[PNG]) for block in blocks}) == 1
    assert len({size_of_png(bytes_of(block)) for block in blocks}) == 1
    width, height = size_of_png(bytes_of(blocks[0])) or (0, 0)
    assert 250 < width < 350
    assert 190 < height < 260
    text = Renderer().render(blocks, shown=Pictures(Renderer(), files=files).text)
    assert re.fullmatch(rf"\[0-{ranks - 1}\] figure: \S+\.png \({width}x{height}\)\n", text)
    live = Pictures(Renderer(), files=files)
    told = [live.live(block) for block in blocks]
    assert ["figure: " in str(line) for line in told] == [True] + [False] * (len(blocks) - 1)


def test_what_is_displayed_at_one_time_is_sent_once(mec: MultiEngineClient) -> None:
    source = "import time; time.sleep(max(at - time.time(), 0)); display({'image/png': b'x' * 1000}, raw=True)"
    # Agents fold what comes within 0.1 s, and ranks that share two cores are not always that close together.
    for _ in range(10):
        mec.push({"at": time.time() + 0.2})
        blocks = displays(mec.execute(source, block=False))
        assert sorted(engine for block in blocks for engine in block.engines) == list(range(8))
        if len(blocks) == 1:
            break
    assert [block.engines for block in blocks] == [tuple(range(8))]


def test_different_figures_come_with_their_ranks(mec: MultiEngineClient) -> None:
    mec.execute("import matplotlib.pyplot as plt")
    blocks = displays(mec.execute("plt.plot([id % 2, 1]); plt.show()", block=False))
    ranks: dict[str, set[int]] = {}
    for block in blocks:
        ranks.setdefault(pixels(block.formats[PNG]), set()).update(block.engines)
    assert sorted(map(sorted, ranks.values())) == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_displays_come_live_and_between_what_is_printed(mec: MultiEngineClient) -> None:
    mec.execute("import os, time")
    source = (
        "for i in range(3):\n"
        "    print('before', i); os.system(f'echo c {i}'); display(i); print('after', i)\n"
        "    time.sleep(0.5)\n"
        "print('end')"
    )
    result = mec.execute(source, targets=[0, 1], block=False)
    came: list[tuple[float, Block]] = []
    result.outputs[0].listen(lambda blocks: came.extend((time.monotonic(), block) for block in blocks))
    result.get_result()
    for rank in (0, 1):
        own = [block for _, block in came if rank in block.engines]
        assert not [block for block in own if block.kind == STDERR]
        told = "".join(f"<{block.formats['text/plain']!r}>\n" if block.formats else block.text for block in own)
        assert told == "".join(f"before {i}\nc {i}\n<'{i}'>\nafter {i}\n" for i in range(3)) + "end\n"
    moments = [moment for moment, block in came if block.kind == DISPLAY and 0 in block.engines]
    assert moments[-1] - moments[0] > 0.6  # the first one did not wait for the last


def test_a_value_comes_in_its_formats_with_its_result(mec: MultiEngineClient) -> None:
    source = "class T:\n    def _repr_html_(self): return '<b>5</b>'\n    def __repr__(self): return 'T'\n"
    assert displays(mec.execute(source + "T()", block=False)) == []
    blocks = displays(mec.execute("display(T())", block=False))
    assert all(block.formats == {"text/html": "<b>5</b>", "text/plain": "T"} for block in blocks)
    assert sorted(engine for block in blocks for engine in block.engines) == list(range(8))


def test_the_largest_display_arrives(mec: MultiEngineClient) -> None:
    source = "display({'image/png': b'x' * 800_000, 'text/plain': 'large'}, raw=True)"
    blocks = displays(mec.execute(source, targets=[0, 1, 2], block=False))
    assert all(block.formats == {PNG: b"x" * 800_000, "text/plain": "large"} for block in blocks)
    assert sorted(engine for block in blocks for engine in block.engines) == [0, 1, 2]


def test_functions_that_are_applied_can_display(mec: MultiEngineClient) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("def show(n): display(n)", names)  # as it is typed at a prompt
    view = mec[[3]]
    view.block = False
    blocks = displays(view.apply(names["show"], 5))
    assert [(block.engines, block.formats) for block in blocks] == [((3,), {"text/plain": "5"})]
