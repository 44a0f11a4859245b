"""What a set tells the controller of its ranks, as engines end and processes die."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from ipmpi.engine.agent.peeragent import PeerAgent
from ipmpi.protocol import messages as m, operations, rankmessages as rm
from ipmpi.protocol.connection import MessageReceived
from ipmpi.transport.loop import Loop
from tests.node import Node


class Wire:
    """A connection, and the link with it, that remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.connection = self
        self.link: Any = Up()

    def send(self, message: m.AnyMessage, body: object = ()) -> None:
        del body
        self.sent.append(message)

    def wake(self) -> None:
        pass


class Up:
    """A link that works."""

    is_open = True


def with_rank_0(
    expected: int, joined: bool, log: Callable[[str], object], on_stop: Callable[[str, bool], object]
) -> Node:
    """A node whose rank 0 has said who it is, and which expects so many nodes below."""
    loop = Loop()
    node = Node(loop, [0], expected, log, on_stop, loop.stop, joined=joined, leaders=[0, 1, 2])
    loop.run()
    loop._stopped = False
    return node


class Set:
    """Rank 0, and two nodes below its own with a rank each."""

    def __init__(self, joined: bool = True) -> None:
        self.stopped: list[str] = []
        self.node = with_rank_0(2, joined, lambda text: None, lambda reason, orphaned: self.stopped.append(reason))
        self.loop, self.rank, self.agent = self.node.loop, self.node.ranks[0], self.node.agent
        self.above = Wire()
        self.agent.above = cast(Any, self.above)
        self.children = []
        for number in (1, 2):
            child = PeerAgent(cast(Any, None), cast(Any, Wire()))
            self.agent.children.append(child)
            self.agent._from_below(
                child, received(m.Register([m.EngineInfo(number, number, "host", 100 + number)], "", "", []))
            )
            self.children.append(child)

    def close(self) -> None:
        end(self.node)

    def hears(self, message: m.AnyMessage) -> None:
        self.agent.from_above(received(message))

    def told(self, number: int) -> list[Any]:
        return cast(Wire, self.children[number - 1].connection).sent


def received(message: m.AnyMessage) -> MessageReceived:
    return MessageReceived(message, [], 0)


@pytest.fixture
def ranks() -> Iterator[Set]:
    made = Set()
    made.agent.register()
    made.hears(m.Registered([10, 11, 12]))
    made.above.sent.clear()
    yield made
    made.close()


def test_ids_that_cross_the_loss_of_a_rank(ranks: Set) -> None:
    # The rank above has named ids for all, and this one has lost a rank of which that one does not know yet.
    ranks.agent._peer_lost(ranks.children[0], "it was killed")
    ranks.hears(m.Registered([20, 21, 22], [0, 1, 2]))
    assert not ranks.stopped
    assert ranks.told(2)[-1] == m.Registered([22], [2])
    ranks.node.local[0].stop(rm.Stop("the test is over"))
    ranks.rank.run()
    assert ranks.rank.namespace.engine_id == 20


def test_after_a_loss_the_others_ask_for_their_old_ids(ranks: Set) -> None:
    ranks.agent._peer_lost(ranks.children[0], "it was killed")
    assert isinstance(ranks.above.sent.pop(), m.RanksLost)
    ranks.agent.register()
    (message,) = ranks.above.sent
    assert [engine.rank for engine in message.engines] == [0, 2]
    assert message.ids == [10, 12]
    ranks.hears(m.Registered([10, 12]))
    assert not ranks.stopped
    assert ranks.told(2)[-1] == m.Registered([12], [2])


def test_an_engine_that_was_ended_does_not_come_back(ranks: Set) -> None:
    ranks.hears(m.StopRanks([0]))
    ranks.hears(m.StopRanks([1]))
    assert ranks.told(1)[-1] == m.StopRanks([1])
    ranks.agent.register()
    (message,) = ranks.above.sent
    assert [engine.rank for engine in message.engines] == [2]
    assert message.ids == [12]
    ranks.hears(m.Registered([12]))
    assert not ranks.stopped


def test_the_set_ends_with_its_last_engine(ranks: Set) -> None:
    ranks.hears(m.StopRanks([0]))
    ranks.hears(m.StopRanks([2]))
    assert not ranks.stopped
    ranks.hears(m.StopRanks([1]))
    assert ranks.stopped == ["ended on request"]
    assert [type(ranks.told(number)[-1]) for number in (1, 2)] == [m.Goodbye, m.Goodbye]


def test_a_set_that_is_restarted_ends_at_once_on_all_nodes(ranks: Set) -> None:
    """It is no end that somebody wanted: whoever started it starts it again."""
    told = m.EndSet("a client has asked for a restart", True)
    ranks.hears(told)
    assert ranks.stopped == ["a client has asked for a restart"]
    assert [ranks.told(number)[-1] for number in (1, 2)] == [
        m.EndSet("a client has asked for a restart", True)
    ] * 2
    assert ranks.agent.ends_at_once
    assert not ranks.agent.is_dismissed


def test_the_set_ends_if_the_last_engine_is_lost(ranks: Set) -> None:
    ranks.hears(m.StopRanks([0, 2]))
    ranks.agent._peer_lost(ranks.children[0], "it was killed")
    assert ranks.stopped == ["no rank is left"]


def test_a_goodbye_reaches_all_ranks(ranks: Set) -> None:
    ranks.hears(m.Goodbye("the controller stopped"))
    assert ranks.stopped == ["the controller ended the session: the controller stopped"]
    assert [type(ranks.told(number)[-1]) for number in (1, 2)] == [m.Goodbye, m.Goodbye]


def test_a_rank_that_was_told_to_end_is_not_to_blame(ranks: Set) -> None:
    """At the end of a job all ranks get SIGTERM at once, and any of them may be the first to go."""
    ranks.agent._from_below(ranks.children[0], received(m.Goodbye("got SIGTERM")))
    ranks.agent._peer_lost(ranks.children[0], "its process ended")
    ranks.agent._peer_lost(ranks.children[1], "it was killed")
    lost = [message for message in ranks.above.sent if isinstance(message, m.RanksLost)]
    assert [(message.ranks, message.ordered) for message in lost] == [([1], True), ([2], False)]


def test_a_node_whose_agent_ends_without_a_word_is_named(ranks: Set) -> None:
    child = ranks.children[0]
    child.engines = [m.EngineInfo(3, 3, "n2", 78), m.EngineInfo(1, 1, "n1", 77)]
    assert child.silent_end("nothing came for 60 s") == (
        "the link to the node agent on n1, through which it is reached, broke (nothing came for 60 s): it was "
        "killed, or the node is down or cut off"
    )
    assert child.silent_end() == (
        "the node agent on n1, through which it is reached, ended without a word: it was killed, or the node is "
        "down or out of memory"
    )


class Arriving(Wire):
    """A link on which bodies are on their way."""

    files = None

    def is_coming(self, stream: int) -> bool:
        return stream > 0

    def allow_files(self, stream: int) -> None:
        pass

    def grant(self, stream: int, size: int) -> None:
        pass


def test_a_body_that_the_kill_of_the_controller_has_cut_off_is_no_answer(ranks: Set) -> None:
    """The rank was not given the command: another controller gives it again, with the whole body."""
    ranks.above = Arriving()
    ranks.agent.above = cast(Any, ranks.above)
    ranks.agent.forget_controller(False, True)
    dispatch = m.Dispatch(9, [0], "push", b"op", [10], client=3, number=1, engines=1)
    ranks.agent.from_above(MessageReceived(dispatch, [], 4))
    ranks.agent.forget_controller(True, True)
    ranks.above.sent.clear()
    ranks.agent.register()
    told = [message for message in ranks.above.sent if isinstance(message, m.CommandsHeld | m.Result)]
    assert told == [m.CommandsHeld(9, 3, 1, "push", 1), m.CommandsHeld(is_last=True)]


# --- the end of the job ----------------------------------------------------------------------------------------


def told_up(ranks: Set, kind: type[Any]) -> list[Any]:
    found = [message for message in ranks.above.sent if isinstance(message, kind)]
    ranks.above.sent.clear()
    return found


def before_walltime(ranks: Set, number: int, seconds: float, whom: list[int]) -> None:
    operation = operations.encode(operations.BeforeWalltime(b"k", seconds, "save"))
    ranks.hears(m.Dispatch(number, whom, "before_walltime", operation))
    ranks.loop._make_calls()


def test_the_controller_is_told_how_much_is_left(ranks: Set) -> None:
    ranks.agent.end.know(ranks.loop.now() + 100, "17")
    ranks.agent.register()
    (message,) = told_up(ranks, m.JobEnds)
    assert 99 < message.seconds <= 100
    assert (message.job, message.warned) == ("17", False)


def test_of_a_job_whose_end_is_not_known_the_name_is_told(ranks: Set) -> None:
    ranks.agent.end.know(None, "17")
    ranks.agent.register()
    assert told_up(ranks, m.JobEnds) == [m.JobEnds(None, "17")]


def test_outside_of_a_job_nothing_is_told(ranks: Set) -> None:
    ranks.agent.register()
    assert told_up(ranks, m.JobEnds) == []


def test_what_is_due_is_asked_for_once(ranks: Set) -> None:
    ranks.agent.end.know(ranks.loop.now() + 100, "")
    ranks.agent.register()
    before_walltime(ranks, 5, 120.0, [0, 1, 2])
    (message,) = told_up(ranks, m.RunBeforeEnd)
    assert (message.ranks, message.label) == ([0, 1, 2], "before_walltime(save)")
    assert operations.decode_operation(message.operation) == operations.EndComes(b"k")
    before_walltime(ranks, 6, 120.0, [0, 1, 2])
    assert told_up(ranks, m.RunBeforeEnd) == []


def test_a_warning_at_any_rank_is_heard_once(ranks: Set) -> None:
    before_walltime(ranks, 5, 60.0, [0, 1])
    assert told_up(ranks, m.RunBeforeEnd) == []
    ranks.agent._from_below(ranks.children[0], received(m.EndIsNear()))
    ranks.agent._from_below(ranks.children[1], received(m.EndIsNear()))
    ranks.agent.end.warned()
    assert [type(message) for message in ranks.above.sent] == [m.JobEnds, m.RunBeforeEnd]
    assert ranks.above.sent[0] == m.JobEnds(None, "", True)


def test_a_rank_in_the_middle_passes_warnings_on(ranks: Set) -> None:
    above = PeerAgent(cast(Any, None), cast(Any, ranks.above))
    ranks.agent.above = above
    ranks.agent.end.warned()
    ranks.agent._from_below(ranks.children[0], received(m.EndIsNear()))
    assert ranks.above.sent == [m.EndIsNear()]


def test_without_a_controller_the_set_does_it_by_itself(ranks: Set) -> None:
    ranks.agent.end.know(ranks.loop.now() + 10, "")
    ranks.above.link = None
    before_walltime(ranks, 5, 60.0, [1, 2])
    for number in (1, 2):
        first, second = ranks.told(number)[-2:]
        assert first.id == 5
        assert operations.decode_operation(second.operation) == operations.EndComes(b"k")
        assert second.ranks == [number]
    count = len(ranks.told(1))
    ranks.agent.end._look()
    assert len(ranks.told(1)) == count, "once"


def test_other_commands_of_that_name_are_the_ranks_affair(ranks: Set) -> None:
    ranks.hears(m.Dispatch(5, [1], "before_walltime", b"rubbish"))
    ranks.hears(m.Dispatch(6, [1], "before_walltime", operations.encode(operations.Reset())))
    assert told_up(ranks, m.RunBeforeEnd) == []
    assert [message.id for message in ranks.told(1)[-2:]] == [5, 6]


def test_nodes_that_do_not_report_are_not_waited_for_for_ever() -> None:
    said: list[str] = []
    node = with_rank_0(2, True, said.append, lambda reason, orphaned: None)
    agent = node.agent
    complete: list[list[int]] = []
    agent.on_complete = lambda: complete.append([engine.rank for engine in agent.engines])
    prompt, late = (PeerAgent(cast(Any, None), cast(Any, Wire())) for _ in range(2))
    agent.children += [prompt, late]
    agent._from_below(prompt, received(m.Register([m.EngineInfo(1, 1, "host", 101)], "", "", [])))
    assert not complete
    agent.wait_no_longer()
    assert complete == [[0, 1]]
    assert said == ["1 of 2 nodes have not reported; continuing without them"]
    agent._from_below(late, received(m.Register([m.EngineInfo(2, 2, "host", 102)], "", "", [])))
    (goodbye,) = cast(Wire, late.connection).sent
    assert isinstance(goodbye, m.Goodbye)
    assert "too late" in goodbye.reason
    assert complete == [[0, 1]]
    agent.wait_no_longer()
    assert complete == [[0, 1]]
    end(node)


# --- ranks of this node ----------------------------------------------------------------------------------------


def test_an_engine_that_shares_no_communicator_ends_for_real() -> None:
    alone = Set(joined=False)
    alone.agent.register()
    alone.hears(m.StopRanks([0]))
    assert alone.rank.run().reason == "this engine was ended"
    alone.close()


def test_an_engine_of_mpi_that_was_ended_keeps_its_process(ranks: Set) -> None:
    ranks.rank.namespace.names["a"] = 1
    ranks.hears(m.StopRanks([0]))
    with ThreadPoolExecutor(1) as thread:
        process = thread.submit(ranks.rank.run)
        until = time.monotonic() + 10
        while "a" in ranks.rank.namespace.names:  # its memory is given back
            assert time.monotonic() < until
            time.sleep(0.001)
        assert not process.done()
        ranks.node.local[0].stop(rm.Stop("the set ends"))
        assert process.result(10).reason == "the set ends"


def test_a_rank_that_was_told_to_end_by_a_signal_leaves_the_others_alone(ranks: Set) -> None:
    local = ranks.node.local[0]
    ranks.agent.leave(local, "got SIGTERM")
    assert ranks.rank.run().reason == "got SIGTERM"
    (lost,) = [message for message in ranks.above.sent if isinstance(message, m.RanksLost)]
    assert lost == m.RanksLost([0], "got SIGTERM", True)
    assert not ranks.stopped
    ranks.agent.rank_lost(local, "its process ended", True)
    assert len([message for message in ranks.above.sent if isinstance(message, m.RanksLost)]) == 1


def test_ranks_hear_their_ids(ranks: Set) -> None:
    ranks.node.local[0].stop(rm.Stop("the set ends"))
    ranks.rank.run()
    assert ranks.rank.namespace.engine_id == 10


def end(node: Node) -> None:
    for local in node.local.values():
        local.break_off()
    for rank in node.ranks.values():
        rank.close()
    node.loop.close()
