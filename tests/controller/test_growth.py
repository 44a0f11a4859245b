"""What the controller does for a command does not depend on how many engines it is for."""

from __future__ import annotations

import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import msgspec
import pytest

from ipmpi import limits
from ipmpi.client.session.submission import Submission
from ipmpi.controller.commands.againorder import Again
from ipmpi.controller.commands.history import Bounds, CommandHistory
from ipmpi.controller.commands.router import Router
from ipmpi.controller.deadlines import Deadlines
from ipmpi.controller.describe import described
from ipmpi.controller.effects import Send
from ipmpi.errors import CompositeError
from ipmpi.ids import Ids
from ipmpi.protocol import messages as m, operations
from tests.in_process import InProcess, in_process, wait_until
from tests.large_set import LargeSet
from tests.traced import bytes_kept

CLIENT, SET = 1, 10
FEW = 512
"""Enough for patterns to be looked for."""
MANY = limits.MAX_ENGINES


def router_with(ranks: int) -> Router:
    router = Router(1)
    infos = [m.EngineInfo(rank, rank, f"n{rank // 64}", rank) for rank in range(ranks)]
    router.register(SET, m.Register(infos, "MPI", "3"))
    router.flush()
    return router


def one_command(router: Router, targets: Ids | None, number: int, *, ok: bool = True) -> list[m.AnyMessage]:
    """A command, its answer, and what is sent meanwhile; everything goes through the bytes of its messages."""
    sent = []

    def flush() -> None:
        sent.extend(e.message for e in router.flush(1.0) if isinstance(e, Send))

    command = m.decode(m.encode(m.Command(number, targets, "execute", "x", b"")))
    assert isinstance(command, m.Command)
    router.command(CLIENT, command, [], 0)
    flush()
    dispatch = m.decode(m.encode(sent[0]))
    assert isinstance(dispatch, m.Dispatch)
    result = m.decode(m.encode(m.Result(dispatch.id, dispatch.ranks, ok, b"")))
    assert isinstance(result, m.Result)
    router.result(SET, result, [], 0)
    flush()
    return sent


def calls_of(work: Callable[[], object]) -> int:
    """How many functions are called, of Python and of C."""
    count = 0

    def called(_frame: FrameType, event: str, _what: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def memory_of(work: Callable[[], object]) -> int:
    """The most bytes that are allocated meanwhile: whoever copies a list of all engines needs a lot."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def routers() -> dict[int, Router]:
    return {ranks: router_with(ranks) for ranks in (8, FEW, MANY)}


CASES: dict[str, Callable[[Router, int], object]] = {
    "all": lambda router, ranks: one_command(router, None, 1),
    "all-by-their-ids": lambda router, ranks: one_command(router, Ids.of(range(ranks)), 1),
    "half": lambda router, ranks: one_command(router, Ids.of(range(ranks // 2)), 1),
    "one": lambda router, ranks: one_command(router, Ids.of([ranks // 2]), 1),
    "all-fail": lambda router, ranks: one_command(router, None, 1, ok=False),
    "queue-status": lambda router, ranks: router.queue_status(None),
    "clear-queue": lambda router, ranks: router.clear_queue(None),
    "has-work": lambda router, ranks: router.has_work(SET),
}


@pytest.mark.parametrize("case", CASES)
def test_the_cost_is_the_same_for_eight_engines_and_for_65536(routers: dict[int, Router], case: str) -> None:
    costs_the_same({ranks: routers[ranks] for ranks in (8, MANY)}, CASES[case])


def costs_the_same(routers: dict[int, Router], work: Callable[[Router, int], object]) -> None:
    """As many calls, and as much memory, for all numbers of ranks."""
    few = min(routers)
    for ranks, router in routers.items():
        work(router, ranks)  # what is done only once, such as filling a cache
    calls = {ranks: calls_of(lambda r=router, n=ranks: work(r, n)) for ranks, router in routers.items()}  # type: ignore[misc]
    assert calls[MANY] <= calls[few] + 5, calls
    memory = {ranks: memory_of(lambda r=router, n=ranks: work(r, n)) for ranks, router in routers.items()}  # type: ignore[misc]
    assert memory[MANY] < memory[few] + 10 * limits.KIB, memory


def test_all_are_interrupted_by_one_message_that_costs_as_much_as_one_for_few() -> None:
    calls = {}
    for ranks in (8, MANY):
        router = router_with(ranks)
        router.command(CLIENT, m.Command(1, None, "execute", "x", b""), [], 0)
        router.flush()
        assert len(router.interrupt(None)) == ranks
        router.interrupt(None)
        calls[ranks] = calls_of(router.flush)
        router.interrupt(None)
        assert [e.message for e in router.flush() if isinstance(e, Send)] == [
            m.InterruptRanks(Ids.of(range(ranks)))
        ]
    assert calls[MANY] <= calls[8] + 5, calls


PATTERNS: dict[str, Callable[[Router, int], object]] = {
    "every-second": lambda router, ranks: one_command(router, Ids.of(range(0, ranks, 2)), 1),
    "every-second-of-a-list": lambda router, ranks: one_command(router, Ids.of(range(1, ranks, 2)), 1),
    "every-second-fails": lambda router, ranks: one_command(router, Ids.of(range(0, ranks, 2)), 1, ok=False),
    "every-seventh-of-a-part": lambda router, ranks: one_command(router, Ids.of(range(20, ranks - 20, 7)), 1),
}


@pytest.mark.parametrize("case", PATTERNS)
def test_the_cost_of_a_pattern_is_the_same_for_512_engines_and_for_65536(
    routers: dict[int, Router], case: str
) -> None:
    costs_the_same({ranks: routers[ranks] for ranks in (FEW, MANY)}, PATTERNS[case])


def test_a_failure_on_every_second_engine_is_told_in_few_words() -> None:
    """What waits behind it there is cleared, and the text does not name 32,768 engines."""
    router = router_with(MANY)
    seconds = Ids.of(range(0, MANY, 2))
    for number, targets in ((1, seconds), (2, None)):
        router.command(CLIENT, m.Command(number, targets, "execute", f"command {number}", b""), [], 0)
    first = next(e.message for e in router.flush() if isinstance(e, Send) and e.to == SET)
    assert isinstance(first, m.Dispatch)
    assert first.ranks == seconds
    router.result(SET, m.Result(first.id, first.ranks, False, b""), [], 0)
    (undone,) = [e.message for e in router.flush() if isinstance(e, Send) and isinstance(e.message, m.Undone)]
    assert undone.engines == seconds
    assert undone.text == (
        "command 1 failed on engines 0, 2, 4, ... 65534 (32768 in all), which cleared their queues"
    )


def test_to_describe_engines_takes_a_call_or_two_for_each(routers: dict[int, Router]) -> None:
    registry = routers[MANY].registry
    calls = calls_of(lambda: described(registry, Deadlines(registry), -1, 0.0))
    engines, more = described(registry, Deadlines(registry), -1, 0.0)
    assert more
    assert calls < 3 * len(engines), calls


def test_what_is_said_of_all_is_short(routers: dict[int, Router]) -> None:
    few, many = (one_command(routers[ranks], None, 1) for ranks in (8, MANY))
    sizes = [[len(m.encode(without_count(message))) for message in sent] for sent in (few, many)]
    assert sizes[0] == sizes[1]


def without_count(message: m.AnyMessage) -> m.AnyMessage:
    """A number of engines is longer if there are more."""
    return msgspec.structs.replace(message, engines=0) if isinstance(message, m.Dispatch) else message


def test_after_different_commands_all_have_one_queue_again(routers: dict[int, Router]) -> None:
    """So the next command for all costs as little as the first."""
    router = routers[MANY]
    one_command(router, Ids.of(range(0, MANY, 64)), 1)
    one_command(router, Ids.of([5, 3, 70]), 2)
    assert len(list(router._queues.parts(range(MANY)))) == 1
    assert len(one_command(router, None, 3)) == 2


def test_a_queue_of_its_own_takes_little_memory(routers: dict[int, Router]) -> None:
    """A command for engines without a pattern gives most a queue of their own, which never has anything else."""
    router = routers[MANY]
    some = Ids.of([number for number in range(MANY) if number % 7 in (0, 2, 3, 5)])
    assert memory_of(lambda: router._queues.each(some)) < 400 * MANY
    assert len(list(router._queues.parts(range(MANY)))) > MANY // 2
    router._queues.merge()
    assert len(list(router._queues.parts(range(MANY)))) == 1


def test_commands_without_a_pattern_have_no_more_memory_than_the_history_may_have() -> None:
    """Each keeps the ids that it was for, and of whom it has answers: runs, of which there are thousands."""
    router = router_with(8192)
    router.history = CommandHistory(router._clients, bounds=Bounds(size=limits.MIB))
    chance = random.Random(1)

    def give(first: int, last: int) -> None:
        for number in range(first, last):
            one_command(router, Ids.of(sorted(chance.sample(range(8192), 4096))), number)

    give(1, 3)
    assert bytes_kept(lambda: give(3, 20)) < 1.5 * limits.MIB


def test_after_a_restart_failures_without_a_pattern_are_looked_at_once() -> None:
    """On some engines the last command has failed, which its client has not heard: their queues are cleared."""
    ranks = 16_384
    router = router_with(ranks)
    some = Ids.of(sorted(random.Random(1).sample(range(ranks), ranks // 2)))
    router.resumed.held(SET, m.CommandsHeld(5, CLIENT, 1, "execute", ranks, ended=Ids.of(range(ranks))))
    assert router.resumed.answered(SET, m.Result(5, some, False, b"x"), [])
    router.resumed.begin()
    again = Again(CLIENT, m.CommandAgain(1, None, "execute", "x", b""), [], 0)
    before = time.process_time()
    cleared = router.resumed._cleared([again])
    assert time.process_time() - before < 1.0
    assert cleared.keys() == set(some)


# --- a whole controller ----------------------------------------------------------------------------------------


class Cluster:
    """A controller with a set of 65,536 ranks, and a client."""

    def __init__(self, cluster: InProcess) -> None:
        self.controller = cluster
        self.set = LargeSet(cluster.furls["engine"], MANY)
        assert self.set.registered.wait(60)
        self.mec = cluster.mec()


@pytest.fixture(scope="module")
def large() -> Iterator[Cluster]:
    with in_process() as cluster:
        made = Cluster(cluster)
        yield made
        made.set.close()
        wait_until(lambda: cluster.registered() == 0, "the set is gone", 60)
        assert any("unregistered engines with ids: 0-65535 (" in line for line in cluster.lines)


def test_a_set_of_as_many_ranks_as_there_may_be_is_there(large: Cluster) -> None:
    assert large.mec.get_ids() == list(range(MANY))
    assert large.mec.wait_for_engines(MANY, timeout=10) is None
    assert large.set.ids == list(range(MANY))
    lines = [line for line in large.controller.lines if line.startswith("registered engine")]
    assert len(lines) == MANY // 64
    assert lines[1] == "registered engines with ids: 64-127 (ranks 64-127 on nid000001.cluster.example.org)"


def test_all_of_them_are_described(large: Cluster) -> None:
    engines = large.mec.cluster_info()["engines"]
    assert [engine["id"] for engine in engines] == list(range(MANY))
    last: dict[str, Any] = engines[-1]
    assert (last["rank"], last["pid"], last["host"]) == (MANY - 1, 10_063, "nid001023.cluster.example.org")


def test_commands_for_all_are_one_short_message(large: Cluster) -> None:
    before = large.set.received.get("Dispatch", 0), large.set.received_bytes.get("Dispatch", 0)
    assert len(large.mec.execute("x = 1")) == MANY
    assert large.mec.push({"a": 1}) == [None] * MANY
    after = large.set.received["Dispatch"], large.set.received_bytes["Dispatch"]
    assert after[0] - before[0] == 2
    assert after[1] - before[1] < 200


class Counted(list[int]):
    """A list that counts how often somebody goes through it."""

    walks = 0

    def __iter__(self) -> Iterator[int]:
        self.walks += 1
        return super().__iter__()


def test_a_client_does_not_look_at_all_engines_for_each_answer(large: Cluster) -> None:
    """All of 1,000 answers are different: 1,000 messages, for each of which there is one thing to do."""
    large.set.differ = True
    try:
        targets = Counted(range(1000))
        submission = Submission(operations.Push(), targets, "push", "push()", [b""])
        replies = large.mec._calls.session.command(submission).result(60)
    finally:
        large.set.differ = False
    assert [reply.engine for reply in replies] == list(range(1000))
    assert targets.walks < 10


def test_their_queues_are_told_within_one_message(large: Cluster) -> None:
    label = "x" * limits.LABEL
    large.set.holds.set()
    try:
        pending = [large.mec.execute(f"{label}{number}", block=False) for number in range(3)]
        wait_until(lambda: large.set.held, "the command is there")
        status = large.mec.queue_status()
        assert [engine for engine, _ in status] == list(range(MANY))
        assert len(status[MANY - 1][1]["queue"]) == 2
        assert large.mec.clear_queue() == [None] * MANY
    finally:
        large.set.release()
    assert len(pending[0].r) == MANY
    with pytest.raises(CompositeError):
        pending[1].get_result()
