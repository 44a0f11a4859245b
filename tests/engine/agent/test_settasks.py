"""Tasks in a set of a few ranks: what the controller hears, through real agents, links and ranks."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from small_set import PATIENCE, SmallSet, in_main_thread

from ipmpi import limits, serialize
from ipmpi.engine.farm.scheduler import Down, SetScheduler, Up
from ipmpi.errors import TaskRejectError
from ipmpi.protocol import messages as m, operations as o, packed
from ipmpi.protocol.frames import size_of

GATES: dict[str, threading.Event] = {}
STARTED: SimpleQueue[Any] = SimpleQueue()


def wait_at(name: str) -> str:
    """A task that ends when the test says so."""
    STARTED.put(name)
    assert GATES[name].wait(PATIENCE)
    return name


@pytest.fixture(autouse=True)
def gates() -> Iterator[None]:
    GATES.clear()
    GATES.update({name: threading.Event() for name in "abcd"})
    while not STARTED.empty():
        STARTED.get()
    yield
    for gate in GATES.values():
        gate.set()


@pytest.fixture(params=[True, False], ids=["one node", "a node each"])
def start(request: pytest.FixtureRequest) -> Iterator[Callable[..., SmallSet]]:
    made: list[SmallSet] = []

    def make(size: int = 1, **how: Any) -> SmallSet:
        made.append(SmallSet(size, **{"one_node": request.param, **how}))
        return made[-1]

    yield make
    for gate in GATES.values():
        gate.set()
    for one in made:
        one.close()


def double(x: Any) -> Any:
    return 2 * x


def test_commands_are_decided_on_only_where_tasks_wait_for_ranks(
    start: Callable[..., SmallSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = start(2)
    decisions: list[float] = []
    decide = SetScheduler.decide

    def counted(scheduler: SetScheduler, now: float) -> list[Down | Up]:
        decisions.append(now)
        return decide(scheduler, now)

    monkeypatch.setattr(SetScheduler, "decide", counted)
    begin = time.monotonic()
    for number in range(1, 31):
        small.command(number, [0, 1], o.Execute("1"))
        small.hears(m.Result, lambda said, number=number: said.id == number)  # type: ignore[misc]
    # One for every tenth of a second in which a command might have been a long one.
    assert len(decisions) <= (time.monotonic() - begin) / 0.1 + 1
    group = small.give(small.options(double), [(3,)])
    assert small.results(group, 1) == {0: 6}


# --- giving and answering -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
def test_each_item_is_answered_once(start: Callable[..., SmallSet], size: int) -> None:
    small = start(size)
    group = small.give(small.options(double), [(n,) for n in range(3000)])
    assert small.results(group, 3000) == {n: 2 * n for n in range(3000)}
    other = small.give(small.options(lambda x: 1 / x), [(0,), (1,), (0,), (2,)])
    results = small.results(other, 4)
    assert (results[1], results[3]) == (1, 0.5)
    assert results[0].type_name == results[2].type_name == "ZeroDivisionError"


def test_all_ranks_work(start: Callable[..., SmallSet]) -> None:
    small = start(3)
    group = small.give(small.options(wait_at), [("a",), ("b",), ("c",)])
    assert {STARTED.get(timeout=PATIENCE) for _ in range(3)} == {"a", "b", "c"}
    for gate in GATES.values():
        gate.set()
    heard = [small.hears(m.TaskResults, lambda message: message.group == group).rank for _ in range(3)]
    assert sorted(heard) == [0, 1, 2]


def test_finished_results_do_not_wait_behind_a_long_item(start: Callable[..., SmallSet]) -> None:
    small = start()
    warm = small.give(small.options(double), [(n,) for n in range(2000)])
    small.results(warm, 2000)
    mixed = small.options(lambda name: wait_at(name) if name else None)
    # Given together, so that they are in one batch: straight to the agent.
    payloads = [serialize.dumps(((name,), {}))[0] for name in ("", "", "a", "", "b", "")]
    body = b"".join(payloads)
    message = m.GiveTasks(
        999, mixed, packed.pack(range(6)), packed.pack([len(p) for p in payloads]), [0], False, [len(body)]
    )
    reports: SimpleQueue[list[int]] = SimpleQueue()
    small.do(lambda: setattr(small.tasks(0), "_channel", Reports(reports)))
    small.do(lambda: small.tasks(0).give(message, [body]))
    assert STARTED.get(timeout=PATIENCE) == "a"
    assert collected(reports, 2) == [0, 1]
    GATES["a"].set()
    assert STARTED.get(timeout=PATIENCE) == "b"
    assert collected(reports, 2) == [2, 3]
    GATES["b"].set()
    assert collected(reports, 2) == [4, 5]


class Reports:
    """Where an agent's messages go: only the indices are kept."""

    def __init__(self, queue: SimpleQueue[list[int]]) -> None:
        self._queue = queue

    def report(self, message: Any, _body: Any) -> None:
        self._queue.put(list(packed.unpack(message.indices)))


def collected(reports: SimpleQueue[list[int]], count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found += reports.get(timeout=PATIENCE)
    return found


def test_no_timer_runs_while_nothing_is_to_be_done(start: Callable[..., SmallSet]) -> None:
    small = start(2, one_node=True)  # links with other nodes look whether these are there
    small.results(small.give(small.options(double), [(n,) for n in range(500)]), 500)
    small.results(small.give(small.options(double, timeout=0.05), [(n,) for n in range(5)]), 5)
    until = time.monotonic() + PATIENCE
    while small.do(lambda: any(timer.call is not None for _, _, timer in small.loop._timers)):
        assert time.monotonic() < until, small.loop._timers
        time.sleep(0.005)


def test_a_result_that_cannot_be_pickled(start: Callable[..., SmallSet]) -> None:
    small = start()
    group = small.give(small.options(lambda: [1, threading.Lock()]), [()])
    failed = small.results(group, 1)[0]
    assert failed.type_name == "SerializationError"
    assert failed.text.startswith("cannot send item 1 of the result of the task: a _thread.lock object")


def test_many_bytes_of_results_are_cut_into_messages(start: Callable[..., SmallSet]) -> None:
    small = start()
    group = small.give(small.options(lambda n: "x" * 60_000), [(n,) for n in range(50)])
    assert len(small.results(group, 50)) == 50


# --- commands and items ---------------------------------------------------------------------------------------


def test_a_command_overtakes_items(start: Callable[..., SmallSet]) -> None:
    small = start()
    first = small.give(small.options(wait_at), [("a",)])
    STARTED.get(timeout=PATIENCE)
    small.command(5, [0], o.Execute("x = 1"))
    rest = small.give(small.options(double), [(n,) for n in range(3)])
    GATES["a"].set()
    assert small.hears(m.TaskResults).group == first
    assert small.hears(m.Result).id == 5
    assert len(small.results(rest, 3)) == 3


def outcomes_of(small: SmallSet, ranks: set[int]) -> dict[int, o.Outcome]:
    """What a command has come to on each rank."""
    found: dict[int, o.Outcome] = {}
    while found.keys() != ranks:
        answer = small.hears(m.Result)
        outcome = o.decode_outcome(answer.outcome)
        assert answer.ok is not isinstance(outcome, o.Failed)
        found.update(dict.fromkeys(answer.engines, outcome))
    return found


def test_a_command_whose_data_is_on_its_way_can_be_interrupted(start: Callable[..., SmallSet]) -> None:
    small = start(3)
    data = serialize.dumps({"a": b"x" * 10_000_000})
    sizes = [memoryview(part).nbytes for part in data]

    def send() -> None:  # the interrupt overtakes the data
        small.controller.connection.send(m.Dispatch(5, [0, 1, 2], "push", o.encode(o.Push()), sizes), data)
        small.controller.connection.send(m.InterruptRanks([1]))
        small.controller.wake()

    small.do(send)
    outcomes = outcomes_of(small, {0, 1, 2})
    interrupted = outcomes.pop(1)
    assert isinstance(interrupted, o.Failed)
    assert interrupted.type_name == "KeyboardInterrupt"
    assert set(outcomes.values()) == {o.Nothing()}
    assert ["a" in rank.namespace.names for rank in small.ranks] == [True, False, True]
    small.command(6, [1], o.Execute("1"))
    assert small.hears(m.Result).ok


def no_memory(*_args: object) -> Any:
    raise OSError(12, "Cannot allocate memory")


def test_ranks_without_memory_for_a_body_say_so_and_go_on(
    start: Callable[..., SmallSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = start(3)
    monkeypatch.setattr("ipmpi.engine.agent.shared.SharedMemory.write", no_memory)
    small.command(5, [0, 1, 2], o.Push(), {"a": b"x" * 3_000_000})
    reason = "the data of this method did not arrive: there is no memory for it on host"
    tells_and_goes_on(small, {0, 1, 2}, reason, monkeypatch)


TOO_MANY_FILES = (
    "the agent on host has too many open files ([Errno 24] Too many open files): "
    "start engines with a larger `ulimit -n`"
)


def no_file(*_args: object) -> Any:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_an_agent_that_may_open_no_further_file_says_so_and_goes_on(
    start: Callable[..., SmallSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = start(3)
    monkeypatch.setattr(os, "memfd_create", no_file)
    small.command(5, [0, 1, 2], o.Push(), {"a": b"x" * 3_000_000})
    tells_and_goes_on(small, {0, 1, 2}, f"the data of this method did not arrive: {TOO_MANY_FILES}", monkeypatch)


def test_a_rank_that_cannot_map_a_body_says_so_and_goes_on(
    start: Callable[..., SmallSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = start(3)
    mapped = mmap.mmap

    def in_one_rank(*args: Any, **how: Any) -> Any:
        return no_memory() if threading.current_thread().name == "rank 1" else mapped(*args, **how)

    monkeypatch.setattr(mmap, "mmap", in_one_rank)
    small.command(5, [0, 1, 2], o.Push(), {"a": b"x" * 3_000_000})
    tells_and_goes_on(
        small, {1}, "the data of this method did not arrive: there is no memory for it (", monkeypatch
    )


def tells_and_goes_on(small: SmallSet, without: set[int], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, outcome in outcomes_of(small, {0, 1, 2}).items():
        assert isinstance(outcome, o.Failed) is (rank in without)
        if isinstance(outcome, o.Failed):
            assert outcome.text.startswith(reason)
    monkeypatch.undo()
    small.command(6, [0, 1, 2], o.Push(), {"b": b"x" * 3_000_000})
    assert set(outcomes_of(small, {0, 1, 2}).values()) == {o.Nothing()}
    assert not small.stopped


def test_items_are_not_given_to_ranks_that_have_commands(start: Callable[..., SmallSet]) -> None:
    small = start(2)
    small.ranks[0].namespace.names["wait_at"] = wait_at
    small.command(5, [0], o.Execute("wait_at('a')"))
    STARTED.get(timeout=PATIENCE)
    group = small.give(small.options(double), [(n,) for n in range(40)])
    ranks = set()
    found = 0
    while found < 40:
        message = small.hears(m.TaskResults, lambda message: message.group == group)
        found += packed.count(message.indices)
        ranks.add(message.rank)
    assert ranks == {1}
    GATES["a"].set()
    assert small.hears(m.Result).id == 5


def test_reserved_ranks_get_no_items(start: Callable[..., SmallSet]) -> None:
    small = start(2)
    small.tell(m.ReserveRanks([0], True))
    group = small.give(small.options(double), [(n,) for n in range(40)])
    assert small.hears(m.TaskResults, lambda message: message.group == group).rank == 1


def test_changed_properties_are_told(start: Callable[..., SmallSet]) -> None:
    small = start(2)
    gpu = small.define(lambda properties: properties["gpu"])
    options = small.options(double, gpu, conditional=True)
    group = small.give(options, [(1,), (2,)], [1])
    assert small.returned(group, "refused")[0] == 1
    small.command(5, [1], o.SetProperties(), {"gpu": True})
    assert small.hears(m.PropertiesChanged).ranks == [1]
    small.hears(m.Result)
    assert small.results(small.give(options, [(1,)], [1]), 1) == {0: 2}
    small.command(6, [0, 1], o.GetProperties())
    small.hears(m.Result)
    assert not any(isinstance(message, m.PropertiesChanged) for message, _ in small.back)


def reject() -> None:
    raise TaskRejectError("not on this one")


def test_rejected(start: Callable[..., SmallSet]) -> None:
    small = start()
    group = small.give(small.options(reject), [()])
    message = small.hears(m.TasksReturned)
    assert (message.group, message.why, message.text) == (group, "rejected", "not on this one")


def test_functions_are_forgotten_everywhere(start: Callable[..., SmallSet]) -> None:
    small = start(2)
    options = small.options(double)
    for rank in (0, 1):
        small.results(small.give(options, [(1,)], [rank]), 1)
    small.tell(m.ForgetFunctions(options.functions))
    for rank in (0, 1):
        assert small.results(small.give(options, [(1,)], [rank]), 1)[0].type_name == "RemoteProtocolError"


# --- taking back, cancelling ----------------------------------------------------------------------------------


def test_what_waits_at_a_rank_is_taken_from_the_end(start: Callable[..., SmallSet]) -> None:
    small = start()
    agent = small.tasks(0)
    reports: SimpleQueue[list[int]] = SimpleQueue()
    small.do(lambda: setattr(agent, "_channel", Reports(reports)))
    options = small.options(wait_at)
    payloads = [serialize.dumps(((name,), {}))[0] for name in "abcd"]
    body, lengths = b"".join(payloads), packed.pack([len(p) for p in payloads])
    message = m.GiveTasks(1, options, packed.pack(range(4)), lengths, [0], False, [len(body)])
    small.do(lambda: agent.give(message, [body]))
    STARTED.get(timeout=PATIENCE)
    small.do(lambda: agent.take_back(2))
    assert reports.get(timeout=PATIENCE) == [2, 3]
    small.do(lambda: agent.take_back(9))
    assert reports.get(timeout=PATIENCE) == [1]
    GATES["a"].set()
    assert reports.get(timeout=PATIENCE) == [0]


def test_cancelling_what_waits_and_what_runs(start: Callable[..., SmallSet]) -> None:
    small = start()
    group = small.give(small.options(wait_at), [("a",), ("b",)])
    STARTED.get(timeout=PATIENCE)
    small.tell(m.CancelTasks(group, packed.pack([0, 1]), False))
    answers = {small.hears(m.TasksReturned).why for _ in range(2)}
    assert answers == {"cancelled", "running"}
    GATES["a"].set()
    assert small.results(group, 1) == {0: "a"}


def sleep_long(name: str) -> None:
    STARTED.put(name)
    time.sleep(50)


def stay(name: str) -> str:
    """A task that does not end when it is interrupted."""
    STARTED.put(name)
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(50)
    return name


def test_cancelling_interrupts_what_runs(start: Callable[..., SmallSet]) -> None:
    small = start(own_thread=True)

    def work() -> None:
        group = small.give(small.options(sleep_long), [("a",)])
        STARTED.get(timeout=PATIENCE)
        small.tell(m.CancelTasks(group, packed.pack([0]), True))
        failed = small.results(group, 1)[0]
        assert (failed.type_name, failed.text) == ("TaskAborted", "the task was cancelled while it ran")
        assert "time.sleep(50)" in failed.traceback
        assert small.results(small.give(small.options(double), [(4,)]), 1) == {0: 8}

    in_main_thread(small, work)


def test_timeouts(start: Callable[..., SmallSet]) -> None:
    small = start(own_thread=True)

    def work() -> None:
        group = small.give(small.options(sleep_long, timeout=0.05), [("a",), ("b",)])
        for failed in small.results(group, 2).values():
            assert failed.type_name == "TaskTimeout"
            assert failed.text.startswith("the task ran for longer than its timeout of 0.05 seconds")
        assert (
            small.results(small.give(small.options(stay, timeout=0.05), [("a",)]), 1)[0].type_name == "TaskTimeout"
        )
        assert small.results(small.give(small.options(double, timeout=5.0), [(4,)]), 1) == {0: 8}

    in_main_thread(small, work)


def test_an_interrupt_of_commands_does_not_hit_an_item(start: Callable[..., SmallSet]) -> None:
    small = start(own_thread=True)

    def work() -> None:
        group = small.give(small.options(wait_at), [("a",)])
        STARTED.get(timeout=PATIENCE)
        small.tell(m.InterruptRanks([0]))
        GATES["a"].set()
        assert small.results(group, 1) == {0: "a"}

    in_main_thread(small, work)


def test_interrupts_and_items_in_a_race(start: Callable[..., SmallSet]) -> None:
    small = start(own_thread=True)

    def work() -> None:
        options = small.options(lambda: sum(range(3000)))
        aborted = 0
        for _ in range(100):
            group = small.give(options, [()] * 3)
            small.tell(m.CancelTasks(group, packed.pack([0, 1]), True))
            small.tell(m.InterruptRanks([0]))
            found: dict[int, Any] = {}
            while len(found) < 3:
                message, _ = small.hears_all(m.TaskResults | m.TasksReturned)  # type: ignore[arg-type]
                assert message.group == group
                failed = set(packed.unpack(getattr(message, "failed", b"")))
                for position, index in enumerate(packed.unpack(message.indices)):
                    assert index not in found
                    found[index] = position not in failed and not isinstance(message, m.TasksReturned)
            assert found[2], "it was not cancelled"
            aborted += not found[0] or not found[1]
        assert aborted

    in_main_thread(small, work)


# --- large arguments and results --------------------------------------------------------------------------------


def test_large_arguments_are_asked_for(start: Callable[..., SmallSet]) -> None:
    small = start(2)
    options = small.options(lambda a: float(a.sum()))
    for rank in (0, 1):
        body = serialize.dumps(((np.ones(200_000),), {}))
        sizes = [size_of([segment]) for segment in body]
        group = small.give_large(options, [rank])
        asked = small.hears(m.WantTaskBody)
        assert (asked.group, asked.index, asked.ranks) == (group, 0, [rank])
        small.tell(m.TaskBody(group, 0, [rank], sizes), body)
        assert small.results(group, 1) == {0: 200_000.0}


def test_a_rank_asks_for_two_bodies_at_a_time(start: Callable[..., SmallSet]) -> None:
    small = start()
    agent = small.tasks(0)
    options = small.options(len)
    for group in range(101, 104):
        message = m.GiveTasks(group, options, packed.pack([0]), b"", [0])
        small.do(lambda message=message: agent.give(message, ()))  # type: ignore[misc]
    assert (list(agent._awaited), len(agent._large)) == ([(101, 0), (102, 0)], 1)
    small.do(lambda: agent.take_back(1))
    assert not agent._large
    small.do(lambda: agent.cancel(102, {0}, interrupt=False))
    assert list(agent._awaited) == [(101, 0)]
    small.do(lambda: agent.body_broken(101, 0, "a reason"))
    assert not agent._awaited


def test_large_arguments_that_do_not_come(start: Callable[..., SmallSet]) -> None:
    small = start(2)
    options = small.options(len)
    for rank in (0, 1):
        group = small.give_large(options, [rank])
        small.hears(m.WantTaskBody)

        def begin(group: int = group, rank: int = rank) -> None:
            connection = small.controller.connection
            connection.abort(connection.send_streamed(m.TaskBody(group, 0, [rank], [1_000_000]), 1_000_000))
            small.controller.wake()

        small.do(begin)
        said = small.hears(m.TasksReturned)
        assert (said.group, said.rank, said.why) == (group, rank, "broken")
        assert said.text == "The last time: their sender has disconnected."


@pytest.mark.parametrize("size", [1_000, 1_000_000])
def test_large_arguments_that_an_agent_can_open_no_file_for(
    start: Callable[..., SmallSet], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    small = start(2)
    alone = small.give_large(small.options(len))
    rank = small.hears(m.WantTaskBody).ranks[0]
    monkeypatch.setattr(os, "memfd_create", no_file)
    small.tell(m.TaskBody(alone, 0, [rank], [size]), [bytes(size)])
    said = small.hears(m.TasksReturned)
    assert (said.group, said.rank, said.why) == (alone, rank, "broken")
    assert said.text == f"The last time: {TOO_MANY_FILES}."
    monkeypatch.undo()
    together = small.give_large(small.options(lambda comm, a: len(a), width=2))
    ranks = small.hears(m.WantTaskBody, lambda asked: asked.group == together).ranks
    monkeypatch.setattr(os, "memfd_create", no_file)
    small.tell(m.TaskBody(together, 0, ranks, [size]), [bytes(size)])
    assert f"Its arguments did not arrive: {TOO_MANY_FILES}." in small.results(together, 1)[0].text


def test_a_large_task_that_is_cancelled_while_its_body_is_on_the_way(start: Callable[..., SmallSet]) -> None:
    small = start()
    group = small.give_large(small.options(len))
    small.hears(m.WantTaskBody)
    small.tell(m.CancelTasks(group, packed.pack([0]), False))
    assert small.returned(group, "cancelled") == (0, [0])
    small.tell(m.TaskBody(group, 0, [0], [1_000_000]), [bytes(1_000_000)])
    assert small.results(small.give(small.options(double), [(1,)]), 1) == {0: 2}


@pytest.mark.parametrize("rank", [0, 1])
def test_large_results_are_streams_of_what_was_there_and_hold_nobody_up(
    start: Callable[..., SmallSet], rank: int
) -> None:
    small = start(2)
    small.ranks[rank].namespace.names["big"] = np.zeros(1_000_000)
    small.takes_streams = False

    names: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(): return big", names)
    group = small.give(small.options(names["f"]), [()], [rank])
    small.when(lambda: bool(small._streams))
    small.command(5, [rank], o.Execute("big[:] = 1"))
    later = small.give(small.options(double), [(3,)], [rank])
    assert small.hears(m.Result).id == 5
    assert small.results(later, 1) == {0: 6}
    small.do(small.take_streams)
    message, body = small.hears_all(m.LargeTaskResult)
    assert (message.group, message.rank) == (group, rank)
    assert not serialize.loads(body).any()


# --- several ranks ----------------------------------------------------------------------------------------------


def part(comm: Any, x: int) -> int:
    return x + len(comm.joined)


def test_a_task_on_several_ranks(start: Callable[..., SmallSet]) -> None:
    small = start(3)
    options = small.options(part, width=2)
    group = small.give(options, [(10,)])
    assert small.results(group, 1) == {0: 11}
    ranks = [number for number in range(3) if small.teams[number].joined]
    assert len(ranks) == 2
    small.results(small.give(options, [(10,)]), 1)
    assert len({serial for teams in small.teams for _, serial in teams.joined}) == 1  # the same communicator


def fail_on_one(comm: Any, how: str) -> str:
    """One part fails, the other waits for it until it is called out."""
    STARTED.put(how)
    with GATES_LOCK:
        FAILING.append(comm)
        is_first = len(FAILING) % 2 == 1
    if is_first:
        raise ValueError("on purpose")
    comm.wait()


GATES_LOCK = threading.Lock()
FAILING: list[Any] = []


def test_a_part_that_fails_calls_the_others_out(start: Callable[..., SmallSet]) -> None:
    small = start(2)
    options = small.options(fail_on_one, width=2)
    for _ in range(5):
        failed = small.results(small.give(options, [("x",)]), 1)[0]
        assert failed.type_name == "ValueError"
        assert failed.text.startswith("[rank ")
        assert failed.text.endswith("on purpose")
        assert small.results(small.give(small.options(part, width=2), [(1,)]), 1)
    assert len({serial for _, serial in small.teams[0].joined}) > 5  # a new one after each failure


def test_large_arguments_and_result_of_a_task_on_several_ranks(start: Callable[..., SmallSet]) -> None:
    small = start(2)
    options = small.options(lambda comm, a: 2 * a, width=2)
    body = serialize.dumps(((np.ones(200_000),), {}))
    sizes = [size_of([segment]) for segment in body]
    group = small.give_large(options)
    asked = small.hears(m.WantTaskBody)
    assert sorted(asked.ranks) == [0, 1]
    small.tell(m.TaskBody(group, 0, asked.ranks, sizes), body)
    message, result = small.hears_all(m.LargeTaskResult)
    assert message.group == group
    assert (serialize.loads(result) == 2).all()
    assert small.results(small.give(small.options(double), [(n,) for n in range(9)]), 9)


def test_a_part_waits_for_its_arguments_in_its_place(start: Callable[..., SmallSet]) -> None:
    small = start(2)
    group = small.give_large(small.options(lambda comm, a: len(a), width=2))
    asked = small.hears(m.WantTaskBody)
    small.command(5, [0, 1], o.Execute("1"))
    body = serialize.dumps((("x" * 199_900,), {}))
    sizes = [size_of([segment]) for segment in body]
    small.tell(m.TaskBody(group, 0, asked.ranks, sizes), body)
    assert small.results(group, 1) == {0: 199_900}
    small.hears(m.Result)


def test_a_body_that_does_not_come_ends_the_task(start: Callable[..., SmallSet]) -> None:
    small = start(2)
    group = small.give_large(small.options(lambda comm, a: len(a), width=2))
    asked = small.hears(m.WantTaskBody)

    def begin() -> None:
        connection = small.controller.connection
        connection.abort(connection.send_streamed(m.TaskBody(group, 0, asked.ranks, [200_000]), 200_000))
        small.controller.wake()

    small.do(begin)
    assert "Its arguments did not arrive" in small.results(group, 1)[0].text


def sleep_or_wait(comm: Any) -> None:
    """Rank 0 can be interrupted; the other waits until it is called out."""
    if threading.current_thread() is threading.main_thread():
        sleep_long("rank 0")
    comm.wait()


def test_timeout_of_a_task_on_several_ranks(start: Callable[..., SmallSet]) -> None:
    small = start(2, own_thread=True)

    def work() -> None:
        failed = small.results(small.give(small.options(sleep_or_wait, width=2, timeout=0.1), [()]), 1)[0]
        assert failed.type_name == "TaskTimeout"
        assert "0.1 seconds" in failed.text
        assert small.results(small.give(small.options(part, width=2), [(1,)]), 1) == {0: 3}

    in_main_thread(small, work)


def test_cancelling_a_task_on_several_ranks(start: Callable[..., SmallSet]) -> None:
    small = start(2, own_thread=True)

    def work() -> None:
        group = small.give(small.options(sleep_or_wait, width=2), [()])
        STARTED.get(timeout=PATIENCE)
        small.tell(m.CancelTasks(group, packed.pack([0]), False))
        assert small.returned(group, "running")[1] == [0]
        small.tell(m.CancelTasks(group, packed.pack([0]), True))
        assert small.results(group, 1)[0].type_name == "TaskAborted"
        assert small.results(small.give(small.options(double), [(n,) for n in range(9)]), 9)

    in_main_thread(small, work)


# --- losses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_is_lost(start: Callable[..., SmallSet], rank: int) -> None:
    small = start(2)
    group = small.give(small.options(wait_at), [("a",), ("b",)], [rank])
    STARTED.get(timeout=PATIENCE)
    small.die(rank)
    lost = small.hears(m.RanksLost)
    assert (lost.ranks, lost.ordered) == ([rank], False)
    back = [small.hears(m.TasksReturned, lambda message: message.group == group) for _ in range(2)]
    found = {message.why: (message.rank, list(packed.unpack(message.indices))) for message in back}
    assert found == {"lost": (rank, [0]), "taken": (-1, [1])}
    assert small.results(small.give(small.options(double), [(1,)]), 1) == {0: 2}
    assert not small.stopped


def test_a_rank_that_dies_while_its_large_result_is_on_the_way(start: Callable[..., SmallSet]) -> None:
    small = start(2)
    small.takes_streams = False
    small.command(5, [1], o.Execute("a = bytes(100_000_000)"))
    small.hears(m.Result)
    small.ranks[1]._large.neighbours = 1 << 40  # no more than a few pieces are copied
    small.command(6, [1], o.Pull(["a"], True))
    small.when(lambda: bool(small._streams))
    small.die(1)
    assert small.hears(m.RanksLost).ranks == [1]
    small.do(small.take_streams)
    assert small.hears_all(str) == ("aborted", [])  # type: ignore[comparison-overlap]
    assert small.results(small.give(small.options(double), [(1,)]), 1) == {0: 2}


def test_an_engine_that_was_ended_runs_nothing_more(start: Callable[..., SmallSet]) -> None:
    small = start(2)
    small.give(small.options(wait_at), [("a",), ("b",)], [1])
    STARTED.get(timeout=PATIENCE)
    small.tell(m.StopRanks([1]))
    messages = [small.hears(m.TasksReturned) for _ in range(2)]
    back = {message.why: list(packed.unpack(message.indices)) for message in messages}
    assert back == {"lost": [0], "taken": [1]}
    GATES["a"].set()
    other = small.give(small.options(double), [(n,) for n in range(50)])
    assert len(small.results(other, 50)) == 50
    assert all(message.rank == 0 for message, _ in small.back if isinstance(message, m.TaskResults))
    assert STARTED.empty()


def test_a_new_controller_hears_nothing_of_old_tasks(start: Callable[..., SmallSet]) -> None:
    small = start()
    small.takes_streams = False
    old = small.give(small.options(lambda: bytes(limits.INLINE_BODY + 1)), [()])
    until = time.monotonic() + PATIENCE
    while not small.do(lambda: bool(small._streams)):
        assert time.monotonic() < until
    large = small.give_large(small.options(len))

    def renew() -> None:
        small.agents[0].forget_controller()
        small.agents[0].register()

    small.do(renew)
    small.takes_streams = True
    small.hears(m.Register)
    small.back.clear()
    assert small.hears(m.WantTasks).window
    group = small.give(small.options(double), [(1,)])
    assert small.results(group, 1) == {0: 2}
    assert not [message for message, _ in small.back if getattr(message, "group", 0) in (old, large)]
