from __future__ import annotations

import concurrent.futures
import importlib.util
import itertools
import multiprocessing
import multiprocessing.pool
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from executor_contract import hold, names_given, note, reciprocal, size_of_file, square
from fake_farm import FakeFarm
from thread_farm import ThreadFarm

from ipmpi.client.pools import pool as pool_module
from ipmpi.client.pools.pool import Pool
from ipmpi.client.tasks.task import TaskClient

WORKERS = 3
Need = Callable[[str, object], None]


class Held:
    """Calls that keep all workers of a pool busy until they are let go."""

    def __init__(self, pool: Any, folder: Path) -> None:
        self.folder = folder
        self.results = [pool.apply_async(hold, (str(folder), number)) for number in range(WORKERS)]
        while not all((folder / f"started{number}").exists() for number in range(WORKERS)):
            assert not self.results[0].ready()

    def go(self) -> None:
        (self.folder / "go").touch()


def test_join_waits_for_what_runs_when_a_map_has_failed(threaded: TaskClient, tmp_path: Path) -> None:
    folder, ended = str(tmp_path), tmp_path / "ended"

    def item(number: int) -> None:
        if number == 0:
            while not Path(folder, "started1").exists():
                pass
            raise KeyError("the first")
        hold(folder, number)
        note(str(ended))

    pool = threaded.pool()
    with pytest.raises(KeyError):
        pool.map(item, [0, 1])
    pool.close()
    joined = threading.Event()
    thread = threading.Thread(target=lambda: (pool.join(), joined.set()))
    thread.start()
    assert not joined.wait(0.05)
    (tmp_path / "go").touch()
    assert joined.wait(30)
    assert size_of_file(ended) == 1


class TestLikeTheOriginal:
    """What programs expect of a pool: one suite for Python's own and for ours."""

    @pytest.fixture(params=["reference", "ipmpi"])
    def pool(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
        if request.param == "reference":
            pool: Any = multiprocessing.pool.ThreadPool(WORKERS)
        else:
            pool = request.getfixturevalue("threaded").pool()
        yield pool
        (tmp_path / "go").touch()
        pool.terminate()
        pool.join()

    def test_apply(self, pool: Any) -> None:
        names = {"func": 1, "args": 2, "timeout": 3, "callback": 4}
        assert pool.apply(names_given, (0,), names) == ((0,), names)
        assert pool.apply(square, [7]) == 49
        with pytest.raises(ZeroDivisionError):
            pool.apply(reciprocal, (0,))

    def test_map_and_starmap(self, pool: Any) -> None:
        assert pool.map(square, range(100)) == [x * x for x in range(100)]
        assert pool.map(square, (x for x in range(10)), chunksize=3) == [x * x for x in range(10)]
        assert pool.starmap(pow, [(2, 5), [3, 2]]) == [32, 9]
        assert pool.map(square, []) == []
        assert pool.starmap_async(pow, zip([2, 3], [5, 2], strict=True), 2).get(timeout=30) == [32, 9]
        with pytest.raises(ZeroDivisionError):
            pool.map(reciprocal, [1, 0, 2])

    def test_results_to_come(self, pool: Any, tmp_path: Path) -> None:
        held = Held(pool, tmp_path)
        waiting = pool.map_async(square, range(3))
        for result in (held.results[0], waiting):
            assert not result.ready()
            assert result.wait(0.01) is None
            with pytest.raises(multiprocessing.TimeoutError):
                result.get(timeout=0.01)
            with pytest.raises(ValueError, match="not ready"):
                result.successful()
        held.go()
        assert waiting.get(timeout=30) == [0, 1, 4]
        assert held.results[1].get(timeout=30) == 1
        waiting.wait()
        assert waiting.ready()
        assert waiting.successful()
        assert waiting.get() == [0, 1, 4]

    def test_failures_to_come(self, pool: Any) -> None:
        for failing in (pool.apply_async(reciprocal, (0,)), pool.map_async(reciprocal, [1, 0])):
            failing.wait(30)
            assert failing.ready()
            assert not failing.successful()
            for _ in range(2):
                with pytest.raises(ZeroDivisionError):
                    failing.get()

    def test_callbacks_were_called_when_the_pool_is_joined(self, pool: Any) -> None:
        values: list[Any] = []
        errors: list[BaseException] = []
        for number in range(20):
            pool.apply_async(square, (number,), callback=values.append, error_callback=errors.append)
        pool.apply_async(reciprocal, (0,), callback=values.append, error_callback=errors.append)
        pool.map_async(square, range(3), callback=values.append)
        pool.map_async(reciprocal, [0], error_callback=errors.append)
        pool.close()
        pool.join()
        assert sorted(value for value in values if isinstance(value, int)) == [x * x for x in range(20)]
        assert [0, 1, 4] in values
        assert [type(error) for error in errors] == [ZeroDivisionError] * 2

    def test_a_callback_was_called_when_the_result_is_there(self, pool: Any) -> None:
        for number in range(20):
            values: list[int] = []
            result = pool.apply_async(square, (number,), callback=values.append)
            assert result.get(timeout=30) == number * number
            assert values == [number * number]

    @pytest.mark.parametrize("chunksize", [1, 4])
    @pytest.mark.parametrize("has_length", [True, False])
    def test_imap(self, pool: Any, has_length: bool, chunksize: int) -> None:
        def items() -> Any:
            return range(50) if has_length else iter(range(50))

        expected = [x * x for x in range(50)]
        assert list(pool.imap(square, items(), chunksize)) == expected
        assert sorted(pool.imap_unordered(square, items(), chunksize)) == expected
        assert list(pool.imap(square, [])) == list(pool.imap(square, iter([]))) == []

    @pytest.mark.parametrize("has_length", [True, False])
    def test_imap_goes_on_after_a_failure(self, pool: Any, has_length: bool) -> None:
        results = pool.imap(reciprocal, [1, 0, 2] if has_length else iter([1, 0, 2]))
        assert next(results) == 1.0
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert next(results) == 0.5
        with pytest.raises(StopIteration):
            next(results)

    @pytest.mark.parametrize("has_length", [True, False])
    def test_imap_does_not_wait_for_ever(self, pool: Any, tmp_path: Path, has_length: bool) -> None:
        held = Held(pool, tmp_path)
        results = pool.imap(square, [3] if has_length else iter([3]))
        with pytest.raises(multiprocessing.TimeoutError):
            results.next(timeout=0.01)
        held.go()
        assert results.next(timeout=30) == 9

    def test_imap_gives_results_while_items_are_made(self, pool: Any) -> None:
        seen = threading.Event()

        def items() -> Iterator[int]:
            yield 1
            assert seen.wait(30)
            yield 2

        results = pool.imap(square, items())
        assert next(results) == 1
        seen.set()
        assert list(results) == [4]

    def test_imap_raises_what_the_items_raise(self, pool: Any) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise LookupError("no second item")

        results = pool.imap(square, items())
        assert next(results) == 1
        with pytest.raises(LookupError, match="no second item"):
            next(results)

    def test_what_was_begun_is_finished_after_close(self, pool: Any, tmp_path: Path) -> None:
        seen = threading.Event()

        def items() -> Iterator[str]:
            yield str(tmp_path / "noted")
            assert seen.wait(30)
            yield str(tmp_path / "noted")

        pool.imap(note, items())
        pool.close()
        seen.set()
        pool.join()
        assert (tmp_path / "noted").read_text() == "xx"

    def test_a_closed_pool_takes_nothing(self, pool: Any) -> None:
        with pytest.raises(ValueError, match="Pool is still running"):
            pool.join()
        pool.close()
        uses: list[Callable[[], Any]] = [
            lambda: pool.apply(square, (1,)),
            lambda: pool.map(square, [1]),
            lambda: pool.imap(square, [1]),
            lambda: pool.imap_unordered(square, iter([1])),
            lambda: pool.starmap_async(pow, [(1, 2)]),
            pool.__enter__,
        ]
        for use in uses:
            with pytest.raises(ValueError, match="Pool not running"):
                use()
        pool.join()
        pool.close()

    def test_it_cannot_be_sent(self, pool: Any) -> None:
        with pytest.raises(NotImplementedError, match="cannot be passed between processes"):
            pickle.dumps(pool)

    def test_wrong_chunks(self, pool: Any) -> None:
        with pytest.raises(ValueError, match=r"Chunksize must be 1\+, not 0"):
            pool.imap(square, [1], 0)


class TestOurs:
    def test_options_go_with_all_calls(self, tc: TaskClient, farm: FakeFarm) -> None:
        pool = tc.pool(priority=4)
        pool.apply(square, (2,))
        pool.map(square, [1, 2])
        list(pool.imap(square, iter([1, 2])))
        assert {message.options.priority for message in farm.sent if hasattr(message, "options")} == {4}
        with pytest.raises(TypeError, match="'maxtasksperchild' cannot be given to engines"):
            Pool(client=tc, maxtasksperchild=3)
        with pytest.raises(ValueError, match="Number of processes must be at least 1"):
            Pool(0, client=tc)

    def test_size_is_the_number_of_engines(self, tc: TaskClient) -> None:
        assert tc.pool().size == 2

    def test_the_with_statement_takes_back_what_waits(self, threaded: TaskClient, tmp_path: Path) -> None:
        noted = tmp_path / "noted"
        with threaded.pool() as pool:
            held = Held(pool, tmp_path)
            told: list[Any] = []
            waiting = pool.apply_async(note, (str(noted),), callback=told.append, error_callback=told.append)
            many = pool.map_async(note, [str(noted)] * 5)
            endless = pool.imap(note, (str(noted) for _ in itertools.count()))
        held.go()
        pool.join()
        for result in (waiting, many):
            with pytest.raises(concurrent.futures.CancelledError):
                result.get(timeout=30)
        with pytest.raises((concurrent.futures.CancelledError, ValueError)):
            next(endless)
        assert not told
        assert not noted.exists()
        assert threaded.map(square, [3]) == [9]

    def test_a_failing_callback_stops_no_other(self, tc: TaskClient, caplog: pytest.LogCaptureFixture) -> None:
        pool = tc.pool()
        values: list[int] = []
        pool.apply_async(square, (1,), callback=lambda value: {}[value])
        pool.apply_async(square, (2,), callback=values.append)
        pool.close()
        pool.join()
        assert values == [4]
        assert "a callback of a pool raised" in caplog.text

    @pytest.mark.parametrize("joined", [True, False])
    def test_a_client_of_its_own_is_closed(
        self, monkeypatch: pytest.MonkeyPatch, threads: ThreadFarm, threaded: TaskClient, joined: bool
    ) -> None:
        monkeypatch.setattr(pool_module, "TaskCaller", lambda: threaded)
        with Pool(4) as pool:
            assert pool.map(square, [2]) == [4]
            if joined:
                pool.close()
                pool.join()
                assert threads.closed.is_set()
        assert threads.closed.wait(30)


class TestLibraries:
    def test_scipy_minimizes_with_it(self, tc: TaskClient, need: Need) -> None:
        need("no SciPy", importlib.util.find_spec("scipy"))
        from scipy.optimize import differential_evolution

        lowest = (0.5, -0.25)

        def bowl(x: Any) -> float:
            return float((x[0] - lowest[0]) ** 2 + (x[1] - lowest[1]) ** 2)

        found = differential_evolution(
            bowl, [(-1, 1), (-1, 1)], workers=tc.pool().map, updating="deferred", rng=1, maxiter=60
        )
        assert found.x == pytest.approx(lowest, abs=1e-4)

    def test_emcee_samples_with_it(self, tc: TaskClient, need: Need) -> None:
        need("no emcee", importlib.util.find_spec("emcee"))
        import emcee
        import numpy as np

        def log_probability(x: Any) -> float:
            return float(-0.5 * np.sum(x**2))

        rng = np.random.RandomState(5)
        sampler = emcee.EnsembleSampler(8, 2, log_probability, pool=tc.pool())
        sampler.random_state = rng.get_state()
        sampler.run_mcmc(rng.standard_normal((8, 2)), 200)
        assert np.abs(sampler.get_chain(flat=True, discard=50).mean(axis=0)).max() < 0.5


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
@pytest.mark.parametrize("chunksize", [1, 3])
def test_an_endless_iterable_is_read_no_further_than_allowed(
    threaded: TaskClient, method: str, chunksize: int
) -> None:
    made: list[int] = []
    enough = threading.Event()

    def items() -> Iterator[int]:
        for number in itertools.count():
            made.append(number)
            if len(made) == 4 * chunksize:
                enough.set()
            yield number

    pool = threaded.pool()
    results = getattr(pool, method)(square, items(), chunksize, max_outstanding=4)
    assert enough.wait(30)
    threaded.map(square, range(10))  # by then all of those have ended, and nothing more is read
    assert len(made) == 4 * chunksize
    found = list(itertools.islice(results, 100 * chunksize))
    assert len(set(found)) == len(found) == 100 * chunksize
    assert len(made) <= 104 * chunksize
    pool.close()
    del results  # which ends the reading, so that this returns
    pool.join()
    assert len(made) <= 104 * chunksize


def test_a_bound_is_for_iterables_with_a_length_too(tc: TaskClient) -> None:
    pool = tc.pool()
    assert list(pool.imap(square, range(50), max_outstanding=1)) == [square(n) for n in range(50)]
    assert sorted(pool.imap_unordered(square, range(50), 7, max_outstanding=2)) == [square(n) for n in range(50)]
    with pytest.raises(ValueError, match=r"max_outstanding must be None or 1\+, not 0"):
        pool.imap(square, [1], max_outstanding=0)


def test_terminate_ends_a_reading_that_waits_for_results_to_be_taken(tc: TaskClient) -> None:
    pool = tc.pool()
    results = pool.imap(square, itertools.count(), max_outstanding=2)
    assert next(results) == 0
    pool.terminate()
    pool.join()
    with pytest.raises((concurrent.futures.CancelledError, ValueError)):
        list(results)
