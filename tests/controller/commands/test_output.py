"""What is passed on to clients of that which engine sets tell."""

from __future__ import annotations

import itertools

import pytest

from ipmpi import limits
from ipmpi.controller.commands.output import for_client
from ipmpi.controller.commands.queuedcommand import QueuedCommand
from ipmpi.protocol import messages as m


@pytest.fixture
def work() -> QueuedCommand:
    return QueuedCommand(1, 1, 7, "execute", "print()", b"", [])


def test_only_engines_that_run_the_command_are_passed_on(work: QueuedCommand) -> None:
    message = m.Output(99, [m.OutputBlock(m.STDOUT, 0, [0, 1], b"a\n"), m.OutputBlock(m.STDERR, 0, [1], b"b\n")])
    passed_on = for_client(work, message, lambda ranks: [rank + 10 for rank in ranks if rank == 0])
    assert passed_on == m.Output(7, [m.OutputBlock(m.STDOUT, 0, [10], b"a\n")])


@pytest.mark.parametrize("kind", [-1, 3, 2**40])
def test_a_kind_of_output_that_there_is_not_is_dropped(work: QueuedCommand, kind: int) -> None:
    assert for_client(work, m.Output(99, [m.OutputBlock(kind, 0, [0], b"a\n")]), list) is None


def test_blocks_without_text_come_to_an_end(work: QueuedCommand) -> None:
    empty = m.Output(99, [m.OutputBlock(m.STDOUT, 0, [0], b"")] * 4096)
    most = limits.OUTPUT // 4096 + 1
    came = sum(1 for _ in itertools.takewhile(bool, (for_client(work, empty, list) for _ in range(most))))
    assert came < most
