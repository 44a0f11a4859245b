"""The outputs that a client keeps are bounded, also those that come late."""

from __future__ import annotations

from ipmpi.client.session.commandoutput import CommandOutput
from ipmpi.client.session.recentoutputs import KEPT, KEPT_TEXT, RecentOutputs
from ipmpi.protocol import messages as m


def prints(output: CommandOutput, size: int) -> None:
    output.add([m.OutputBlock(m.STDOUT, 0, [0], b"x" * size)])


def test_the_last_commands_are_kept() -> None:
    recent = RecentOutputs()
    for number in range(KEPT + 5):
        recent.add(str(number), CommandOutput())
    assert [each.label for each in recent.all()] == [str(number) for number in range(5, KEPT + 5)]


def test_the_oldest_go_when_there_is_too_much_text() -> None:
    recent = RecentOutputs()
    for number in range(4):
        output = CommandOutput()
        recent.add(str(number), output)
        prints(output, KEPT_TEXT // 2)
    recent.add("last", CommandOutput())
    assert [each.label for each in recent.all()] == ["2", "3", "last"]


def test_what_is_printed_after_the_next_command_was_sent_counts_as_well() -> None:
    recent, late = RecentOutputs(), CommandOutput()
    recent.add("late", late)
    recent.add("silent", CommandOutput())
    prints(late, KEPT_TEXT + 1)
    recent.add("last", CommandOutput())
    assert [each.label for each in recent.all()] == ["silent", "last"]
