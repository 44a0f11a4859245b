from __future__ import annotations

import threading
from typing import Any

import pytest
from fake_farm import FakeFarm

from ipmpi import limits
from ipmpi.client import TaskClient
from ipmpi.client.tasks.submitter import IDLE_FUNCTIONS
from ipmpi.protocol import messages as m
from ipmpi.protocol.packed import count, unpack


def groups(farm: FakeFarm) -> list[m.SubmitTasks]:
    return [message for message in farm.sent if isinstance(message, m.SubmitTasks)]


class Held:
    """Keeps what is posted, as a session's thread does that has not come to it."""

    def __init__(self, farm: FakeFarm, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Any] = []
        self._post = farm.post
        monkeypatch.setattr(farm, "post", lambda call, on_error=None: self.calls.append(call))

    def release(self) -> None:
        while self.calls:
            self._post(self.calls.pop(0))


@pytest.fixture
def held(farm: FakeFarm, monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(farm, monkeypatch)


def test_tasks_with_the_same_terms_go_together(tc: TaskClient, farm: FakeFarm, held: Held) -> None:
    futures = [tc.submit(abs, -x) for x in range(100)]
    other = tc.submit(abs, -5, priority=1)
    third = tc.submit(abs, -6)
    assert len(held.calls) == 1  # one wake-up
    held.release()
    assert [count(group.lengths) for group in groups(farm)] == [100, 1, 1]
    assert [future.ref.number for future in futures if future.ref] == list(range(100))
    assert [each.result() for each in (*futures, other, third)] == [*range(100), 5, 6]
    assert len([message for message in farm.sent if isinstance(message, m.DefineFunction)]) == 1


def test_messages_stay_small(tc: TaskClient, farm: FakeFarm) -> None:
    assert tc.map(len, [bytes(50_000)] * 5) == [50_000] * 5
    assert tc.map(abs, range(10_000)) == list(range(10_000))
    for group in groups(farm):
        assert sum(group.sizes) <= limits.TASK_BATCH
        assert count(group.lengths) <= limits.TASKS_PER_MESSAGE
    assert [count(group.lengths) for group in groups(farm)][:5] == [1] * 5


def test_a_large_task_goes_alone_and_again_on_request(tc: TaskClient, farm: FakeFarm) -> None:
    farm.held = True
    future = tc.submit(len, bytes(200_000))
    (group,) = groups(farm)
    assert group.lengths == b""
    assert sum(group.sizes) > 200_000
    assert farm.submitter.body_wanted(group.id)
    again = farm.sent[-1]
    assert isinstance(again, m.BodyAgain)
    assert again.sizes == group.sizes
    farm.work()
    assert future.result() == 200_000
    assert not farm.submitter.body_wanted(group.id)


def test_what_is_too_much_waits_here(tc: TaskClient, farm: FakeFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TASK_BACKLOG", 100_000)
    farm.held = True
    results = tc.imap(len, [bytes(40_000)] * 10)
    late = tc.submit(abs, -1)
    assert len(groups(farm)) == 1
    assert late.cancel()  # it was not even sent
    child = tc.submit(abs, -3, after=[late_parent := tc.submit(abs, -2)])
    farm.work()
    assert list(results) == [40_000] * 10
    assert late_parent.result() == 2
    assert child.result() == 3
    assert late.cancelled()
    assert farm.submitter.open_tasks() == 0
    assert len(farm.tries) == 12


def test_more_may_wait_at_a_controller_with_a_journal(
    tc: TaskClient, farm: FakeFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TASK_BACKLOG", 100_000)
    monkeypatch.setattr(limits, "TASK_BACKLOG_WRITTEN", 300_000)
    farm.is_journalled = True
    farm.held = True
    results = tc.imap(len, [bytes(40_000)] * 10)
    assert len(groups(farm)) == 3  # two tasks each, and some bytes more
    farm.work()
    assert list(results) == [40_000] * 10


def test_of_a_group_that_waits_here_only_the_cancelled_are_not_run(
    tc: TaskClient, farm: FakeFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TASK_BACKLOG", 50_000)
    farm.held = True
    first = tc.submit(len, bytes(50_000))
    waiting = [tc.submit(max, x, x) for x in range(4)]
    assert waiting[1].cancel()
    farm.work()
    assert first.result() == 50_000
    assert [future.cancelled() for future in waiting] == [False, True, False, False]
    assert [waiting[x].result() for x in (0, 2, 3)] == [0, 2, 3]
    assert farm.submitter.open_tasks() == 0


def test_functions_that_are_not_used_any_more_are_forgotten(tc: TaskClient, farm: FakeFarm) -> None:
    for number in range(3 * IDLE_FUNCTIONS):
        assert tc.submit(lambda number=number: number).result() == number
    forgotten = [key for message in farm.sent if isinstance(message, m.ForgetFunctions) for key in message.keys]
    assert len(set(forgotten)) == 2 * IDLE_FUNCTIONS
    assert tc.submit(lambda number=0: number).result() == 0  # and can be defined anew


def test_a_function_stays_while_a_task_may_need_it(tc: TaskClient, farm: FakeFarm) -> None:
    farm.held = True
    first = tc.submit(lambda: "first")
    (task,) = farm.start()
    farm.work()
    for number in range(2 * IDLE_FUNCTIONS):
        tc.submit(lambda number=number: number).result()
    farm.finish(task)
    assert first.result() == "first"


def test_a_large_function_goes_in_pieces(tc: TaskClient, farm: FakeFarm) -> None:
    table = bytes(300_000)
    assert tc.submit(lambda: len(table)).result() == 300_000
    pieces = [message for message in farm.sent if isinstance(message, m.DefineFunction)]
    assert [piece.offset for piece in pieces] == [0, limits.INLINE_BODY, 2 * limits.INLINE_BODY]
    assert sum(sum(piece.sizes) for piece in pieces) == pieces[0].total


def test_submissions_from_many_threads(tc: TaskClient) -> None:
    results: dict[int, list[int]] = {}

    def work(start: int) -> None:
        results[start] = tc.gather([tc.submit(abs, -x) for x in range(start, start + 200)])

    threads = [threading.Thread(target=work, args=(1000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {1000 * n: list(range(1000 * n, 1000 * n + 200)) for n in range(4)}


class TestMapResults:
    def test_in_order_while_others_run(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        results = tc.imap(pow, range(5), [2] * 5)
        for task in reversed(farm.start(5)):
            farm.finish(task)
        assert next(results) == 0
        assert list(results) == [1, 4, 9, 16]
        assert list(tc.imap(abs, [])) == []

    def test_as_they_come(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        results = tc.imap(abs, range(3), ordered=False)
        tasks = farm.start(3)
        farm.finish(tasks[2])
        assert results.next(timeout=1) == 2
        with pytest.raises(TimeoutError, match="no result came in"):
            results.next(timeout=0.01)
        farm.finish(tasks[0])
        farm.finish(tasks[1])
        assert list(results) == [0, 1]

    def test_a_failure_is_raised_in_its_turn(self, tc: TaskClient) -> None:
        results = tc.imap(lambda x: 1 / x, [1, 0, 2])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert next(results) == 0.5

    def test_map_raises_as_soon_as_the_first_failure_is_certain(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        caught: list[BaseException] = []

        def map_it() -> None:
            try:
                tc.map(lambda x: 1 / x, [1, 0, 2, 3])
            except ZeroDivisionError as error:
                caught.append(error)

        thread = threading.Thread(target=map_it)
        submitted = threading.Event()
        original = farm.send

        def send(message: m.AnyMessage, body: Any = ()) -> None:
            original(message, body)
            if isinstance(message, m.SubmitTasks):
                submitted.set()

        farm.send = send  # type: ignore[method-assign]
        thread.start()
        assert submitted.wait(10)
        tasks = farm.start(2)
        farm.finish(tasks[1])
        farm.finish(tasks[0])
        thread.join(10)
        assert caught
        assert not farm.waiting  # the others are not run any more
        assert farm.submitter.open_tasks() == 0

    def test_closed_ones_drop_the_rest(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        with tc.imap(abs, range(5000)) as results:
            farm.finish(farm.start()[0])
            assert next(results) == 0
        assert not farm.waiting
        assert list(results) == []
        assert farm.submitter.open_tasks() == 0

    def test_large_results_and_undone_tasks(self, tc: TaskClient, farm: FakeFarm) -> None:
        assert [len(x) for x in tc.imap(bytes, [5, 500_000, 7])] == [5, 500_000, 7]
        farm.held = True
        results = tc.imap(abs, [-1, -2])
        first, second = farm.start(2)
        farm.undo(first, "EngineLost", "engine 3 is gone")
        farm.finish(second)
        with pytest.raises(Exception, match="engine 3 is gone"):
            next(results)
        assert next(results) == 2

    def test_one_item_that_cannot_be_sent_or_opened(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        with pytest.raises(Exception, match="lock"):
            tc.map(len, [[1]] * 100 + [threading.Lock()])
        assert not farm.waiting
        farm.work()

        class Odd:
            def __init__(self, bad: bool) -> None:
                self.bad = bad

            def __reduce__(self) -> Any:
                return (int, ("x",)) if self.bad else (str, ("fine",))

        results = tc.imap(lambda bad: Odd(bad), [False, True, False])
        assert next(results) == "fine"
        with pytest.raises(ValueError, match="invalid literal"):
            next(results)
        assert next(results) == "fine"

    def test_counts(self, tc: TaskClient, farm: FakeFarm) -> None:
        list(tc.imap(abs, range(10)))
        with pytest.raises(ZeroDivisionError):
            tc.submit(lambda: 1 / 0).result()
        farm.held = True
        tc.submit(abs, 1)
        farm.start()
        tc.submit(abs, 2)
        assert tc.queue_status() == {"scheduled": 1, "pending": 1, "succeeded": 10, "failed": 1}
        assert tc.queue_status(verbose=True) == {"scheduled": [], "pending": [], "succeeded": [], "failed": []}
        assert tc.clear() == 0
        assert tc.queue_status()["succeeded"] == 0


def test_indices_of_an_abort(tc: TaskClient, farm: FakeFarm) -> None:
    farm.held = True
    futures = [tc.submit(abs, -x) for x in range(3)]
    ref = futures[2].ref
    assert ref is not None
    assert futures[2].cancel()
    abort = [message for message in farm.sent if isinstance(message, m.AbortTasks)][-1]
    assert (abort.group, list(unpack(abort.indices)), abort.how) == (ref.group, [ref.number], "cancel")
