from __future__ import annotations

import importlib.util
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from executor_contract import hold, note, reciprocal, square
from fake_farm import FakeFarm
from thread_farm import ThreadFarm

from ipmpi.client.pools import joblib_backend
from ipmpi.client.pools.joblib_backend import register_joblib
from ipmpi.client.session.failures import EngineTraceback
from ipmpi.client.tasks.task import TaskClient
from ipmpi.errors import SerializationError
from ipmpi.protocol import messages as m


@pytest.fixture
def joblib(need: Callable[[str, object], None]) -> Iterator[Any]:
    need("no joblib", importlib.util.find_spec("joblib"))
    import joblib

    yield joblib
    joblib.parallel.BACKENDS.pop("ipmpi", None)


@pytest.fixture
def registered(joblib: Any, threaded: TaskClient) -> Any:
    register_joblib(threaded)
    return joblib


def squares_inside(number: int) -> tuple[str, list[int]]:
    """What a library does that uses joblib by itself."""
    import joblib

    parallel = joblib.Parallel(n_jobs=2)
    return type(parallel._backend).__name__, parallel(joblib.delayed(square)(x) for x in range(number))


def ended_jobs(farm: ThreadFarm) -> int:
    return sum(len(message.lengths) // 4 for message in farm.sent if isinstance(message, m.SubmitTasks))


def test_jobs_run_on_the_engines(registered: Any, threads: ThreadFarm) -> None:
    with registered.parallel_backend("ipmpi"):
        results = registered.Parallel()(registered.delayed(pow)(x, 2) for x in range(200))
    assert results == [x * x for x in range(200)]
    assert any(isinstance(message, m.SubmitTasks) for message in threads.sent)
    assert registered.Parallel(backend="ipmpi", n_jobs=2)(registered.delayed(square)(x) for x in range(3)) == [
        0,
        1,
        4,
    ]


def test_the_newer_context_and_its_options(registered: Any, threads: ThreadFarm) -> None:
    with registered.parallel_config("ipmpi", priority=7, retries=2):
        assert registered.Parallel()(registered.delayed(square)(x) for x in range(5)) == [0, 1, 4, 9, 16]
    options = {(o.priority, o.retries) for o in (s.options for s in threads.sent if isinstance(s, m.SubmitTasks))}
    assert options == {(7, 2)}
    with (
        pytest.raises(TypeError, match="'colour' is not an option of calls"),
        registered.parallel_config("ipmpi", colour="red"),
    ):
        pass


def test_options_given_to_parallel_itself_are_used_or_refused(registered: Any, threads: ThreadFarm) -> None:
    parallel = registered.Parallel(backend="ipmpi", n_jobs=2, retries=2)
    assert parallel(registered.delayed(square)(x) for x in range(5)) == [0, 1, 4, 9, 16]
    assert {s.options.retries for s in threads.sent if isinstance(s, m.SubmitTasks)} == {2}
    for wrong, text in (
        (
            {"initializer": print},
            r"'initializer' cannot be given to engines: .* run it before, on all engines: mec\.apply",
        ),
        ({"colour": "red"}, r"'colour' is not an option of calls"),
        ({"retries": "x"}, r"retries must be an int"),
    ):
        with pytest.raises(TypeError, match=text):
            registered.Parallel(backend="ipmpi", n_jobs=2, **wrong)(registered.delayed(square)(x) for x in [1])


@pytest.mark.parametrize("position", [0, 500])
def test_a_job_that_cannot_be_sent_is_told_wherever_it_stands(registered: Any, position: int) -> None:
    """Beyond the first ones, joblib takes jobs from the iterable in a thread where nobody sees an exception."""
    jobs = (registered.delayed(id)(threading.Lock() if i == position else i) for i in range(1000))
    with registered.parallel_backend("ipmpi"), pytest.raises(SerializationError, match="lock"):
        registered.Parallel()(jobs)
    with registered.parallel_backend("ipmpi"):
        assert registered.Parallel()(registered.delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_a_callback_that_raises_does_not_keep_others_from_being_called(
    threaded: TaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    called = threading.Event()
    batches = joblib_backend._Batches(threaded, {})
    batches.submit(lambda: 1, lambda _: 1 // 0)
    batches.submit(lambda: 2, lambda _: called.set())
    assert called.wait(10)
    batches.stop()
    assert "a callback of joblib has failed" in caplog.text


def test_another_client_may_be_named(joblib: Any, threaded: TaskClient, tc: TaskClient, farm: FakeFarm) -> None:
    register_joblib(threaded)
    with joblib.parallel_backend("ipmpi", client=tc):
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(5)) == [0, 1, 4, 9, 16]
    assert farm.tries


def test_a_client_is_connected_when_it_is_needed(
    joblib: Any, monkeypatch: pytest.MonkeyPatch, threaded: TaskClient
) -> None:
    connected: list[TaskClient] = []
    monkeypatch.setattr(joblib_backend, "TaskCaller", lambda: connected.append(threaded) or threaded)
    register_joblib()
    with joblib.parallel_backend("ipmpi"):
        assert not connected
        for _ in range(2):
            assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(3)) == [0, 1, 4]
    assert connected == [threaded]


def test_the_number_of_jobs(registered: Any) -> None:
    with registered.parallel_backend("ipmpi"):
        assert registered.effective_n_jobs() == 3
        assert registered.effective_n_jobs(-2) == 2
        assert registered.effective_n_jobs(17) == 17
        assert registered.effective_n_jobs(1) == 1
        with pytest.raises(ValueError, match="n_jobs == 0"):
            registered.effective_n_jobs(0)


def test_one_job_is_done_here(registered: Any, threads: ThreadFarm) -> None:
    with registered.parallel_backend("ipmpi", n_jobs=1):
        pids = registered.Parallel()(registered.delayed(os.getpid)() for _ in range(3))
    assert pids == [os.getpid()] * 3
    assert not any(isinstance(message, m.SubmitTasks) for message in threads.sent)


def test_one_engine_does_what_is_asked_of_all(joblib: Any) -> None:
    farm: Any = ThreadFarm(engines=1)
    register_joblib(TaskClient(session=farm))
    with joblib.parallel_backend("ipmpi"):
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(3)) == [0, 1, 4]
    assert any(isinstance(message, m.SubmitTasks) for message in farm.sent)
    farm.close()


def test_short_jobs_go_in_batches(registered: Any, threads: ThreadFarm) -> None:
    with registered.parallel_backend("ipmpi"):
        results = registered.Parallel()(registered.delayed(square)(x) for x in range(3000))
    assert results == [x * x for x in range(3000)]
    assert ended_jobs(threads) < 1500


def test_a_batch_is_no_new_function_for_the_engines(registered: Any, threads: ThreadFarm) -> None:
    with registered.parallel_backend("ipmpi"):
        registered.Parallel(batch_size=1)(registered.delayed(square)(x) for x in range(50))
    assert sum(isinstance(message, m.DefineFunction) for message in threads.sent) == 1


def test_calls_inside_of_jobs_use_threads_there(registered: Any) -> None:
    with registered.parallel_backend("ipmpi"):
        results = registered.Parallel()(registered.delayed(squares_inside)(n) for n in range(4))
    assert results == [("ThreadingBackend", [x * x for x in range(n)]) for n in range(4)]


def test_a_failure_shows_where_on_the_engine(registered: Any) -> None:
    with registered.parallel_backend("ipmpi"), pytest.raises(ZeroDivisionError) as info:
        registered.Parallel()(registered.delayed(reciprocal)(x) for x in [1, 2, 0, 4])
    assert isinstance(info.value.__cause__, EngineTraceback)
    assert "return 1 / x" in str(info.value.__cause__)


def test_a_failure_takes_the_others_back(registered: Any, tmp_path: Path) -> None:
    noted, folder = str(tmp_path / "noted"), str(tmp_path)
    taken: list[int] = []

    def jobs() -> Iterator[Any]:
        yield registered.delayed(hold)(folder, 0)
        yield registered.delayed(hold)(folder, 1)
        yield registered.delayed(reciprocal)(0)
        for number in range(100):
            taken.append(number)
            yield registered.delayed(note)(noted)

    with registered.parallel_backend("ipmpi"):
        with pytest.raises(ZeroDivisionError):
            registered.Parallel(batch_size=1)(jobs())
        (tmp_path / "go").touch()
        assert len(taken) < 20
        assert registered.Parallel()(registered.delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_a_time_limit(registered: Any, tmp_path: Path) -> None:
    with registered.parallel_backend("ipmpi"), pytest.raises(multiprocessing.TimeoutError):
        registered.Parallel(timeout=0.05)(registered.delayed(hold)(str(tmp_path), n) for n in range(4))
    (tmp_path / "go").touch()


def test_results_may_come_one_by_one(registered: Any) -> None:
    with registered.parallel_backend("ipmpi"):
        for how in ("generator", "generator_unordered"):
            results = registered.Parallel(return_as=how)(registered.delayed(square)(x) for x in range(20))
            assert sorted(results) == [x * x for x in range(20)]


def test_one_parallel_object_is_used_again(registered: Any) -> None:
    with registered.parallel_backend("ipmpi"), registered.Parallel() as parallel:
        for _ in range(3):
            assert parallel(registered.delayed(square)(x) for x in range(5)) == [0, 1, 4, 9, 16]
        with pytest.raises(ZeroDivisionError):
            parallel(registered.delayed(reciprocal)(x) for x in [1, 0])
        assert parallel(registered.delayed(square)(x) for x in range(5)) == [0, 1, 4, 9, 16]


def test_the_users_iterable_is_not_read_in_the_sessions_thread(registered: Any, threads: ThreadFarm) -> None:
    here: list[bool] = []

    def jobs() -> Iterator[Any]:
        for number in range(50):
            here.append(threads.is_own_thread())
            yield registered.delayed(square)(number)

    with registered.parallel_backend("ipmpi"):
        registered.Parallel(batch_size=1)(jobs())
    assert len(here) == 50
    assert not any(here)


def test_no_thread_is_left(registered: Any) -> None:
    with registered.parallel_backend("ipmpi"):
        registered.Parallel()(registered.delayed(square)(x) for x in range(5))
    deadline = time.monotonic() + 20
    while any(thread.name == "ipmpi-joblib" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
