from __future__ import annotations

import concurrent.futures
import itertools
import pickletools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from executor_contract import (
    ExecutorContract,
    Falsey,
    Held,
    hold,
    initial_and,
    note,
    raise_falsey,
    reciprocal,
    set_initial,
    square,
)
from fake_farm import FakeFarm
from thread_farm import ThreadFarm

from ipmpi.client.pools import executor as executor_module
from ipmpi.client.pools.executor import Executor
from ipmpi.client.pools.inflight import chunked
from ipmpi.client.pools.pool import Pool
from ipmpi.client.tasks.calloptions import REFUSED
from ipmpi.client.tasks.task import TaskClient
from ipmpi.errors import EngineLost
from ipmpi.protocol import messages as m


class TestContract(ExecutorContract):
    @pytest.fixture
    def workers(self) -> int:
        return 3

    @pytest.fixture(params=["reference", "ipmpi"])
    def executor(
        self, request: pytest.FixtureRequest, workers: int, tmp_path: Path
    ) -> Iterator[concurrent.futures.Executor]:
        if request.param == "reference":
            executor: concurrent.futures.Executor = ThreadPoolExecutor(workers)
        else:
            executor = request.getfixturevalue("threaded").executor()
        yield executor
        (tmp_path / "go").touch()  # a test that failed may have left calls
        executor.shutdown()


def submitted(farm: FakeFarm) -> list[m.TaskOptions]:
    return [message.options for message in farm.sent if isinstance(message, m.SubmitTasks)]


class TestOptions:
    def test_go_with_all_calls(self, tc: TaskClient, farm: FakeFarm) -> None:
        executor = tc.executor(priority=3, retries=1)
        assert executor.submit(square, 2).result() == 4
        assert list(executor.map(square, [2, 3])) == [4, 9]
        assert [(o.priority, o.retries) for o in submitted(farm)] == [(3, 1)] * 2

    def test_others_share_the_executor(self, tc: TaskClient, farm: FakeFarm) -> None:
        executor = tc.executor(priority=3)
        other = executor.options(timeout=9.0)
        other.submit(square, 2)
        executor.submit(square, 2)
        assert [(o.priority, o.timeout) for o in submitted(farm)] == [(3, 9.0), (3, None)]
        other.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(square, 2)

    def test_depend_goes_with_maps(self, tc: TaskClient) -> None:
        executor = tc.executor(depend=lambda properties: "gpu" not in properties)
        assert executor.submit(square, 2).result() == 4
        assert list(executor.map(square, range(3))) == [0, 1, 4]

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            (
                {"colour": 1},
                TypeError,
                "'colour' is not an option of calls; options are: depend, detach, expected",
            ),
            ({"ranks": 0}, TypeError, "ranks must be an int, 1 or more"),
            ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ],
    )
    def test_wrong_ones(self, tc: TaskClient, options: dict[str, Any], error: type, text: str) -> None:
        with pytest.raises(error, match=text):
            Executor(client=tc, **options)

    @pytest.mark.parametrize("name", sorted(REFUSED.keys() - {"initializer", "initargs"}))
    def test_what_only_processes_of_ones_own_can_do_is_refused_by_a_sentence(
        self, tc: TaskClient, name: str
    ) -> None:
        for make in (tc.executor, tc.pool):
            with pytest.raises(TypeError, match=f"'{name}' cannot be given to engines: "):
                make(**{name: print})
            assert list(make(**{name: None}).map(square, [3])) == [9]


def test_an_exception_counts_whatever_its_truth_value(threaded: TaskClient) -> None:
    """As from Python 3.12 on; before, its own futures have no result and no exception then."""
    executor = threaded.executor()
    future = executor.submit(raise_falsey)
    assert future.exception(timeout=30) is not None
    with pytest.raises(Falsey, match="seen all the same"):
        future.result()
    for failing in (
        lambda: list(executor.map(lambda _: raise_falsey(), [1])),
        lambda: threaded.map(lambda _: raise_falsey(), [1]),
        lambda: next(threaded.imap(lambda _: raise_falsey(), [1])),
        lambda: threaded.pool().apply(raise_falsey),
        lambda: list(threaded.pool().imap(lambda _: raise_falsey(), iter([1]))),
        lambda: threaded.pool().apply_async(raise_falsey, error_callback=print).get(30),
    ):
        with pytest.raises(Falsey):
            failing()  # type: ignore[no-untyped-call]


class TestInitializer:
    def test_it_runs_on_each_engine_before_its_first_call(self, threaded: TaskClient, tmp_path: Path) -> None:
        folder = str(tmp_path)

        def prepare(text: str) -> None:
            note(f"{folder}/prepared", text)

        executor = threaded.executor(initializer=prepare, initargs=("x",))
        held = Held(executor, 3, tmp_path)
        assert (tmp_path / "prepared").read_text() == "xxx"
        held.go()
        assert [executor.submit(hold, folder, number).result(30) for number in range(20)] == list(range(20))
        assert (tmp_path / "prepared").read_text() == "xxx"

    @pytest.mark.parametrize("kind", ["executor", "pool"])
    def test_it_may_set_globals(self, tc: TaskClient, farm: FakeFarm, kind: str) -> None:
        program: dict[str, Any] = {"__name__": "__main__"}
        exec(PROGRAM, program)
        executor = getattr(tc, kind)(initializer=program["prepare"], initargs=(7,))
        for _ in range(3):
            assert list(executor.map(program["work"], range(4))) == [(7, x) for x in range(4)]
            assert list(executor.map(program["other"], range(2))) == [(7, 0), (7, 2)]
        assert program["state"] is None
        definitions = [each for each in farm.sent if isinstance(each, m.DefineFunction)]
        assert len(definitions) == 2

    def test_what_it_raises_the_calls_raise(self, tc: TaskClient) -> None:
        executor = tc.executor(initializer=reciprocal, initargs=[0])
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                executor.submit(square, 2).result()

    def test_it_must_be_callable(self, tc: TaskClient) -> None:
        for make in (tc.executor, tc.pool):
            with pytest.raises(TypeError, match="initializer must be a callable"):
                make(initializer=3)

    def test_a_pool_takes_it_by_position(self, tc: TaskClient) -> None:
        pool = Pool(2, set_initial, ("here",), client=tc)
        assert pool.map(initial_and, range(2)) == [("here", 0), ("here", 1)]


PROGRAM = """
state = None

def prepare(value):
    global state
    state = value

def work(x):
    return state, x

def other(x):
    return state, 2 * x
"""


class TestMap:
    @pytest.mark.parametrize("size", [0, -3])
    def test_chunks_have_items(self, tc: TaskClient, size: int) -> None:
        with pytest.raises(ValueError, match="chunksize must be >= 1"):
            tc.executor().map(square, [1], chunksize=size)

    def test_a_chunk_is_one_task(self, tc: TaskClient, farm: FakeFarm) -> None:
        assert list(tc.executor().map(square, range(10), chunksize=4)) == [x * x for x in range(10)]
        assert len(farm.tries) == 3

    def test_a_chunk_fails_as_one(self, tc: TaskClient) -> None:
        results = tc.executor().map(reciprocal, [1, 2, 4, 0], chunksize=2)
        assert [next(results), next(results)] == [1.0, 0.5]
        with pytest.raises(ZeroDivisionError):
            next(results)

    def test_engines_need_not_import_the_client_for_chunks(self, tc: TaskClient) -> None:
        pickled = tc.define(chunked(len)).pickle
        loaded = [arg for code, arg, _ in pickletools.genops(pickled) if code.name in ("GLOBAL", "INST")]
        assert not loaded
        words = [arg for code, arg, _ in pickletools.genops(pickled) if "UNICODE" in code.name]
        assert "cloudpickle.cloudpickle" in words
        assert "chunked.<locals>.call_each" in words

    def test_no_more_than_the_buffer_is_submitted(self, threaded: TaskClient) -> None:
        executor = threaded.executor()
        numbers = itertools.count()
        results = executor.map(square, numbers, buffersize=4)
        assert next(numbers) == 4
        assert [next(results) for _ in range(4)] == [0, 1, 4, 9]
        assert next(numbers) == 9
        executor.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            next(results)

    def test_the_buffer_is_emptied(self, tc: TaskClient) -> None:
        for size in (1, 3, 10, 99):
            assert list(tc.executor().map(pow, range(10), [2] * 10, buffersize=size)) == [x * x for x in range(10)]
        assert list(tc.executor().map(square, range(10), buffersize=2, chunksize=3)) == [x * x for x in range(10)]

    @pytest.mark.parametrize(
        ("size", "error"), [(0, ValueError), (-1, ValueError), ("3", TypeError), (2.5, TypeError)]
    )
    def test_wrong_buffers(self, tc: TaskClient, size: Any, error: type) -> None:
        with pytest.raises(error, match="buffersize must be"):
            tc.executor().map(square, [1], buffersize=size)

    def test_the_rest_of_a_buffer_is_cancelled(self, threaded: TaskClient, tmp_path: Path) -> None:
        executor = threaded.executor()
        held = Held(executor, 3, tmp_path)
        results: Any = executor.map(square, itertools.count(), buffersize=5, timeout=0.02)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
        waiting = executor.submit(square, 3)
        held.go()
        assert waiting.result(timeout=30) == 9
        executor.shutdown()
        with pytest.raises(StopIteration):
            next(results)

    def test_the_functions_own_timeout_is_told_apart(self, tc: TaskClient) -> None:
        def late() -> None:
            raise TimeoutError("the disk did not answer")

        with pytest.raises(TimeoutError, match="the disk did not answer"):
            list(tc.executor().map(lambda x: late(), [1], timeout=60))

    def test_a_lost_engine_is_told(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        results = tc.executor().map(square, range(3))
        (task, *_) = farm.start(1)
        farm.undo(task, "EngineLost", "three engines were lost with it")
        with pytest.raises(EngineLost, match="three engines"):
            next(results)


class TestClient:
    def test_that_was_given_stays_open(self, tc: TaskClient, farm: FakeFarm) -> None:
        with tc.executor() as executor:
            executor.submit(square, 2)
        assert not farm.closed
        assert tc.map(square, [3]) == [9]

    @pytest.mark.parametrize("waits", [True, False])
    def test_of_its_own_is_closed_when_all_has_ended(
        self,
        monkeypatch: pytest.MonkeyPatch,
        threads: ThreadFarm,
        threaded: TaskClient,
        waits: bool,
        tmp_path: Path,
    ) -> None:
        monkeypatch.setattr(executor_module, "TaskCaller", lambda: threaded)
        executor = Executor(max_workers=4)
        held = Held(executor, 3, tmp_path)
        last = executor.submit(square, 5)
        if waits:
            threading.Timer(0.01, held.go).start()
        executor.shutdown(wait=waits)
        if not waits:
            assert not threads.closed.is_set()
            held.go()
        assert last.result(timeout=30) == 25
        assert threads.closed.wait(30)
        executor.shutdown()
