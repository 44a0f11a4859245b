"""What programs expect of an executor: one suite for Python's own and for ours."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
import weakref
from concurrent.futures import Future, as_completed, wait
from pathlib import Path
from typing import Any

import pytest


def square(x: int) -> int:
    return x * x


def reciprocal(x: float) -> float:
    return 1 / x


def note(path: str, text: str = "x") -> str:
    """Append to a file in one step."""
    descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, text.encode())
    os.close(descriptor)
    return text


def note_slowly(path: str, number: int) -> int:
    if number == 0:
        raise KeyError("the first")
    note(path)
    time.sleep(0.005)
    return number


def names_given(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def hold(folder: str, number: int) -> int:
    """Say that this call runs, and go on when it is let."""
    Path(folder, f"started{number}").touch()
    deadline = time.monotonic() + 60
    while not Path(folder, "go").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    return number


def size_of_file(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class Falsey(Exception):
    """An exception of a library that counts its parts, and has none."""

    def __len__(self) -> int:
        return 0


def raise_falsey() -> None:
    raise Falsey("seen all the same")


initial: Any = None


def set_initial(value: str) -> None:
    global initial
    initial = value


def initial_and(x: int) -> tuple[Any, int]:
    return initial, x


class Held:
    """Calls that keep all workers of an executor busy until they are let go."""

    def __init__(self, executor: concurrent.futures.Executor, workers: int, folder: Path) -> None:
        self.folder = folder
        self.futures = [executor.submit(hold, str(folder), number) for number in range(workers)]
        deadline = time.monotonic() + 60
        while not all((folder / f"started{number}").exists() for number in range(workers)):
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def go(self) -> None:
        (self.folder / "go").touch()


class ExecutorContract:
    """Whoever inherits this has a fixture ``executor``, and one ``workers``: how many calls it runs at once."""

    # --- one call ----------------------------------------------------------------------------------------

    def test_submit_gives_a_future_of_the_result(self, executor: concurrent.futures.Executor) -> None:
        future = executor.submit(pow, 2, 5)
        assert isinstance(future, Future)
        assert future.result(timeout=30) == 32
        assert future.exception() is None
        assert (future.done(), future.cancelled(), future.running(), future.cancel()) == (
            True,
            False,
            False,
            False,
        )

    def test_all_keyword_arguments_are_the_functions(self, executor: concurrent.futures.Executor) -> None:
        names = {"self": 1, "fn": 2, "f": 3, "func": 4, "timeout": 5, "priority": 6, "after": 7, "ranks": 8}
        assert executor.submit(names_given, 0, **names).result(timeout=30) == ((0,), names)
        assert executor.submit(int, "101", base=2).result(timeout=30) == 5

    def test_what_the_function_raises_is_raised(self, executor: concurrent.futures.Executor) -> None:
        future = executor.submit(reciprocal, 0)
        assert isinstance(future.exception(timeout=30), ZeroDivisionError)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="division by zero"):
                future.result()
        assert future.done()
        assert not future.cancelled()

    def test_the_standard_librarys_names_catch_what_it_raises(
        self, executor: concurrent.futures.Executor, workers: int, tmp_path: Path
    ) -> None:
        held = Held(executor, workers, tmp_path)
        waiting = executor.submit(square, 3)
        for timeout in (0, 0.01):
            with pytest.raises(concurrent.futures.TimeoutError):
                waiting.exception(timeout=timeout)
        results = executor.map(square, [1], timeout=0)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
        assert waiting.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result()
        held.go()

    def test_a_future_of_a_loop_may_give_up(
        self, executor: concurrent.futures.Executor, workers: int, tmp_path: Path
    ) -> None:
        held = Held(executor, workers, tmp_path)

        async def use() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(held.futures[0]), 0.01)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(waiting), 0.01)

        waiting, told = executor.submit(note, str(tmp_path / "noted")), threading.Event()
        waiting.add_done_callback(lambda _: told.set())
        asyncio.run(use())
        assert told.wait(30)
        assert waiting.cancelled()
        held.go()
        executor.shutdown()
        assert held.futures[0].result() == 0
        assert not (tmp_path / "noted").exists()

    def test_a_result_is_not_kept_by_the_executor(self, executor: concurrent.futures.Executor) -> None:
        future = executor.submit(names_given, 1)
        seen = weakref.ref(future)
        assert future.result(timeout=30) == ((1,), {})
        # Those who tell of the end may have it for a moment longer.
        executor.submit(square, 1).result(timeout=30)
        executor.shutdown()
        del future
        assert seen() is None

    def test_callbacks_are_called_once_with_the_future(self, executor: concurrent.futures.Executor) -> None:
        called: list[tuple[str, Future[Any]]] = []
        told = threading.Event()
        future = executor.submit(square, 3)
        future.add_done_callback(lambda f: called.append(("first", f)))
        future.add_done_callback(lambda f: told.set())
        assert told.wait(30)
        future.add_done_callback(lambda f: called.append(("late", f)))
        assert called == [("first", future), ("late", future)]

    def test_a_callback_may_submit(self, executor: concurrent.futures.Executor) -> None:
        more: list[Future[int]] = []
        told = threading.Event()

        def go_on(future: Future[int]) -> None:
            more.append(executor.submit(square, future.result()))
            told.set()

        executor.submit(square, 3).add_done_callback(go_on)
        assert told.wait(30)
        assert more[0].result(timeout=30) == 81

    def test_threads_may_share_it(self, executor: concurrent.futures.Executor) -> None:
        results: list[list[int]] = []

        def use() -> None:
            results.append([f.result(timeout=30) for f in [executor.submit(square, x) for x in range(100)]])

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [[x * x for x in range(100)]] * 4

    # --- waiting -----------------------------------------------------------------------------------------

    def test_wait_and_as_completed(
        self, executor: concurrent.futures.Executor, workers: int, tmp_path: Path
    ) -> None:
        held = Held(executor, workers - 1, tmp_path)
        quick = executor.submit(square, 2)
        done, waiting = wait([*held.futures, quick], timeout=30, return_when=concurrent.futures.FIRST_COMPLETED)
        assert (done, waiting) == ({quick}, set(held.futures))
        with pytest.raises(concurrent.futures.TimeoutError):
            held.futures[0].result(timeout=0.01)
        with pytest.raises(concurrent.futures.TimeoutError):
            list(as_completed(held.futures, timeout=0.01))
        held.go()
        assert sorted(f.result() for f in as_completed(held.futures, timeout=30)) == list(range(workers - 1))
        failing = executor.submit(reciprocal, 0)
        done, _ = wait([failing], timeout=30, return_when=concurrent.futures.FIRST_EXCEPTION)
        assert done == {failing}

    def test_coroutines_may_wait(self, executor: concurrent.futures.Executor) -> None:
        async def use() -> list[int]:
            loop = asyncio.get_running_loop()
            here = [loop.run_in_executor(executor, square, x) for x in range(5)]
            there = [asyncio.wrap_future(executor.submit(square, x)) for x in range(5)]
            return list(await asyncio.gather(*here, *there))

        assert asyncio.run(use()) == [0, 1, 4, 9, 16] * 2

    # --- taking back -------------------------------------------------------------------------------------

    def test_what_waits_can_be_cancelled_and_what_runs_cannot(
        self, executor: concurrent.futures.Executor, workers: int, tmp_path: Path
    ) -> None:
        held = Held(executor, workers, tmp_path)
        noted = tmp_path / "noted"
        waiting = executor.submit(note, str(noted))
        told: list[Future[Any]] = []
        waiting.add_done_callback(told.append)
        assert waiting.cancel()
        assert waiting.cancel()
        assert waiting.cancelled()
        assert waiting.done()
        assert told == [waiting]
        assert not held.futures[0].cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result(timeout=30)
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.exception(timeout=30)
        held.go()
        executor.shutdown()
        assert not noted.exists()
        assert [f.result() for f in held.futures] == list(range(workers))

    # --- map ---------------------------------------------------------------------------------------------

    def test_map_gives_results_in_order(self, executor: concurrent.futures.Executor) -> None:
        assert list(executor.map(square, range(500))) == [x * x for x in range(500)]
        assert list(executor.map(pow, [2, 3, 4], [5, 2])) == [32, 9]
        assert list(executor.map(square, [])) == []
        assert list(executor.map(square)) == []

    @pytest.mark.parametrize("size", [2, 7, 1000])
    def test_map_in_chunks_gives_the_same(self, executor: concurrent.futures.Executor, size: int) -> None:
        assert list(executor.map(pow, range(100), [2] * 100, chunksize=size)) == [x * x for x in range(100)]

    def test_map_submits_before_the_first_result_is_wanted(
        self, executor: concurrent.futures.Executor, tmp_path: Path
    ) -> None:
        noted = tmp_path / "noted"
        taken: list[int] = []

        def items() -> Any:
            for number in range(5):
                taken.append(number)
                yield str(noted)

        executor.map(note, items())
        assert taken == [0, 1, 2, 3, 4]
        executor.shutdown()
        assert size_of_file(noted) == 5

    def test_map_raises_when_it_is_that_items_turn(self, executor: concurrent.futures.Executor) -> None:
        results = executor.map(reciprocal, [1, 2, 0, 4])
        assert next(results) == 1.0
        assert next(results) == 0.5
        with pytest.raises(ZeroDivisionError):
            next(results)
        with pytest.raises(StopIteration):
            next(results)

    def test_map_raises_if_all_took_too_long(
        self, executor: concurrent.futures.Executor, workers: int, tmp_path: Path
    ) -> None:
        held = Held(executor, workers, tmp_path)
        noted = tmp_path / "noted"
        results = executor.map(note, [str(noted)] * 10, timeout=0.02)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
        held.go()
        executor.shutdown()
        assert not noted.exists()
        with pytest.raises(StopIteration):
            next(results)

    def test_map_in_time_says_nothing(self, executor: concurrent.futures.Executor) -> None:
        assert list(executor.map(square, range(10), timeout=60)) == [x * x for x in range(10)]

    def test_the_rest_of_a_map_is_not_run_after_a_failure(
        self, executor: concurrent.futures.Executor, tmp_path: Path
    ) -> None:
        noted = tmp_path / "noted"
        results = executor.map(note_slowly, [str(noted)] * 2000, range(2000))
        with pytest.raises(KeyError, match="the first"):
            next(results)
        executor.shutdown()
        assert size_of_file(noted) < 1500

    def test_the_rest_of_a_map_is_not_run_after_its_close(
        self, executor: concurrent.futures.Executor, tmp_path: Path
    ) -> None:
        noted = tmp_path / "noted"
        results: Any = executor.map(note_slowly, [str(noted)] * 2000, range(1, 2001))
        assert next(results) == 1
        results.close()
        executor.shutdown()
        assert size_of_file(noted) < 1500

    # --- shutdown ----------------------------------------------------------------------------------------

    def test_nothing_is_taken_after_shutdown(self, executor: concurrent.futures.Executor) -> None:
        executor.shutdown()
        executor.shutdown()
        executor.shutdown(wait=False, cancel_futures=True)
        for use in (lambda: executor.submit(square, 1), lambda: executor.map(square, [1])):
            with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
                use()

    def test_the_with_statement_waits_for_all(self, executor: concurrent.futures.Executor, tmp_path: Path) -> None:
        noted = tmp_path / "noted"
        with executor as entered:
            assert entered is executor
            futures = [executor.submit(note_slowly, str(noted), number) for number in range(1, 11)]
            results = executor.map(note_slowly, [str(noted)] * 10, range(1, 11))
        assert all(future.done() for future in futures)
        assert size_of_file(noted) == 20
        assert list(results) == list(range(1, 11))

    def test_shutdown_need_not_wait(
        self, executor: concurrent.futures.Executor, workers: int, tmp_path: Path
    ) -> None:
        held = Held(executor, workers, tmp_path)
        waiting = executor.submit(square, 4)
        executor.shutdown(wait=False)
        assert not any(f.done() for f in [*held.futures, waiting])
        held.go()
        assert waiting.result(timeout=30) == 16
        assert [f.result(timeout=30) for f in held.futures] == list(range(workers))

    def test_shutdown_can_cancel_what_waits(
        self, executor: concurrent.futures.Executor, workers: int, tmp_path: Path
    ) -> None:
        held = Held(executor, workers, tmp_path)
        told = threading.Semaphore(0)
        waiting = [executor.submit(square, 4) for _ in range(3)]
        for future in waiting:
            future.add_done_callback(lambda _: told.release())
        results = executor.map(square, range(3))
        ended = threading.Thread(target=lambda: executor.shutdown(cancel_futures=True))
        ended.start()
        assert all(told.acquire(timeout=30) for _ in waiting)
        assert all(f.cancelled() for f in waiting)
        assert ended.is_alive()  # it waits for what runs
        held.go()
        ended.join(30)
        assert not ended.is_alive()
        assert [f.result() for f in held.futures] == list(range(workers))
        with pytest.raises(concurrent.futures.CancelledError):
            next(results)
