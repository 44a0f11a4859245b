from __future__ import annotations

import asyncio
import concurrent.futures
import operator
import threading
from concurrent.futures import CancelledError
from typing import Any

import numpy
import pytest
from fake_farm import FakeFarm

from ipmpi import client, errors
from ipmpi.client import MapTask, StringTask, TaskClient, TaskFuture
from ipmpi.client.tasks.futures import cancel_all
from ipmpi.errors import DependencyError
from ipmpi.protocol import messages as m


def fail() -> None:
    raise ValueError("no good")


def leave(code: int) -> None:
    raise SystemExit(code)


class TestResults:
    def test_value_and_engine(self, tc: TaskClient) -> None:
        future = tc.submit(divmod, 17, 5)
        assert future.result(timeout=5) == (3, 2)
        assert future.done()
        assert not future.cancelled()
        assert future.engine in (0, 1)
        assert future.exception() is None
        assert repr(future) == "<TaskFuture of divmod: done>"
        again = tc.submit(list)
        assert again.result() is again.result()

    def test_keyword_arguments_and_none(self, tc: TaskClient) -> None:
        assert tc.submit(sorted, [1, 3, 2], reverse=True).result() == [3, 2, 1]
        assert tc.submit(print, end="").result() is None

    def test_exception_is_the_engines(self, tc: TaskClient) -> None:
        future = tc.submit(fail)
        error = future.exception()
        assert isinstance(error, ValueError)
        with pytest.raises(ValueError, match="no good"):
            future.result()
        assert "in fail" in error._ipython_traceback_text  # type: ignore[attr-defined]

    def test_arrays_arrive_writable_and_own_their_memory(self, tc: TaskClient, farm: FakeFarm) -> None:
        for size in (10, 2_000, 100_000):
            farm.held = True
            array = numpy.arange(float(size))
            future = tc.submit(operator.mul, array, 2.0)
            array[:] = -1  # the task was submitted with what was there
            farm.work()
            result = future.result()
            assert numpy.array_equal(result, 2.0 * numpy.arange(float(size)))
            assert result.flags.writeable

    def test_no_result_in_time(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        future = tc.submit(abs, -1)
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout=0.01)
        assert repr(future) == "<TaskFuture of abs: pending>"
        threading.Timer(0.02, farm.work).start()
        assert future.result(timeout=5) == 1

    def test_a_result_that_cannot_be_opened_here(self, tc: TaskClient) -> None:
        def make() -> Any:
            class Odd:
                def __reduce__(self) -> Any:
                    return int, ("not a number",)

            return Odd()

        with pytest.raises(ValueError, match="invalid literal"):
            tc.submit(make).result()

    def test_the_session_ends(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        future, results = tc.submit(abs, -1), tc.imap(abs, [-1])
        farm.break_link(errors.ConnectionError("the cable is cut"))
        with pytest.raises(errors.ConnectionError, match="cable"):
            future.result()
        with pytest.raises(errors.ConnectionError, match="cable"):
            next(results)
        with pytest.raises(errors.ConnectionError, match="cable"):
            tc.submit(abs, -2).result()
        assert not future.cancel()

    def test_refused(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.refusal = errors.Backpressure("too much")
        with pytest.raises(errors.Backpressure):
            tc.submit(abs, -1).result()

    def test_a_wait_that_was_too_short_tells_what_goes_on(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        with pytest.raises(
            errors.ResultNotCompleted, match=r"<TaskFuture of abs: pending> has no result after 0 s"
        ) as i:
            tc.submit(abs, -1).exception(timeout=0)
        assert isinstance(i.value, TimeoutError)

    def test_an_exit_of_a_task_is_no_exit_here(self, tc: TaskClient) -> None:
        future = tc.submit(leave, 3)
        error = future.exception()
        assert isinstance(error, errors.RemoteExit)
        assert str(error) == "the task raised SystemExit: 3"
        assert isinstance(error.value, SystemExit)
        assert error.value.code == 3
        assert "in leave" in error._ipython_traceback_text  # type: ignore[attr-defined]
        with pytest.raises(errors.RemoteExit):
            future.result()
        task = tc.run(MapTask(leave, [4]))
        with pytest.raises(errors.RemoteExit, match="SystemExit: 4"):
            tc.get_task_result(task, block=True)
        result = tc.run(StringTask("raise KeyboardInterrupt"), block=True)
        with pytest.raises(errors.RemoteExit, match="KeyboardInterrupt"):
            result.raise_exception()

    def test_a_stop_iteration_of_a_task_ends_no_iteration(self, tc: TaskClient) -> None:
        futures = [tc.submit(abs, -1), tc.submit(next, iter(())), tc.submit(abs, -2)]
        with pytest.raises(RuntimeError, match="the task raised StopIteration"):
            list(map(TaskFuture.result, futures))

        async def main() -> list[Any]:
            return await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)

        one, error, two = asyncio.run(main())
        assert (one, two) == (1, 2)
        assert isinstance(error.__cause__, StopIteration)


class TestWithTheLibrary:
    def test_as_completed_and_wait(self, tc: TaskClient) -> None:
        futures = [tc.submit(abs, -x) for x in range(20)]
        assert sorted(f.result() for f in client.as_completed(futures, timeout=5)) == list(range(20))
        done, rest = client.wait([*futures, tc.submit(fail)], timeout=5)
        assert (len(done), len(rest)) == (21, 0)

    def test_wait_for_the_first_exception(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        futures = [tc.submit(abs, -1), tc.submit(fail)]
        _, failing = farm.start(2)
        threading.Timer(0.02, lambda: farm.finish(failing)).start()
        done, rest = client.wait(futures, timeout=5, return_when=concurrent.futures.FIRST_EXCEPTION)
        assert done == {futures[1]}
        assert rest == {futures[0]}

    def test_coroutines(self, tc: TaskClient, farm: FakeFarm) -> None:
        async def all_of_them() -> list[Any]:
            wrapped = asyncio.wrap_future(tc.submit(abs, -7))
            failing = await asyncio.gather(asyncio.wrap_future(tc.submit(fail)), return_exceptions=True)
            return [await tc.submit(abs, -6), await wrapped, failing[0]]

        six, seven, error = asyncio.run(all_of_them())
        assert (six, seven) == (6, 7)
        assert isinstance(error, ValueError)

        async def waits() -> Any:
            future = tc.submit(abs, -8)
            threading.Timer(0.02, farm.work).start()
            return await asyncio.wait_for(future, 5)

        farm.held = True
        assert asyncio.run(waits()) == 8

    def test_callbacks(self, tc: TaskClient) -> None:
        seen: list[Any] = []
        future = tc.submit(abs, -3)
        future.add_done_callback(lambda f: seen.append(f.result()))
        assert seen == [3]


class TestCancel:
    def test_one_that_waits_is_never_run(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        future, other = tc.submit(abs, -3), tc.submit(abs, -4)
        assert future.cancel()
        assert future.cancelled()
        assert future.cancel()
        farm.work()
        with pytest.raises(CancelledError):
            future.result()
        assert other.result() == 4
        assert len(farm.tries) == 1
        assert client.wait([future, other], timeout=5).done == {future, other}

    def test_one_that_runs_or_has_ended_is_not_cancelled(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        future = tc.submit(abs, -3)
        (task,) = farm.start()
        assert not future.cancel()
        farm.finish(task)
        assert not future.cancel()
        assert future.result() == 3

    def test_one_that_runs_is_interrupted(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        future = tc.submit(abs, -3)
        (task,) = farm.start()
        threading.Timer(0.02, lambda: farm.undo(task, "TaskAborted", "interrupted")).start()
        assert future.cancel(running=True, grace=5)
        assert future.cancelled()
        asked = [message.how for message in farm.sent if isinstance(message, m.AbortTasks)]
        assert asked == ["interrupt"]

    def test_one_that_does_not_end_is_dropped(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        future = tc.submit(abs, -3)
        farm.start()
        assert future.cancel(running=True, grace=0.01)
        asked = [message.how for message in farm.sent if isinstance(message, m.AbortTasks)]
        assert asked == ["interrupt", "drop"]
        assert future.cancelled()
        assert future.done()

    def test_many_with_one_question(self, tc: TaskClient, farm: FakeFarm) -> None:
        done = tc.submit(abs, -1)
        farm.held = True
        futures = [tc.submit(abs, -x) for x in range(3)]
        farm.start()
        assert cancel_all([done, *futures, tc.submit(abs, futures[0])]) == 3
        assert [future.cancelled() for future in futures] == [False, True, True]

    def test_from_a_callback_nothing_is_waited_for(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        first, second = tc.submit(abs, -1), tc.submit(abs, -2)
        first.add_done_callback(lambda _: second.cancel())
        farm.finish(farm.start()[0])
        assert second.cancelled()

    @pytest.mark.parametrize("wrap", [asyncio.wrap_future, None])
    def test_asyncio_is_not_stopped_by_a_controller_that_does_not_answer(
        self, tc: TaskClient, farm: FakeFarm, wrap: Any
    ) -> None:
        farm.held = True
        farm.mute = True

        async def main() -> TaskFuture:
            if wrap is None:
                loop = asyncio.get_running_loop()
                waiting: Any = loop.run_in_executor(tc.executor(), abs, -1)
            else:
                waiting = wrap(tc.submit(abs, -1))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(waiting, 0.01)
            direct = tc.submit(abs, -2)
            assert not direct.cancel()
            assert cancel_all([direct]) == 0
            return direct

        direct = asyncio.run(asyncio.wait_for(main(), 30))
        assert len([each for each in farm.sent if isinstance(each, m.AbortTasks)]) >= 2
        farm.answer_now()
        assert direct.cancelled()
        assert not farm.waiting

    def test_by_two_threads_at_once(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        parent = tc.submit(abs, -1)
        future = tc.submit(abs, parent)
        both = threading.Barrier(2)
        told: list[Any] = []
        problems: list[BaseException] = []

        def slowly(_: Any) -> None:
            told.append(future)
            both.wait(10)  # the other thread cancels now
            both.wait(10)

        def second() -> None:
            both.wait(10)
            try:
                assert future.cancel()
                future._become_cancelled()
                future.undone(errors.DependencyError("too late"))
            except BaseException as error:
                problems.append(error)
            both.wait(10)

        thread = threading.Thread(target=second)
        thread.start()
        future.add_done_callback(slowly)
        assert future.cancel()
        thread.join(10)
        assert not problems
        assert told == [future]
        done, _ = client.wait([future], timeout=5)
        assert done == {future}


class TestDependencies:
    def test_values_of_futures_are_arguments(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        three, four = tc.submit(abs, -3), tc.submit(abs, -4)
        total = tc.submit(lambda a, b, *, c: (a, b, c), three, 1, c=four)
        grand = tc.submit(sum, total)
        assert tc.queue_status()["scheduled"] == 4
        farm.work()
        assert total.result() == (3, 1, 4)
        assert grand.result() == 8
        assert tc.submit(abs, total.result()[0]).result() == 3
        assert tc.submit(sum, total).result() == 8

    def test_a_long_chain_that_fails(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        future = first = tc.submit(fail)
        for _ in range(3000):
            future = tc.submit(abs, future)
        farm.work()
        assert isinstance(first.exception(), ValueError)
        with pytest.raises(DependencyError, match="abs, which it waits for, failed: DependencyError"):
            future.result(timeout=5)

    def test_failed_and_cancelled_parents(self, tc: TaskClient, farm: FakeFarm) -> None:
        failed = tc.submit(fail)
        for child in (tc.submit(abs, failed), tc.submit(abs, -1, after=failed), tc.submit(abs, -1, follow=failed)):
            with pytest.raises(DependencyError, match="fail, which it waits for, failed: ValueError: no good"):
                child.result()
        farm.held = True
        waiting = tc.submit(abs, -1)
        child = tc.submit(abs, waiting)
        waiting.cancel()
        with pytest.raises(DependencyError, match="abs, which it waits for, was cancelled"):
            child.result()
        assert tc.queue_status()["scheduled"] == 0

    def test_the_controller_waits_where_it_can(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        first, second = tc.submit(abs, -1), tc.submit(abs, -2)
        child = tc.submit(abs, -3, after=[first, second, first], follow=second)
        (options,) = [s.options for s in farm.sent if isinstance(s, m.SubmitTasks) and s.options.after]
        assert options.after == [first.ref, second.ref]
        assert options.follow == second.ref
        assert child.ref is not None
        assert child.ref.group > second.ref.group
        farm.work()
        assert child.result() == 3
        assert tc.submit(abs, -3, after=first).result() == 3
        last = farm.sent[-1]
        assert isinstance(last, m.SubmitTasks)
        assert last.options.after == []  # it has ended

    def test_after_one_that_waits_here_and_after_ids(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        recovered = tc.run(MapTask(fail, recovery_task=StringTask("a = 1", pull="a")))
        here = tc.submit(abs, tc.submit(abs, -1))
        child = tc.run(MapTask(abs, (-5,), after=[here, recovered]))
        assert tc.get_task_result(child) is None
        farm.work()
        assert tc.get_task_result(child, block=True) == 5
        with pytest.raises(IndexError, match="there is no task 99 to run after"):
            tc.run(StringTask("a = 1", after=99))

    def test_run_after_a_failure(self, tc: TaskClient) -> None:
        failed = tc.run(MapTask(fail))
        with pytest.raises(DependencyError, match="task 0, which it waits for, failed: ValueError: no good"):
            tc.run(MapTask(abs, (-5,), after=failed), block=True)
        result = tc.run(StringTask("a = 1", after=failed), block=True)
        assert result.failure.type is DependencyError

    def test_cancel_one_that_waits_here(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        parent = tc.submit(abs, -1)
        child = tc.submit(abs, parent)
        assert child.cancel()
        farm.work()
        assert parent.result() == 1
        assert child.cancelled()
        assert len(farm.tries) == 1

    def test_an_argument_that_cannot_be_sent_then(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        child = tc.submit(max, tc.submit(abs, -1), threading.Lock())
        farm.work()
        with pytest.raises(errors.SerializationError, match="lock"):
            child.result()


class TestGather:
    def test_in_order_and_the_first_failure(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        futures = [tc.submit(abs, -x) for x in range(5)]
        threading.Timer(0.02, farm.work).start()
        assert tc.gather(futures) == list(range(5))
        assert tc.gather([]) == []
        with pytest.raises(ValueError, match="no good"):
            tc.gather([*futures, tc.submit(fail)])

    def test_barrier_takes_futures(self, tc: TaskClient) -> None:
        tc.barrier([tc.submit(fail), tc.run(MapTask(abs, (1,)))])
        future: TaskFuture = tc.submit(abs, 1)
        tc.barrier(future)


class TestOptions:
    def test_they_reach_the_controller(self, tc: TaskClient, farm: FakeFarm) -> None:
        tc.submit(abs, -1, priority=5, timeout=2, expected=0.5, retries=3, same_node=True)
        options = [s.options for s in farm.sent if isinstance(s, m.SubmitTasks)][-1]
        assert (options.priority, options.timeout, options.expected) == (5, 2.0, 0.5)
        assert (options.retries, options.width, options.same_node, options.label) == (3, 1, True, "abs")

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"priority": 1.5}, "priority must be an int: 1.5"),
            ({"timeout": 0}, "timeout must be a number of seconds above 0, or None: 0"),
            ({"expected": "1"}, "expected time must be a number of seconds"),
            ({"ranks": 0}, "ranks must be an int, 1 or more: 0"),
            ({"retries": -1}, "retries must be an int, 0 or more: -1"),
        ],
    )
    def test_wrong_ones(self, tc: TaskClient, options: dict[str, Any], text: str) -> None:
        with pytest.raises(TypeError, match=text):
            tc.submit(abs, -1, **options)
        with pytest.raises(TypeError, match=text):
            MapTask(abs, (-1,), **options)

    def test_only_callables(self, tc: TaskClient) -> None:
        with pytest.raises(TypeError, match="a task function must be a FunctionType"):
            tc.submit(5)  # type: ignore[arg-type]
