"""Lines of a stream: numbered, bounded, and whole characters."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from ipmpi import limits
from ipmpi.engine.agent.linecutter import LineCutter, cut


def pieces(cutter: LineCutter, *data: bytes) -> list[tuple[int, bytes]]:
    return [line for part in data for line in cutter.feed(part)]


def test_lines_are_told_when_they_are_complete() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"one\ntw") == [(0, b"one\n")]
    assert cutter.has_unfinished
    assert cutter.feed(b"o\n\n") == [(1, b"two\n"), (2, b"\n")]
    assert not cutter.has_unfinished
    assert cutter.finish() == []


def test_a_line_that_does_not_end_is_told_once() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"prompt> ") == []
    assert cutter.unfinished() == [(0, b"prompt> ")]
    assert cutter.unfinished() == []
    assert cutter.feed(b"yes\n") == [(1, b"yes\n")]
    assert cutter.feed(b"end") == []
    assert cutter.finish() == [(2, b"end")]


def test_a_carriage_return_ends_no_line() -> None:
    assert LineCutter().feed(b"10%\r20%\r\n") == [(0, b"10%\r20%\r\n")]


@pytest.mark.parametrize("text", ["é", "€", "😀"])
def test_an_unfinished_line_is_cut_between_characters(text: str) -> None:
    data = text.encode()
    for size in range(1, len(data)):
        cutter = LineCutter()
        cutter.feed(b"a" + data[:size])
        assert cutter.unfinished() == [(0, b"a")]
        cutter.feed(data[size:])
        assert cutter.unfinished() == [(1, data)]


def test_bytes_that_are_no_text_are_told_all_the_same() -> None:
    cutter = LineCutter()
    cutter.feed(b"\xff\xfe\x80\x80\x80\x80")
    assert cutter.unfinished() == [(0, b"\xff\xfe\x80\x80\x80\x80")]


def test_a_very_long_line_goes_in_pieces() -> None:
    cutter = LineCutter()
    lines = pieces(cutter, b"x" * limits.OUTPUT_LINE, b"y\n")
    assert lines == [(0, b"x" * limits.OUTPUT_LINE), (1, b"y\n")]


def test_both_ends_of_long_output_are_kept() -> None:
    cutter = LineCutter(half=100)
    told = pieces(cutter, *[b"%04d\n" % number for number in range(1000)])
    assert b"".join(line for _, line in told) == b"".join(b"%04d\n" % number for number in range(20))
    rest = cutter.finish()
    text = b"".join(line for _, line in rest)
    assert text == b"\n... [ipmpi: 4,800 bytes left out here] ...\n" + b"".join(
        b"%04d\n" % number for number in range(980, 1000)
    )
    numbers = [number for number, _ in told + rest]
    assert numbers == list(range(len(numbers)))


def test_one_write_that_is_longer_than_all_that_is_kept() -> None:
    cutter = LineCutter(half=10)
    told = cutter.feed(b"0123456789" * 3)
    assert told == [(0, b"0123456789")]
    assert b"".join(line for _, line in cutter.finish()) == (
        b"\n... [ipmpi: 10 bytes left out here] ...\n0123456789"
    )


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_nothing_is_lost_or_changed(parts: list[bytes]) -> None:
    cutter = LineCutter()
    told = pieces(cutter, *parts) + cutter.finish()
    assert b"".join(line for _, line in told) == b"".join(parts)
    assert [number for number, _ in told] == list(range(len(told)))


@given(st.lists(st.binary(max_size=60), max_size=30), st.integers(1, 50))
def test_memory_is_bounded(parts: list[bytes], half: int) -> None:
    cutter = LineCutter(half)
    told = pieces(cutter, *parts) + cutter.finish()
    whole = b"".join(parts)
    text = b"".join(line for _, line in told)
    if len(whole) <= 2 * half:
        assert text == whole
    else:
        assert text.startswith(whole[:half])
        assert text.endswith(whole[-half:])
        assert len(text) <= 2 * half + 80


@given(st.binary())
def test_cut_is_the_inverse_of_join(data: bytes) -> None:
    lines = cut(data)
    assert b"".join(lines) == data
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines[:-1])


def test_of_many_short_lines_the_first_and_the_last_are_kept() -> None:
    cutter = LineCutter(most_lines=3)
    lines = pieces(cutter, b"0\n1", b"\n2\n3\n4\n", b"5\n6\n7\n8")
    assert lines == [(0, b"0\n"), (1, b"1\n"), (2, b"2\n")]
    text = b"".join(line for _, line in cutter.finish()).decode()
    assert text == "\n... [ipmpi: 6 bytes left out here] ...\n6\n7\n8"


def test_a_flood_of_empty_lines_is_bounded() -> None:
    cutter = LineCutter()
    lines = pieces(cutter, *[b"\n" * limits.OUTPUT_LINE] * 64) + cutter.finish()
    assert len(lines) < 2 * limits.OUTPUT_LINES + 5
