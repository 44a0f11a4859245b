"""How terminals show pictures."""

from __future__ import annotations

import base64
import importlib.util
import io
import re
from collections.abc import Callable
from typing import Any

import pytest

from ipmpi.client.display.imageprotocols import encoded, protocol_of, size_of_png


@pytest.fixture(autouse=True)
def pillow(need: Callable[[str, object], None]) -> None:
    need("no Pillow; 'make test' installs it with matplotlib", importlib.util.find_spec("PIL"))


def png(width: int = 20, height: int = 10, colour: str = "red", mode: str = "RGB") -> bytes:
    Image: Any = importlib.import_module("PIL.Image")
    file = io.BytesIO()
    picture = Image.new(mode, (width, height), colour)
    picture.putpixel((width - 1, height - 1), (0, 0, 255, 255)[: len(mode)])
    picture.save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        ({}, "file"),
        ({"TERM": "xterm-256color"}, "file"),
        ({"TERM": "xterm-kitty"}, "kitty"),  # also through ssh
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM": "foot-extra"}, "sixel"),
        ({"TERM": "mlterm-256color"}, "sixel"),
        # A multiplexer hides the terminal, whatever that has left in the environment.
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, "file"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux-0/default,1,0"}, "file"),
        ({"TERM": "screen.xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "file"),
        ({"TERM_PROGRAM": "vscode"}, "file"),  # it shows pictures only if that is switched on
        ({"TERM": "xterm", "IPMPI_PICTURES": "Sixel"}, "sixel"),
        ({"TERM": "xterm-kitty", "IPMPI_PICTURES": "file"}, "file"),
        ({"TERM": "xterm-kitty", "IPMPI_PICTURES": "crayons"}, "kitty"),
    ],
)
def test_a_terminal_is_known_by_its_environment(environ: dict[str, str], protocol: str) -> None:
    assert protocol_of(environ) == protocol


def test_the_size_of_a_picture_is_read() -> None:
    assert size_of_png(png(640, 480)) == (640, 480)
    assert size_of_png(b"\x89PNG") is None
    assert size_of_png(b"GIF89a" + bytes(50)) is None


def test_kitty_gets_chunks_and_may_not_answer() -> None:
    data = png() + bytes(range(256)) * 40
    text = encoded("image/png", data, "kitty")
    assert text is not None
    parts = re.findall(r"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", text)
    assert "".join(f"\x1b_G{keys};{piece}\x1b\\" for keys, piece in parts) == text
    assert [keys for keys, _ in parts] == ["a=T,f=100,q=2,m=1", "m=1", "m=1", "m=0"]
    assert all(len(piece) <= 4096 for _, piece in parts)
    assert base64.b64decode("".join(piece for _, piece in parts)) == data


def test_iterm_gets_one_sequence() -> None:
    data = png()
    text = encoded("image/png", data, "iterm")
    assert text is not None
    head, _, rest = text.partition(":")
    assert head == f"\x1b]1337;File=inline=1;size={len(data)}"
    assert base64.b64decode(rest.removesuffix("\a")) == data


def pixels_of_sixel(text: str) -> dict[tuple[int, int], tuple[int, ...]]:
    """What a terminal would draw: colours in percent."""
    body = text.removeprefix("\x1bP0;1q").removesuffix("\x1b\\")
    body = re.sub(r'^"[\d;]*', "", body)
    palette: dict[int, tuple[int, ...]] = {}
    drawn: dict[tuple[int, int], tuple[int, ...]] = {}
    x = y = colour = 0
    for token in re.findall(r"#[\d;]+|!\d+.|[?-~]|\$|-", body):
        if token[0] == "#":
            colour, *rest = map(int, token[1:].split(";"))
            palette |= {colour: tuple(rest[1:])} if rest else {}
        elif token == "$":
            x = 0
        elif token == "-":
            x, y = 0, y + 6
        else:
            count = int(token[1:-1]) if token[0] == "!" else 1
            bits = ord(token[-1]) - 63
            drawn |= {
                (x + i, y + bit): palette[colour] for i in range(count) for bit in range(6) if bits >> bit & 1
            }
            x += count
    return drawn


def test_sixels_draw_the_picture() -> None:
    text = encoded("image/png", png(20, 10), "sixel")
    assert text is not None
    drawn = pixels_of_sixel(text)
    assert set(drawn) == {(x, y) for x in range(20) for y in range(10)}
    assert drawn[19, 9] == (0, 0, 100)
    assert {drawn[place] for place in drawn if place != (19, 9)} == {(100, 0, 0)}


def test_what_is_transparent_is_white_in_sixels() -> None:
    text = encoded("image/png", png(4, 4, "#00000000", "RGBA"), "sixel")
    assert text is not None
    assert pixels_of_sixel(text)[0, 0] == (100, 100, 100)


@pytest.mark.parametrize("protocol", ["kitty", "iterm", "sixel"])
def test_what_is_no_picture_is_not_sent_to_a_terminal(protocol: Any) -> None:
    assert encoded("image/png", b"\x1b]0;title\a", protocol) is None
    assert encoded("image/gif", b"GIF89a", protocol) is None
    assert encoded("image/png", png(), "file") is None
    assert encoded("image/png", png()[:40], "sixel") is None
