from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ipmpi.client.display.blocks import DISPLAY, STDERR, STDOUT, Block
from ipmpi.client.display.live import LINES_AT_ONCE, WINDOW, LiveView

from .screen import Screen


def out(engines: Any, text: str, kind: int = STDOUT) -> Block:
    return Block(kind, tuple(engines), text)


def in_file(**options: Any) -> tuple[LiveView, list[str]]:
    written: list[str] = []
    return LiveView(written.append, **options), written


def on_terminal(**options: Any) -> tuple[LiveView, Screen]:
    screen = Screen()
    return LiveView(screen.write, is_terminal=True, **options), screen


def test_equal_lines_that_come_within_a_window_are_one() -> None:
    view, written = in_file()
    view.feed([out(range(32), "step 1\n")], 10.0)
    view.feed([out(range(32, 64), "step 1\n")], 10.0 + WINDOW / 2)
    assert not written
    assert view.due == 10.0 + WINDOW
    view.tick(10.0 + WINDOW)
    assert written == ["[0-63] step 1\n"]
    assert view.due is None


def test_nothing_waits_longer_than_a_window_although_more_comes() -> None:
    view, written = in_file()
    for number in range(10):
        view.feed([out([0], f"{number}\n")], number * WINDOW / 2)
    assert "".join(written).startswith("[0] 0\n[0] 1\n[0] 2\n")


def test_an_order_of_lines_is_kept_and_other_ranks_lines_stand_between() -> None:
    view, written = in_file()
    view.feed([out([0, 1, 2], "a\n"), out([1], "only here\n"), out([0, 1, 2], "b\n")], 0)
    view.feed([out([3], "a\nb\n"), out([2], "oh\n", STDERR)], 0)
    view.finish()
    assert "".join(written) == "[0-3] a\n[1] only here\n[0-3] b\n[2 stderr] oh\n"


@given(
    st.lists(
        st.tuples(
            st.sets(st.integers(0, 5), min_size=1), st.sampled_from(["a\n", "b\n", "c", "d\n", "\re", "1%", "\n"])
        ),
        max_size=30,
    ),
    st.sampled_from(["exact", "off"]),
    st.integers(1, 5),
)
def test_each_rank_keeps_all_its_lines_in_order(came: list[tuple[set[int], str]], fold: Any, step: int) -> None:
    view, written = in_file(fold=fold)
    blocks = [out(sorted(engines), text) for engines, text in came]
    for start in range(0, len(blocks), step):
        view.feed(blocks[start : start + step], start * WINDOW)
    view.finish()
    shown: dict[int, list[str]] = {}
    for line in "".join(written).splitlines():
        label, _, text = line[1:].partition("] ")
        for part in label.split(", "):
            first, _, last = part.partition("-")
            for engine in range(int(first), int(last or first) + 1):
                shown.setdefault(engine, []).append(text)
    for engine in range(6):
        printed = "".join(block.text for block in blocks if engine in block.engines)
        expected = [line.rpartition("\r")[2] if "\r" in line else line for line in printed.split("\n")]
        mine = shown.get(engine, [])
        if "\r" not in printed:
            assert mine == (expected if expected[-1] else expected[:-1])
        else:
            assert len(mine) in (len(expected), len(expected) - 1)


def test_a_bar_of_all_ranks_is_one_line_that_is_replaced() -> None:
    view, screen = on_terminal()
    view.feed([out(range(64), "start\n")], 0)
    for done in range(0, 101, 10):
        for rank in range(64):
            mine = min(done + rank % 3, 100)
            view.feed([out([rank], f"\r{mine:3d}%|{'#' * (mine // 10):10}| {mine}/100")], done + rank / 1000)
        view.tick(done + 1)
        assert len(screen.lines) == 2, screen.text
    assert screen.text == "[0-63] start\n[0-63] 100%|##########| 100/100"
    view.feed([out(range(64), "\n"), out([3], "done\n")], 200)
    view.finish()
    assert screen.text == "[0-63] start\n[0-63] 100%|##########| 100/100\n[3] done\n"


def test_the_slowest_rank_has_the_bar_and_the_fastest_is_named() -> None:
    view, screen = on_terminal()
    bars = {
        0: "\r 20%|##        | 20/100",
        1: "\r 90%|######### | 90/100",
        2: "\rwaiting",
        3: "\r 30%|###       | 30/100",
    }
    view.feed([out([rank], bar) for rank, bar in bars.items()], 0)
    view.tick(1)
    assert screen.lines == ["[0-1, 3]  20%|##        | 20/100 (slowest: rank 0; rank 1: 90%)", "[2] waiting"]


def test_in_a_file_a_bar_has_its_last_state_only() -> None:
    view, written = in_file()
    for done in (10, 50, 100):
        view.feed([out([0, 1], f"\r{done}%")], done)
        view.tick(done + 1)
    assert not written
    view.feed([out([0], "\n")], 200)
    view.tick(201)
    assert written == ["[0] 100%\n"]
    view.finish()
    assert written == ["[0] 100%\n", "[1] 100%\n"]


def test_what_is_written_without_a_newline_is_seen_at_once_on_a_terminal() -> None:
    view, screen = on_terminal()
    view.feed([out([0], "computing ")], 0)
    view.tick(1)
    assert screen.text == "[0] computing "
    view.feed([out([0], "..."), out([1], "other\n")], 2)
    view.tick(3)
    assert screen.lines == ["[1] other", "[0] computing ..."]
    view.feed([out([0], " done\n")], 4)
    view.finish()
    assert screen.text == "[1] other\n[0] computing ... done\n"


def test_the_status_stays_below_and_goes_in_the_end() -> None:
    view, screen = on_terminal()
    view.status("1/4 done")
    assert screen.text == "1/4 done"
    view.feed([out([0], "line\n")], 0)
    view.tick(1)
    view.status("2/4 done")
    assert screen.lines == ["[0] line", "2/4 done"]
    view.finish()
    assert screen.text == "[0] line\n"
    quiet, written = in_file()
    quiet.status("1/4 done")
    assert not written


def test_what_stands_below_never_wraps_so_that_it_can_be_replaced() -> None:
    view, screen = on_terminal(width=30)
    view.status("x" * 100)
    view.feed([out([rank], f"\rrank {'abcdefghij'[rank]} at " + "y" * 100) for rank in range(10)], 0)
    view.tick(1)
    assert max(map(len, screen.lines)) < 30
    assert screen.lines[-2:] == ["[6-9] ... 4 others", "x" * 29]
    view.status(None)
    assert len(screen.lines) == 7


def test_numeric_folds_lines_of_a_window() -> None:
    view, written = in_file(fold="numeric")
    view.feed([out([rank], f"step 1\nresidual {rank + 1}e-06\n") for rank in range(64)], 0)
    view.finish()
    assert "".join(written) == (
        "[0-63] step 1\n[0-63] residual 1e-06 .. 64e-06 (mean 3.25e-05, min: rank 0, max: rank 63)\n"
    )


def test_displays_come_after_what_was_printed_before_them() -> None:
    order: list[object] = []
    figure = Block(DISPLAY, (0, 1), formats={"image/png": b"x"})
    view = LiveView(lambda text: order.append(text), is_terminal=True, display=lambda block: order.append(block))
    view.status("wait")
    view.feed([out([0], "before\n"), figure, out([0], "after\n")], 0)
    view.finish()
    assert order == ["wait", "\r\033[J[0] before\n", figure, "[0] after\n"]
    plain, written = in_file()
    plain.feed([figure], 0)
    plain.finish()
    assert written == ["[0-1] <image/png>\n"]


def test_control_sequences_of_ranks_do_not_reach_the_terminal() -> None:
    view, screen = on_terminal(colours=True)
    view.feed([out([0], "\033]0;mine\007\033[2J\n"), out([1], "\033[Hopen")], 0)
    view.tick(1)
    assert screen.lines[1] == "[1] \\x1b[Hopen"
    assert "\033[0;32m[0]\033[0m \\x1b]0;mine\\x07\\x1b[2J\n" in screen.written


def test_a_flood_is_cut_and_it_is_said_how_much() -> None:
    view, written = in_file()
    for second in range(3):
        view.feed(
            [out([rank], f"{rank}: {number}\n") for rank in range(64) for number in range(100)], float(second)
        )
        view.tick(second + 0.5)
    view.finish()
    text = "".join(written)
    assert LINES_AT_ONCE < len(text.splitlines()) < LINES_AT_ONCE + 600
    assert "lines not shown here: result.stdout has all ..." in text
    told = sum(int(line.split()[2].replace(",", "")) for line in text.splitlines() if "not shown" in line)
    assert told + len([line for line in text.splitlines() if "not shown" not in line]) == 3 * 6400


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    view, written = in_file()
    for _ in range(30):
        view.feed([out([0], "." * 1000)], 0)
        view.tick(1)
    assert "".join(written).count("\n") == 2
    view.finish()
    assert "".join(written).count(".") == 30_000


def test_many_ranks_cost_little() -> None:
    view, written = in_file()
    ranks = tuple(range(1024))
    begun = time.perf_counter()
    view.feed([Block(STDOUT, ranks, f"line {number}\n") for number in range(20)], 0)
    view.finish()
    spent = time.perf_counter() - begun
    assert "".join(written).count("[0-1023]") == 20
    assert spent < 0.1


@pytest.mark.parametrize("fold", ["exact", "numeric", "off"])
def test_nothing_came(fold: Any) -> None:
    view, written = in_file(fold=fold)
    view.feed([], 0)
    view.tick(1)
    view.finish()
    assert not written
