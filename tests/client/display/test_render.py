from __future__ import annotations

import time
from typing import Any

import pytest

from ipmpi.client.display.blocks import DISPLAY, STDERR, STDOUT, Block
from ipmpi.client.display.render import Renderer


def out(engines: Any, text: str, kind: int = STDOUT) -> Block:
    return Block(kind, tuple(engines), text)


def test_equal_output_is_shown_once_with_its_ranks() -> None:
    blocks = [out(range(1023), "ok\n"), out([1023], "no\n")]
    assert Renderer().render(blocks) == "[0-1022] ok\n[1023] no\n"


def test_it_does_not_matter_in_how_many_blocks_it_came() -> None:
    blocks = [out([0, 1], "a\n"), out([2], "a\nb\n"), out([0], "b\n"), out([1], "b\n"), out([3], "a\n")]
    assert Renderer().render(blocks) == "[0-2] a\n      b\n[3] a\n"


def test_values_look_as_in_ipython_with_ranks_as_numbers() -> None:
    values = {0: "1", 1: "1", 2: None, 3: "array([[1, 2],\n       [3, 4]])"}
    assert Renderer().render([], values) == "Out[0-1]: 1\nOut[3]: array([[1, 2],\n               [3, 4]])\n"


def test_stderr_and_displays_follow_stdout() -> None:
    figure = Block(DISPLAY, (0, 1), formats={"image/png": b"x"})
    text = Block(DISPLAY, (2,), formats={"text/plain": "<Table>"})
    blocks = [out([0, 1], "bad\n", STDERR), figure, out([0, 1], "good\n"), text]
    shown = "[0-1] good\n[0-1 stderr] bad\n[0-1] <image/png>\n[2] <Table>\n"
    assert Renderer().render(blocks) == shown
    assert Renderer().render([figure], shown=lambda ids, formats: f"{ids!r} {list(formats)}") == (
        "[0-1] [0-1] ['image/png']\n"
    )


def test_numeric_folds_what_differs_by_numbers_only() -> None:
    blocks = [out([rank], f"I am {rank}\n") for rank in range(64)] + [out([64], "I am late\n")]
    assert Renderer(fold="numeric").render(blocks, {0: "1.5", 1: "2.5"}) == (
        "[0-63] I am 0 .. 63\n[64] I am late\nOut[0-1]: 1.5 .. 2.5 (mean 2, min: rank 0, max: rank 1)\n"
    )


def test_without_folding_each_rank_is_alone() -> None:
    assert Renderer(fold="off").render([out([1, 0], "a\n")], {0: "1", 1: "1"}) == (
        "[0] a\n[1] a\nOut[0]: 1\nOut[1]: 1\n"
    )


def test_outputs_can_be_grouped_by_engine_or_order() -> None:
    blocks = [out([0, 1], "a\n"), out([0, 1], "e\n", STDERR), out([2], "a\n"), out([0, 1, 2], "b\n")]
    values = {0: "1", 1: "1", 2: "1"}
    assert Renderer(group_outputs="engine").render(blocks, values) == (
        "[0-1] a\n      b\n[0-1 stderr] e\nOut[0-1]: 1\n[2] a\n    b\nOut[2]: 1\n"
    )
    assert Renderer(group_outputs="order").render(blocks, values) == (
        "[0-2] a\n[0-1 stderr] e\n[0-2] b\nOut[0-2]: 1\n"
    )


def test_long_blocks_are_cut_in_the_middle_and_say_how_to_see_all() -> None:
    text = "".join(f"line {number}\n" for number in range(1000))
    shown = Renderer(max_lines=5).render([out([0], text)]).splitlines()
    assert shown == [
        "[0] line 0",
        "    line 1",
        "    line 2",
        "    ... 996 lines left out: result.display(max_lines=None) shows all ...",
        "    line 999",
    ]
    assert len(Renderer(max_lines=None).render([out([0], text)]).splitlines()) == 1000
    long = Renderer(max_lines=2).render([out([0], "x" * 100_000)])
    assert len(long) < 300
    assert "characters left out: result.display(max_lines=None) shows all" in long


def test_many_different_blocks_are_cut_too() -> None:
    blocks = [out([rank], f"I am {rank}\n") for rank in range(1024)]
    shown = Renderer().render(blocks).splitlines()
    assert len(shown) == 101
    assert shown[50] == (
        "[50-973] ... 924 other blocks left out: result.display(max_lines=None) shows all, and fold='numeric' "
        "puts numbers together ..."
    )
    assert len(Renderer(max_lines=None).render(blocks).splitlines()) == 1024


def test_colours_are_for_terminals_and_control_sequences_for_nobody() -> None:
    blocks = [out([0], "\033[1mbold\033[2J\n"), out([1], "\033[31merr\n", STDERR)]
    assert Renderer().render(blocks) == "[0] bold\\x1b[2J\n[1 stderr] err\n"
    assert Renderer(colours=True).render(blocks) == (
        "\033[0;32m[0]\033[0m \033[1mbold\\x1b[2J\033[0m\n\033[0;31m[1 stderr]\033[0m \033[31merr\033[0m\n"
    )


def test_a_bar_that_was_overwritten_shows_its_end() -> None:
    assert Renderer().render([out([0, 1], "\r 1%\r 50%\r100%\n")]) == "[0-1] 100%\n"


@pytest.mark.parametrize("option", [{"fold": "numbers"}, {"group_outputs": "rank"}])
def test_an_unknown_option_is_refused_with_the_possible_ones(option: Any) -> None:
    with pytest.raises(ValueError, match=r"must be '.*', '.*' or '.*', not '(numbers|rank)'"):
        Renderer(**option)


def test_a_thousand_ranks_that_say_the_same_cost_milliseconds() -> None:
    ranks = tuple(range(1024))
    blocks, values = [out(ranks, f"line {number}\n") for number in range(10)], dict.fromkeys(ranks, "5")
    spent = []
    for _ in range(5):
        begun = time.perf_counter()
        assert Renderer().render(blocks, values).startswith("[0-1023] line 0\n")
        spent.append(time.perf_counter() - begun)
    assert min(spent) < 0.005
