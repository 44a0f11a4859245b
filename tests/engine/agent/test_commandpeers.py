"""Which ranks leave a command in which another one has failed, and when a new communicator is made."""

from __future__ import annotations

import pytest

from ipmpi.engine.agent.commandpeers import CommandPeers
from ipmpi.engine.rank.commandcomm import BROKEN
from ipmpi.protocol import messages as m, operations

FAILED = operations.encode(operations.Failed("ValueError", "no such file\nand more", ""))
DONE = operations.encode(operations.Nothing())


@pytest.fixture
def peers() -> CommandPeers:
    made = CommandPeers(joined=True)
    made.registered(range(4))
    return made


def give(peers: CommandPeers, number: int, ranks: range | list[int], whole: bool = True) -> int:
    """Give a command; return what its ranks do first with the communicator."""
    return peers.given(m.Dispatch(number, list(ranks), "execute", b"", whole=whole))[0].renew


def fail(peers: CommandPeers, number: int, ranks: list[int], used: bool = False) -> m.LeaveCommand | None:
    return peers.answered(m.Result(number, ranks, False, FAILED, used=used))


def finish(peers: CommandPeers, number: int, ranks: range | list[int], used: bool = False) -> None:
    assert peers.answered(m.Result(number, list(ranks), True, DONE, used=used)) is None


def test_the_first_failure_is_told_once_to_those_that_have_not_answered(peers: CommandPeers) -> None:
    assert give(peers, 7, range(4)) == 0
    finish(peers, 7, [0])
    assert fail(peers, 7, [2]) == m.LeaveCommand(7, [1, 3], 2, "ValueError: no such file")
    assert fail(peers, 7, [1]) is None
    assert fail(peers, 7, [3]) is None


def test_a_command_that_succeeds_changes_nothing(peers: CommandPeers) -> None:
    for number in range(3):
        assert give(peers, number, range(4)) == 0
        finish(peers, number, range(4), used=True)


def test_a_failure_without_a_call_of_the_communicator_leaves_it_as_it_is(peers: CommandPeers) -> None:
    give(peers, 1, range(4))
    fail(peers, 1, [0, 1, 2, 3])
    assert give(peers, 2, range(4)) == 0


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_communicator_that_any_rank_has_used_is_replaced_by_the_next_command_on_all(
    peers: CommandPeers, order: list[int]
) -> None:
    """A rank may have sent a message that fits into a buffer, and have ended long before the other fails."""
    give(peers, 1, [0, 1], whole=False)
    for rank in order:
        if rank:
            fail(peers, 1, [1])
        else:
            finish(peers, 1, [0], used=True)
    assert give(peers, 2, [0, 1], whole=False) == BROKEN
    finish(peers, 2, [0, 1])
    assert give(peers, 3, range(4)) == 1
    finish(peers, 3, range(4))
    assert give(peers, 4, [0, 1], whole=False) == 0


def test_all_parts_of_a_command_make_the_same_attempt(peers: CommandPeers) -> None:
    give(peers, 1, range(4))
    fail(peers, 1, [0, 1, 2, 3], used=True)
    assert [give(peers, 2, [0, 1]), give(peers, 2, [2]), give(peers, 2, [3])] == [1, 1, 1]


def test_an_attempt_that_fails_is_followed_by_another_one(peers: CommandPeers) -> None:
    give(peers, 1, range(4))
    fail(peers, 1, [0, 1, 2, 3], used=True)
    give(peers, 2, range(4))
    left = fail(peers, 2, [3])  # interrupted before it had begun
    assert left is not None
    assert left.ranks == [0, 1, 2]
    fail(peers, 2, [0, 1, 2], used=True)
    assert give(peers, 3, range(4)) == 2


def test_ranks_that_get_a_failed_command_later_are_told_as_well(peers: CommandPeers) -> None:
    give(peers, 1, [0, 1])
    fail(peers, 1, [0])
    _, left = peers.given(m.Dispatch(1, [2, 3], "execute", b"", whole=True))
    assert left == m.LeaveCommand(1, [2, 3], 0, "ValueError: no such file")


def test_ranks_that_will_not_get_a_command_free_the_others(peers: CommandPeers) -> None:
    give(peers, 1, [0, 1])
    text = "QueueCleared: execute() failed on engine 2"
    assert peers.will_not_run(m.CommandWithdrawn(1, [2], text)) == m.LeaveCommand(1, [0, 1], 2, text)
    assert peers.will_not_run(m.CommandWithdrawn(9, [2], text)) is None


def test_the_end_of_a_rank_frees_the_others_and_it_is_left_out_from_then_on(peers: CommandPeers) -> None:
    give(peers, 1, range(4))
    assert peers.lost([3], "killed by SIGKILL") == [
        m.LeaveCommand(1, [0, 1, 2], 3, "EngineLost: killed by SIGKILL")
    ]
    fail(peers, 1, [0, 1, 2], used=True)
    message, _ = peers.given(m.Dispatch(2, [0, 1, 2], "execute", b"", whole=True))
    assert (message.renew, message.members) == (1, [0, 1, 2])
    finish(peers, 2, [0, 1, 2])
    message, _ = peers.given(m.Dispatch(3, [0, 1, 2], "execute", b"", whole=True))
    assert (message.renew, message.members) == (0, [])


def test_a_rank_that_ends_while_others_make_the_new_communicator_is_noticed(peers: CommandPeers) -> None:
    peers.lost([3], "killed")
    give(peers, 1, [0, 1, 2])
    finish(peers, 1, [2])
    peers.lost([2], "killed")
    finish(peers, 1, [0, 1])
    message, _ = peers.given(m.Dispatch(2, [0, 1], "execute", b"", whole=True))
    assert (message.renew, message.members) == (2, [0, 1])


def test_ranks_without_a_communicator_are_left_alone() -> None:
    peers = CommandPeers(joined=False)
    peers.registered(range(4))
    assert give(peers, 1, range(4)) == 0
    assert fail(peers, 1, [0]) is None
    assert peers.lost([1], "killed") == []


def test_nothing_is_kept_of_commands_that_have_ended(peers: CommandPeers) -> None:
    for number in range(100):
        give(peers, number, range(4))
        fail(peers, number, [0], used=True)
        finish(peers, number, [1, 2, 3])
    assert not peers._commands
