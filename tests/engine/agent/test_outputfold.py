"""Equal lines of ranks go up once."""

from __future__ import annotations

import math
import random

from hypothesis import given, strategies as st

from ipmpi import limits
from ipmpi.engine.agent.outputfold import OutputFold, messages_of
from ipmpi.protocol import messages as m


def told(fold: OutputFold, command: int = 1) -> list[tuple[int, int, list[int], bytes]]:
    return [(b.kind, b.first, b.engines, b.data) for b in fold.take(command)]


def test_equal_lines_become_one_block_of_all_ranks() -> None:
    fold = OutputFold()
    for rank in (2, 0, 1):
        for number in range(3):
            fold.add(1, (rank,), m.STDOUT, number, b"line %d\n" % number, 0.0)
    assert told(fold) == [(m.STDOUT, 0, [0, 1, 2], b"line 0\nline 1\nline 2\n")]
    assert told(fold) == []


def test_a_line_that_differs_stands_between_those_that_do_not() -> None:
    fold = OutputFold()
    for rank in range(3):
        for number, line in enumerate((b"same\n", b"rank %d\n" % (rank == 2), b"same\n")):
            fold.add(1, (rank,), m.STDOUT, number, line, 0.0)
    assert told(fold) == [
        (m.STDOUT, 0, [0, 1, 2], b"same\n"),
        (m.STDOUT, 1, [0, 1], b"rank 0\n"),
        (m.STDOUT, 1, [2], b"rank 1\n"),
        (m.STDOUT, 2, [0, 1, 2], b"same\n"),
    ]


def test_a_display_stays_between_the_lines_around_it() -> None:
    fold = OutputFold()
    for rank in (1, 0):
        for number, (kind, data) in enumerate(
            [(m.STDOUT, b"before %d\n" % rank), (m.DISPLAY, b"figure"), (m.STDOUT, b"after\n")]
        ):
            fold.add(1, (rank,), kind, number, data, 0.0)
    assert told(fold) == [
        (m.STDOUT, 0, [1], b"before 1\n"),
        (m.STDOUT, 0, [0], b"before 0\n"),
        (m.DISPLAY, 1, [0, 1], b"figure"),
        (m.STDOUT, 2, [0, 1], b"after\n"),
    ]


def test_streams_and_commands_stay_apart() -> None:
    fold = OutputFold()
    fold.add(1, (0,), m.STDOUT, 0, b"x\n", 0.0)
    fold.add(1, (0,), m.STDERR, 0, b"x\n", 0.0)
    fold.add(2, (0,), m.STDOUT, 0, b"x\n", 0.0)
    assert told(fold) == [(m.STDOUT, 0, [0], b"x\n"), (m.STDERR, 0, [0], b"x\n")]
    assert told(fold, 2) == [(m.STDOUT, 0, [0], b"x\n")]


def test_an_unfinished_line_ends_its_block() -> None:
    fold = OutputFold()
    for number, data in enumerate((b"10%", b" 20%\n", b"done\n")):
        fold.add(1, (0,), m.STDOUT, number, data, 0.0)
    assert told(fold) == [(m.STDOUT, 0, [0], b"10%"), (m.STDOUT, 1, [0], b" 20%\ndone\n")]


def test_displays_are_never_joined() -> None:
    fold = OutputFold()
    for rank in (0, 1):
        fold.add(1, (rank,), m.DISPLAY, 0, b"picture\n", 0.0)
        fold.add(1, (rank,), m.DISPLAY, 1, b"picture\n", 0.0)
    assert told(fold) == [(m.DISPLAY, 0, [0, 1], b"picture\n"), (m.DISPLAY, 1, [0, 1], b"picture\n")]


def test_what_nodes_below_have_folded_is_folded_once_more() -> None:
    above, below, here = OutputFold(), OutputFold(), OutputFold()
    for fold, ranks in ((below, (2, 3)), (here, (0, 1))):
        for rank in ranks:
            for number in range(2):
                fold.add(1, (rank,), m.STDOUT, number, b"%d\n" % number, 0.0)
            fold.add(1, (rank,), m.STDOUT, 2, b"unfinished", 0.0)
    above.add_blocks(1, below.take(1), 0.0)
    above.add_blocks(1, here.take(1), 0.0)
    assert told(above) == [(m.STDOUT, 0, [0, 1, 2, 3], b"0\n1\nunfinished")]


def test_it_is_due_a_window_after_the_first_line() -> None:
    fold = OutputFold()
    assert fold.next_deadline == math.inf
    fold.add(1, (0,), m.STDOUT, 0, b"x\n", 10.0)
    fold.add(1, (0,), m.STDOUT, 1, b"y\n", 10.09)
    assert fold.next_deadline == 10.0 + limits.OUTPUT_WINDOW
    assert fold.due(10.05) == []
    assert fold.due(10.0 + limits.OUTPUT_WINDOW) == [1]
    fold.take(1)
    assert fold.next_deadline == math.inf


def test_messages_stay_below_the_limit() -> None:
    fold = OutputFold()
    for number in range(300):
        fold.add(1, (number,), m.STDOUT, number, b"x" * limits.OUTPUT_LINE, 0.0)
    blocks = fold.take(1)
    made = messages_of(1, blocks)
    assert [block for message in made for block in message.blocks] == blocks
    assert len(made) > 1
    assert all(len(m.encode(message)) < limits.MESSAGE for message in made)


lines_of_ranks = st.lists(st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n"]), max_size=6), min_size=1, max_size=5)


@given(lines_of_ranks, st.randoms(use_true_random=False))
def test_each_rank_gets_back_its_own_lines_in_order(printed: list[list[bytes]], chance: random.Random) -> None:
    fold, left = OutputFold(), [list(enumerate(lines)) for lines in printed]
    while any(left):
        rank = chance.choice([number for number, lines in enumerate(left) if lines])
        number, line = left[rank].pop(0)
        fold.add(1, (rank,), m.STDOUT, number, line, 0.0)
    got: list[bytes] = [b"" for _ in printed]
    for block in fold.take(1):
        for rank in block.engines:
            got[rank] += block.data
    assert got == [b"".join(lines) for lines in printed]
