"""Text of ranks, made harmless for the terminal of the person who reads it."""

from __future__ import annotations

import re
from typing import Final

RESET: Final = "\033[0m"

# Colours and weights (SGR) are the only sequences that pass. Others can change the title of the window, its
# clipboard or the keys, or make a terminal type an answer. C1 controls do the same in one character.
_COLOUR: Final = r"\x1b\[[0-9;:]{0,64}m"
_HARMFUL: Final = re.compile(rf"({_COLOUR})|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_COLOURS: Final = re.compile(_COLOUR)


def safe(text: str) -> str:
    """The text with every control sequence but colours written out; newlines, tabs and carriage returns stay.

    What is coloured at the end is reset there, so that it does not colour what follows.
    """
    if text.isprintable():
        return text
    made = _HARMFUL.sub(lambda found: found[1] or f"\\x{ord(found[0]):02x}", text)
    colours = _COLOURS.findall(made)
    if not colours or colours[-1] in (RESET, "\033[m"):
        return made
    body = made.rstrip("\n")
    return f"{body}{RESET}{made[len(body) :]}"


def uncoloured(text: str) -> str:
    """The text without colours."""
    return _COLOURS.sub("", text) if "\033" in text else text


def settled(text: str) -> str:
    """What stays visible of each line that goes back to its beginning by carriage returns, as progress bars do."""
    if "\r" not in text:
        return text
    return "\n".join(map(_overwritten, text.split("\n")))


def _overwritten(line: str) -> str:
    shown = ""
    for part in line.rstrip("\r").split("\r"):
        # What a text covers of a coloured one is not worth counting.
        has_colours = "\033" in part or "\033" in shown
        shown = (part or shown) if has_colours else part + shown[len(part) :]
    return shown
