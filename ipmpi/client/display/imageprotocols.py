"""Pictures in a terminal: which protocol it has, by its environment, and the bytes of a picture in it (no I/O).

No terminal is asked: one that does not answer would keep its user waiting, or show the question.
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Mapping
from typing import Final, Literal, cast

Protocol = Literal["kitty", "iterm", "sixel", "file"]
PROTOCOLS: Final = ("kitty", "iterm", "sixel", "file")

CHOICE: Final = "IPMPI_PICTURES"
"""Environment variable that says which of :data:`PROTOCOLS` the terminal has; ``file`` is none of them."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
_KITTY_CHUNK: Final = 4096
_COLOURS: Final = 255
_SIXEL_ROWS: Final = 6


def protocol_of(environ: Mapping[str, str]) -> Protocol:
    """What the terminal of these environment variables shows pictures by; ``file`` if it is not known to do so."""
    chosen = environ.get(CHOICE, "").lower()
    if chosen in PROTOCOLS:
        return cast(Protocol, chosen)
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if "TMUX" in environ or environ.get("STY") or term.startswith(("tmux", "screen")):
        return "file"  # these pass on no pictures
    if "KITTY_WINDOW_ID" in environ or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    if term.startswith(("foot", "mlterm", "yaft", "contour")):
        return "sixel"
    return "file"


def size_of_png(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG; None if it is none."""
    if len(data) < 24 or not data.startswith(_PNG):
        return None
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def encoded(mime: str, data: bytes, protocol: Protocol) -> str | None:
    """What shows a picture where the cursor is; None if it cannot be shown by this protocol."""
    is_png = mime == "image/png" and data.startswith(_PNG)
    is_jpeg = mime == "image/jpeg" and data.startswith(_JPEG)
    if protocol == "kitty" and is_png:
        return _kitty(data)
    if protocol == "iterm" and (is_png or is_jpeg):
        text = base64.b64encode(data).decode()
        return f"\033]1337;File=inline=1;size={len(data)}:{text}\a"
    if protocol == "sixel" and (is_png or is_jpeg):
        return _sixel(data)
    return None


def _kitty(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    pieces = [text[start : start + _KITTY_CHUNK] for start in range(0, len(text), _KITTY_CHUNK)]
    # q=2: it must not answer, as the answer would be taken for what the user types.
    first = "a=T,f=100,q=2,"
    made = []
    for number, piece in enumerate(pieces, 1):
        made.append(f"\033_G{first}m={int(number < len(pieces))};{piece}\033\\")
        first = ""
    return "".join(made)


def _sixel(data: bytes) -> str | None:
    """With the 255 colours that fit best; None without Pillow, or if the picture is broken."""
    try:
        from PIL import Image

        with Image.open(io.BytesIO(data)) as opened:
            canvas = Image.new("RGBA", opened.size, "white")
            canvas.alpha_composite(opened.convert("RGBA"))
        picture = canvas.convert("RGB").quantize(_COLOURS)
    except (ImportError, OSError, ValueError, SyntaxError, ArithmeticError):
        return None
    width, height = picture.size
    palette = picture.getpalette() or []
    pixels = picture.tobytes()
    head = [f'\033P0;1q"1;1;{width};{height}']
    for colour in range(len(palette) // 3):
        red, green, blue = (round(each * 100 / 255) for each in palette[3 * colour : 3 * colour + 3])
        head.append(f"#{colour};2;{red};{green};{blue}")
    bands = [
        _band([pixels[row * width : (row + 1) * width] for row in range(top, min(top + _SIXEL_ROWS, height))])
        for top in range(0, height, _SIXEL_ROWS)
    ]
    return "".join(head) + "-".join(bands) + "\033\\"


def _band(rows: list[bytes]) -> str:
    """Up to six rows: for each colour that is in them, which pixels of each column have it."""
    made = []
    for colour in sorted(set().union(*rows)):
        only = bytes(number == colour for number in range(256))
        masks = [int.from_bytes(row.translate(only), "big") << bit for bit, row in enumerate(rows)]
        columns = sum(masks).to_bytes(len(rows[0]), "big")
        made.append(f"#{colour}{_run_lengths(columns)}")
    return "$".join(made)


def _run_lengths(columns: bytes) -> str:
    made: list[str] = []
    start = 0
    for end in range(1, len(columns) + 1):
        if end == len(columns) or columns[end] != columns[start]:
            count, character = end - start, chr(63 + columns[start])
            made.append(f"!{count}{character}" if count > 3 else character * count)
            start = end
    return "".join(made)
