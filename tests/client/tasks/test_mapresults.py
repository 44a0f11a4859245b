from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
from typing import Any

import pytest
from fake_farm import FakeFarm

from ipmpi import errors
from ipmpi.client import MapResults, MapTask, TaskClient
from ipmpi.errors import RemoteExit, ResultNotCompleted, TaskAborted


def stop_at_two(x: int) -> int:
    if x == 2:
        raise StopIteration(x)
    return x


def leave_at_two(x: int) -> int:
    if x == 2:
        raise SystemExit(x)
    return x


def first_of(results: MapResults) -> Any:
    for value in results:
        return value


class TestTheIterator:
    def test_leaving_a_loop_takes_back_what_has_not_started(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        results = tc.imap(abs, range(1000))
        first, second = farm.start(2)
        farm.finish(first)
        assert first_of(results) == 0
        assert len(farm.waiting) > 900
        del results
        assert len(farm.waiting) == len(farm.running) == 1
        farm.finish(second)  # it runs: nobody wants its result, but it is not stopped
        assert len(farm.tries) == 2
        assert sum(tc.queue_status().values()) == 1000

    def test_a_failure_that_is_kept_does_not_keep_the_rest(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        results = tc.imap(abs, ["x", *range(100)])
        farm.finish(farm.start(1)[0])
        gc.disable()
        try:
            with pytest.raises(TypeError) as info:
                next(results)
            del results
            assert not farm.waiting
        finally:
            gc.enable()
        assert info.value.__traceback__ is not None

    def test_results_that_somebody_waits_for_are_not_dropped(self, tc: TaskClient) -> None:
        assert list(tc.imap(abs, range(1000))) == list(range(1000))
        assert sum(tc.imap(abs, [-1, -2], ordered=False)) == 3

    def test_a_wait_that_is_too_short(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        results = tc.imap(abs, [-1])
        for kind in (ResultNotCompleted, TimeoutError, concurrent.futures.TimeoutError):
            with pytest.raises(kind, match=r"no result came in 0 s"):
                results.next(timeout=0)

    def test_what_was_taken_back_is_cancelled(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        results = tc.imap(abs, [-1])
        results.cancel()
        with pytest.raises(concurrent.futures.CancelledError) as info:
            next(results)
        assert isinstance(info.value, TaskAborted)


class TestExceptionsThatMeanSomething:
    """A StopIteration of a task ends no iterator here, and a SystemExit no program."""

    @pytest.mark.parametrize("ordered", [True, False])
    def test_in_imap(self, tc: TaskClient, ordered: bool) -> None:
        results = tc.imap(stop_at_two, range(5), ordered=ordered)
        got: list[Any] = []
        for _ in range(5):
            try:
                got.append(next(results))
            except RuntimeError as error:
                got.append(type(error.__cause__))
        assert got == [0, 1, StopIteration, 3, 4] if ordered else set(got) == {0, 1, StopIteration, 3, 4}

    def test_in_map(self, tc: TaskClient) -> None:
        with pytest.raises(RuntimeError, match=r"the task raised StopIteration: 2"):
            tc.map(stop_at_two, range(5))
        with pytest.raises(RemoteExit, match=r"the task raised SystemExit: 2"):
            tc.map(leave_at_two, range(5))

    def test_in_pool_and_executor(self, threaded: TaskClient) -> None:
        with pytest.raises(RuntimeError, match=r"StopIteration"):
            list(itertools.islice(threaded.executor().map(stop_at_two, range(5)), 5))
        pool = threaded.pool()
        iterator = pool.imap(stop_at_two, range(5))
        assert [next(iterator), next(iterator)] == [0, 1]
        with pytest.raises(RuntimeError, match=r"StopIteration"):
            next(iterator)
        assert list(iterator) == [3, 4]
        with pytest.raises(RemoteExit):
            pool.apply(leave_at_two, (2,))
        with pytest.raises(RemoteExit):
            pool.map(leave_at_two, range(5))


def reciprocal(x: int) -> float:
    return 1 / x


class TestExceptionsAsValues:
    def test_all_calls_are_made_and_failures_are_in_their_places(self, tc: TaskClient, farm: FakeFarm) -> None:
        first, second, third = tc.map(reciprocal, [0, 2, 0], return_exceptions=True)
        assert (type(first), second, type(third)) == (ZeroDivisionError, 0.5, ZeroDivisionError)
        assert "1 / x" in first._ipython_traceback_text  # type: ignore[union-attr]
        assert len(farm.tries) == 3

    def test_in_views_mappers_and_collect(self, tc: TaskClient) -> None:
        for values in (
            tc.options(priority=1).map(reciprocal, [0, 2], return_exceptions=True),
            tc.mapper(recovery_task=MapTask(reciprocal, (0,))).map(reciprocal, [0, 2], return_exceptions=True),
            tc.imap(reciprocal, [0, 2], ordered=False).collect(return_exceptions=True),
        ):
            assert (type(values[0]), values[1]) == (ZeroDivisionError, 0.5)

    def test_without_it_the_first_failure_is_raised(self, tc: TaskClient) -> None:
        with pytest.raises(ZeroDivisionError):
            tc.map(reciprocal, [2, 0])

    def test_the_end_of_the_connection_is_raised(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        results = tc.imap(reciprocal, [0, 2])
        farm.submitter.fail(errors.ConnectionError("the controller has gone"))
        with pytest.raises(ConnectionError, match="the controller has gone"):
            results.collect(return_exceptions=True)


class TestAsyncFor:
    @pytest.mark.parametrize("ordered", [True, False])
    def test_gives_all_results_while_other_coroutines_run(self, threaded: TaskClient, ordered: bool) -> None:
        async def main() -> list[int]:
            stop = asyncio.Event()
            turns = 0

            async def other() -> None:
                nonlocal turns
                while not stop.is_set():
                    turns += 1
                    await asyncio.sleep(0)

            running = asyncio.create_task(other())
            found = [value async for value in threaded.imap(abs, range(-200, 0), ordered=ordered)]
            stop.set()
            await running
            assert turns
            return found

        found = asyncio.run(asyncio.wait_for(main(), 60))
        assert found == list(range(200, 0, -1)) if ordered else sorted(found) == list(range(1, 201))

    def test_the_loop_is_not_blocked_by_a_result_that_is_missing(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True

        async def main() -> int:
            results = tc.imap(abs, [-1, -2])
            first, second = farm.start(2)
            waiting = asyncio.ensure_future(anext_of(results))
            await asyncio.sleep(0)
            farm.finish(second)  # not its turn
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            farm.finish(first)
            assert await anext_of(results, waiting) == 1
            return await anext_of(results)

        assert asyncio.run(asyncio.wait_for(main(), 60)) == 2

    def test_failures_and_the_end(self, tc: TaskClient, farm: FakeFarm) -> None:
        async def main() -> list[Any]:
            results, found = tc.imap(reciprocal, [0, 2]), []
            with pytest.raises(ZeroDivisionError):
                await anext_of(results)
            async for value in results:
                found.append(value)
            with pytest.raises(StopAsyncIteration):
                await results.__anext__()
            farm.held = True
            broken = tc.imap(reciprocal, [2])
            waiting = asyncio.ensure_future(anext_of(broken))
            await asyncio.sleep(0)
            farm.submitter.fail(errors.ConnectionError("the controller has gone"))
            with pytest.raises(ConnectionError, match="has gone"):
                await waiting
            return found

        assert asyncio.run(asyncio.wait_for(main(), 60)) == [0.5]

    def test_closing_ends_a_loop_that_waits(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True

        async def main() -> list[Any]:
            results = tc.imap(abs, [-1])
            asyncio.get_running_loop().call_soon(results.close)
            return [value async for value in results]

        assert asyncio.run(asyncio.wait_for(main(), 60)) == []


async def anext_of(results: MapResults, waiting: Any = None) -> Any:
    return await (results.__anext__() if waiting is None else waiting)
