"""What a command has printed is shown once, also if another controller tells it again."""

from __future__ import annotations

from ipmpi.client.session.commandoutput import CommandOutput
from ipmpi.protocol import messages as m


def printed(engine: int, first: int, text: str) -> m.OutputBlock:
    return m.OutputBlock(m.STDOUT, first, [engine], text.encode())


def test_what_came_before_a_controller_was_killed_is_not_shown_again() -> None:
    output = CommandOutput(is_journalled=True)
    before = [printed(0, 0, "a\n"), printed(1, 0, "a\n"), printed(1, 0, "a\n")]
    output.add(before)
    output.may_come_again()
    output.add([*before, printed(0, 1, "b\n")])
    assert [(block.engines, block.text) for block in output.blocks] == [
        ((0,), "a\n"), ((1,), "a\n"), ((1,), "a\n"), ((0,), "b\n"),
    ]  # fmt: skip


def test_two_blocks_alike_are_both_shown_as_long_as_nothing_is_told_again() -> None:
    for output in (CommandOutput(), CommandOutput(is_journalled=True)):
        output.add([printed(0, 0, "a\n")])
        output.add([printed(0, 0, "a\n")])
        assert output.size == 4
