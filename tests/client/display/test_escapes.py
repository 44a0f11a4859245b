from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from ipmpi.client.display.escapes import safe, settled, uncoloured


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\033[31mred\033[0m\n", "\033[31mred\033[0m\n"),
        ("\033[1;38:5:9mred\n", "\033[1;38:5:9mred\033[0m\n"),
        ("\033]0;title\007", "\\x1b]0;title\\x07"),
        ("\033[2J\033[H", "\\x1b[2J\\x1b[H"),
        ("\033]52;c;cm0=\033\\", "\\x1b]52;c;cm0=\\x1b\\"),
        ("\x9b2J\x85", "\\x9b2J\\x85"),
        ("\033[6n\x05\b\x7f", "\\x1b[6n\\x05\\x08\\x7f"),
        ("Jürgen 😀", "Jürgen 😀"),
    ],
)
def test_colours_pass_and_all_else_is_written_out(text: str, shown: str) -> None:
    assert safe(text) == shown


@given(st.text(alphabet=st.sampled_from("\033\x9b\x07\x08[]0123;:mHJ\r\n\t a\\P")))
def test_no_sequence_gets_through(text: str) -> None:
    rest = re.sub(r"\x1b\[[0-9;:]*m", "", safe(text))
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", rest)
    assert uncoloured(safe(text)) == rest


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10%\r20%\r100%\n", "100%\n"),
        ("\r 10%|#  |\r 20%|## |", " 20%|## |"),
        ("a long line\rshort\n", "shortg line\n"),
        ("dos\r\nlines\r\n", "dos\nlines\n"),
        ("\r\033[32mdone\033[0m\n", "\033[32mdone\033[0m\n"),
        ("", ""),
    ],
)
def test_carriage_returns_leave_what_a_terminal_would_show(text: str, shown: str) -> None:
    assert settled(text) == shown
