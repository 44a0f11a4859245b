"""What ranks of a node print while no command runs is kept, bounded, and had by rank."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipmpi import limits
from ipmpi.engine.agent.setoutput import SetOutput
from ipmpi.transport.loop import Loop


@pytest.fixture
def output() -> Iterator[SetOutput]:
    loop = Loop()
    yield SetOutput(loop, lambda message: None)
    loop.close()


def test_the_log_is_had_by_rank_and_from_its_end(output: SetOutput) -> None:
    for number in range(4):
        output.noted(number % 2, b"line %d\n" % number)
    assert output.log_of([1, 0, 7], 100) == {1: b"line 1\nline 3\n", 0: b"line 0\nline 2\n", 7: b""}
    assert output.log_of([1], 9) == {1: b"1\nline 3\n"}
    assert output.log_of([1], 7) == {1: b"line 3\n"}


def test_short_lines_take_no_more_memory_than_long_ones(output: SetOutput) -> None:
    most = limits.OUTPUT_KEPT // limits.OUTPUT_ENTRY
    output.noted(0, b"first\n")
    for _ in range(most + 1):
        output.noted(0, b"\n")
    kept = output.log_of([0], limits.OUTPUT_KEPT)[0]
    assert b"first" not in kept
    assert most // 2 < len(kept) <= most
