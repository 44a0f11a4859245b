"""What ranks display, in notebooks, terminals and files."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipmpi.client.display.blocks import DISPLAY, Block
from ipmpi.client.display.live import LiveView
from ipmpi.client.display.pictures import PictureFiles, Pictures, notebook_bundle, pictures_here
from ipmpi.client.display.render import Renderer

PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (640).to_bytes(4, "big") + (480).to_bytes(4, "big") + bytes(20)
FIGURE: dict[str, str | bytes] = {"text/plain": "<Figure size 640x480 with 1 Axes>", "image/png": PNG}
TABLE: dict[str, str | bytes] = {"text/plain": "  a\n0 1", "text/html": "<table></table>"}


@pytest.fixture
def files(tmp_path: Path) -> PictureFiles:
    return PictureFiles(str(tmp_path))


def shown(text: str | None) -> str:
    assert text is not None
    return text


# --- Files ---------------------------------------------------------------------------------------------------


def test_a_figure_becomes_a_file_of_its_user_alone(files: PictureFiles, tmp_path: Path) -> None:
    text = shown(Pictures(Renderer(), files=files).live(Block(DISPLAY, (0, 1, 2, 3), formats=FIGURE)))
    found = re.fullmatch(r"\[0-3\] figure: (/.*/ipmpi-1\.png) \(640x480\)\n", text)
    assert found, text
    path = Path(found[1])
    assert path.parent.parent == tmp_path
    assert path.read_bytes() == PNG
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_each_has_a_name_of_its_own(files: PictureFiles) -> None:
    texts = [shown(Pictures(Renderer(), files=files).show([rank], FIGURE)) for rank in range(3)]
    assert [re.sub(r"/\S*/", "", text) for text in texts] == [
        f"[{rank}] figure: ipmpi-{rank + 1}.png (640x480)\n" for rank in range(3)
    ]


@pytest.mark.parametrize(
    ("formats", "suffix", "content"),
    [
        ({"image/svg+xml": "<svg/>", "text/plain": "a drawing"}, "svg", b"<svg/>"),
        ({"image/jpeg": b"\xff\xd8"}, "jpg", b"\xff\xd8"),
        ({"application/pdf": b"%PDF"}, "pdf", b"%PDF"),
        ({"text/html": "<p>"}, "html", b"<p>"),
    ],
)
def test_other_pictures_become_files_too(
    files: PictureFiles, formats: dict[str, str | bytes], suffix: str, content: bytes
) -> None:
    path = Pictures(Renderer(), files=files).text([0], formats).partition(": ")[2]
    assert path.endswith(f"/ipmpi-1.{suffix}")
    assert Path(path).read_bytes() == content


def test_a_folder_that_was_removed_is_made_again(files: PictureFiles) -> None:
    first = files.write(b"a", "png")
    first.unlink()
    first.parent.rmdir()
    assert files.write(b"b", "png").read_bytes() == b"b"


def test_a_fork_has_its_own_folder(files: PictureFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files.write(b"a", "png")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert files.write(b"b", "png").parent != before.parent


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    pictures = Pictures(Renderer(), files=PictureFiles(str(tmp_path / "none")))
    assert shown(pictures.show([2], FIGURE)).startswith("[2] figure: it could not be written to a file ([Errno 2]")


# --- Texts ---------------------------------------------------------------------------------------------------


def test_a_table_is_text_in_a_terminal(files: PictureFiles, tmp_path: Path) -> None:
    pictures = Pictures(Renderer(), files=files, protocol="kitty")
    assert pictures.show([0, 1], TABLE) == "[0-1]   a\n      0 1\n"
    assert pictures.show([0], {"text/latex": "$x$"}) == "[0] $x$\n"
    assert pictures.show([0], {"application/json": "{}"}) == "[0] <application/json>\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("protocol", ["kitty", "iterm", "file"])
def test_control_sequences_of_ranks_do_no_harm(files: PictureFiles, protocol: Any) -> None:
    pictures = Pictures(Renderer(), files=files, protocol=protocol)
    harmful = "\x1b]0;title\a\x9b2J"
    for formats in (
        {"text/plain": harmful},
        {"text/plain": harmful, "image/png": harmful.encode()},
        {harmful: "x"},
    ):
        text = shown(pictures.show([0], formats))
        assert "\x1b" not in text
        assert "\x9b" not in text
    text = shown(pictures.show([0], {"text/plain": harmful, "image/png": PNG}))
    assert "]0;title" not in text.replace("\\x1b]0;title", "")


def test_values_are_shown_as_values(files: PictureFiles) -> None:
    pictures = Pictures(Renderer(), files=files)
    assert pictures.show_value([0, 1], TABLE) == "Out[0-1]:   a\n          0 1\n"
    assert re.fullmatch(r"Out\[0\]: figure: .*\.png \(640x480\)\n", shown(pictures.show_value([0], FIGURE)))


def test_only_the_chosen_ranks_are_shown(files: PictureFiles) -> None:
    pictures = Pictures(Renderer(), ranks=[0, 5], files=files)
    assert pictures.show([1, 2], TABLE) is None
    assert pictures.text([1, 2], TABLE) == ""
    assert shown(pictures.show([0, 1, 5], TABLE)).startswith("[0, 5] ")
    assert pictures.show_value([3], TABLE) is None


def test_terminals_with_a_protocol_show_the_picture_below_its_ranks(files: PictureFiles, tmp_path: Path) -> None:
    text = shown(Pictures(Renderer(), protocol="kitty", files=files).show([0, 1], FIGURE))
    label, picture = text.split("\n", 1)
    assert label == "[0-1] <Figure size 640x480 with 1 Axes>"
    assert picture.startswith("\x1b_Ga=T,f=100,q=2,m=0;")
    assert picture.endswith("\x1b\\\n")
    assert not list(tmp_path.iterdir())


def test_a_live_view_shows_them_in_order(files: PictureFiles) -> None:
    written: list[str] = []
    view = LiveView(written.append, display=Pictures(Renderer(), files=files).live)
    view.feed(
        [Block(0, (0, 1), "before\n"), Block(DISPLAY, (0, 1), formats=FIGURE), Block(0, (0, 1), "after\n")], 0
    )
    view.finish()
    lines = "".join(written).splitlines()
    assert [lines[0], lines[2]] == ["[0-1] before", "[0-1] after"]
    assert lines[1].startswith("[0-1] figure: ")


def test_a_picture_that_comes_again_from_other_ranks_is_told(files: PictureFiles, tmp_path: Path) -> None:
    pictures = Pictures(Renderer(), files=files)
    assert shown(pictures.show([0, 1], FIGURE)).startswith("[0-1] figure: ")
    assert pictures.show([2], FIGURE) == "[2] the same as [0-1]\n"
    assert pictures.show([4], FIGURE) == "[4] the same as [0-2]\n"
    assert len(list(tmp_path.glob("*/*"))) == 1
    # A rank that displays it twice wants it twice.
    assert shown(pictures.show([0, 1], FIGURE)).startswith("[0-1] figure: ")
    assert pictures.show([2], FIGURE) == "[2] the same as [0-1]\n"
    assert pictures.show([3], TABLE) == pictures.show([3], TABLE)


# --- Notebooks -----------------------------------------------------------------------------------------------


def test_bundles_are_as_jupyter_has_them() -> None:
    formats: dict[str, str | bytes] = {
        **FIGURE,
        "application/json": '{"a": 1}',
        "application/vnd.x+json": "broken",
        "application/vnd.ipmpi.metadata+json": '{"image/png": {"width": 3}}',
    }
    bundle, metadata = notebook_bundle(formats)
    assert bundle == {
        "text/plain": FIGURE["text/plain"],
        "image/png": base64.b64encode(PNG).decode(),
        "application/json": {"a": 1},
        "application/vnd.x+json": "broken",
    }
    assert metadata == {"image/png": {"width": 3}}


def test_without_a_notebook_nothing_is_published() -> None:
    stream = io.StringIO()
    assert pictures_here(Renderer(), stream).is_text
    assert pictures_here(Renderer()).show([0], {"text/plain": "x"}) == "[0] x\n"


@pytest.fixture(scope="module")
def kernel(need: Callable[[str, object], None]) -> Iterator[Any]:
    """A client of a real kernel."""
    need("no ipykernel; 'make test' installs it", importlib.util.find_spec("ipykernel"))
    manager: Any = importlib.import_module("jupyter_client.manager")
    running, client = manager.start_new_kernel(kernel_name="python3")
    yield client
    client.stop_channels()
    running.shutdown_kernel(now=True)


def test_a_notebook_gets_the_bundle_below_the_ranks(kernel: Any) -> None:
    messages: list[Any] = []
    code = f"""
from ipmpi.client.display.pictures import pictures_here
from ipmpi.client.display.render import Renderer
pictures = pictures_here(Renderer())
print(pictures.show((0, 1), {FIGURE!r}), pictures.is_text)
print(pictures.show_value((0, 1), {TABLE!r}), pictures.show((0,), {{"text/plain": "x"}}), sep="\\n")
"""
    kernel.execute_interactive(code, output_hook=messages.append, timeout=60)
    seen = [(each["msg_type"], each["content"]) for each in messages if each["msg_type"] != "status"]
    displays = [content["data"] for kind, content in seen if kind == "display_data"]
    assert displays == [
        {"text/plain": FIGURE["text/plain"], "image/png": base64.b64encode(PNG).decode()},
        TABLE,
    ]
    told = "".join(content.get("text", "<display>\n") for kind, content in seen if kind != "execute_input")
    assert told == "[0-1]\n<display>\nNone False\nOut[0-1]:\n<display>\nNone\n[0] x\n\n"
