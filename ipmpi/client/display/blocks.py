"""What ranks print and display, as it arrives: alike for several engines, in blocks."""

from __future__ import annotations

from typing import Final, NamedTuple

from ...protocol import messages

STDOUT: Final = messages.STDOUT
STDERR: Final = messages.STDERR
DISPLAY: Final = messages.DISPLAY


class Block(NamedTuple):
    """What some engines have printed alike, or one thing that they have displayed.

    Attributes:
        kind: :data:`STDOUT`, :data:`STDERR` or :data:`DISPLAY`.
        engines: their ids.
        text: whole lines, except that the last one may go on in a later block; empty for a display.
        formats: of a display, by MIME type.
    """

    kind: int
    engines: tuple[int, ...]
    text: str = ""
    formats: dict[str, str | bytes] = {}  # noqa: RUF012 - it is never changed


class Output(NamedTuple):
    """All that an engine, or a set of engines alike, has printed and shown during a command.

    Attributes:
        stdout: the text on standard output.
        stderr: the text on standard error.
        displays: what was displayed on the way, each in several formats by MIME type.
        value: the text of the value of the last expression, as IPython would show it; None if there was none.
        formats: further formats of that value, by MIME type.
    """

    stdout: str = ""
    stderr: str = ""
    displays: tuple[dict[str, str | bytes], ...] = ()
    value: str | None = None
    formats: dict[str, str | bytes] = {}  # noqa: RUF012 - it is never changed
