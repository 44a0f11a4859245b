from __future__ import annotations

import operator
import threading
import time
from typing import Any

import pytest
from fake_farm import FakeFarm

from ipmpi.client.tasks.task import BaseTask, MapTask, StringTask, TaskClient, TaskResult
from ipmpi.errors import (
    ClientError,
    EngineLost,
    SerializationError,
    TaskAborted,
    TaskRejectError,
    TaskTimeout,
)
from ipmpi.protocol import messages


class FirstItem:
    """A callable that arrives as another one, and counts how often it left."""

    pickled = 0

    def __call__(self, item: str) -> str:
        return item[0]

    def __reduce__(self) -> tuple[Any, ...]:
        self.pickled += 1
        return operator.itemgetter, (0,)


class TestStringTask:
    def test_gives_a_result_with_names_values_and_times(self, tc: TaskClient) -> None:
        before = int(time.time())
        taskid = tc.run(StringTask("b = a + 1", pull=["a", "b"], push={"a": 5}))
        result = tc.get_task_result(taskid, block=True)
        assert taskid == 0
        assert isinstance(result, TaskResult)
        assert result.taskid == 0
        assert result.engineid in (0, 1)
        assert result.results == {"a": 5, "b": 6}
        assert result.keys == ["a", "b"]
        assert (result["a"], result.ns.a, result.ns["b"]) == (5, 5, 6)
        assert result.failure is None
        assert result.raise_exception() is None
        assert before <= time.mktime(time.strptime(result.submitted, "%Y/%m/%d %H:%M:%S")) <= time.time()
        assert before <= time.mktime(time.strptime(result.completed, "%Y/%m/%d %H:%M:%S")) <= time.time()
        assert 0 <= result.duration < 60
        assert repr(result) == "TaskResult[ID:0]:{'a': 5, 'b': 6}"
        assert repr(result.ns) == "NS{'a': 5, 'b': 6}"

    def test_pull_of_one_name(self, tc: TaskClient) -> None:
        assert tc.run(StringTask("w = 'Hello'", pull="w"), block=True).ns.w == "Hello"

    def test_pull_of_nothing(self, tc: TaskClient) -> None:
        assert tc.run(StringTask("w = 1"), block=True).results == {}

    def test_failure_is_kept_and_raised_on_use(self, tc: TaskClient) -> None:
        result = tc.run(StringTask("1/0", pull="a"), block=True)
        assert result.results == {}
        assert result.failure.type is ZeroDivisionError
        assert repr(result) == "TaskResult[ID:0]:<TaskFailure <class 'ZeroDivisionError'>>"
        assert "1/0" in result.failure.get_traceback()
        for use in (lambda: result.ns, lambda: result["a"], result.raise_exception, result.failure.raiseException):
            with pytest.raises(ZeroDivisionError, match="division by zero"):
                use()

    def test_result_cannot_be_changed(self, tc: TaskClient) -> None:
        result = tc.run(StringTask("a = 1", pull="a"), block=True)
        with pytest.raises(Exception, match="the ns attribute cannot be changed"):
            result.ns = 1
        with pytest.raises(AttributeError, match="cannot be changed"):
            result.ns.a = 2
        with pytest.raises(AttributeError, match="no result 'z'; it pulled: a"):
            _ = result.ns.z

    def test_clear_before_and_after(self, tc: TaskClient) -> None:
        tc = TaskClient(session=FakeFarm(engines=1))
        tc.run(StringTask("x = 1", clear_after=True), block=True)
        assert tc.run(StringTask("there = 'x' in globals()", pull="there"), block=True).ns.there is False
        tc.run(StringTask("y = 1"), block=True)
        task = StringTask("there = 'y' in globals()", pull="there", clear_before=True)
        assert tc.run(task, block=True).ns.there is False

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"expression": 5}, "a task expression must be a string"),
            ({"expression": "", "pull": 5}, "pull must be str or a sequence of strs"),
            ({"expression": "", "pull": ["a", 5]}, "pull must be str or a sequence of strs"),
            ({"expression": "", "push": []}, "push must be a dict"),
            ({"expression": "", "retries": -1}, "retries must be an int, 0 or more: -1"),
        ],
    )
    def test_wrong_types(self, arguments: dict[str, Any], text: str) -> None:
        with pytest.raises(TypeError, match=text):
            StringTask(**arguments)

    def test_attributes_set_later_are_checked_by_run(self, tc: TaskClient) -> None:
        task = StringTask("a = 1")
        task.pull = 7  # type: ignore[assignment]
        with pytest.raises(TypeError, match="pull must be str"):
            tc.run(task)


class TestMapTask:
    def test_gives_the_raw_value(self, tc: TaskClient) -> None:
        factor = 3
        task = MapTask(lambda x, y=0: factor * x + y, (4,), {"y": 1})
        assert tc.run(task, block=True) == 13

    def test_none_is_a_value(self, tc: TaskClient) -> None:
        assert tc.run(MapTask(print, ()), block=True) is None

    def test_raises_the_remote_exception_with_its_story(self, tc: TaskClient) -> None:
        taskid = tc.run(MapTask(lambda: {}["absent"]))
        for _ in range(2):
            with pytest.raises(KeyError, match="absent") as caught:
                tc.get_task_result(taskid, block=True)
        assert caught.value._ipython_engine_info["engineid"] in (0, 1)
        assert "absent" in caught.value._ipython_traceback_text

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ((5,), "a task function must be a FunctionType"),
            ((len, 5), "a task args must be a list or tuple"),
            ((len, (), 5), "a task kwargs must be a dict"),
        ],
    )
    def test_wrong_types(self, arguments: tuple[Any, ...], text: str) -> None:
        with pytest.raises(TypeError, match=text):
            MapTask(*arguments)

    def test_what_cannot_be_sent_is_refused_by_run(self, tc: TaskClient) -> None:
        with pytest.raises(SerializationError, match="lock"):
            tc.run(MapTask(len, (threading.Lock(),)))
        assert tc.queue_status() == {"scheduled": 0, "pending": 0, "succeeded": 0, "failed": 0}


class TestRetriesAndRecovery:
    def test_retries_are_the_controllers(self, tc: TaskClient, farm: FakeFarm) -> None:
        with pytest.raises(ZeroDivisionError):
            tc.run(MapTask(lambda: 1 / 0, retries=3), block=True)
        assert len(farm.tries) == 4

    def test_recovery_task_runs_under_the_same_id(self, tc: TaskClient) -> None:
        last = StringTask("a = 'saved'", pull="a")
        middle = StringTask("oops", recovery_task=last)
        taskid = tc.run(StringTask("1/0", recovery_task=middle))
        result = tc.get_task_result(taskid, block=True)
        assert (result.taskid, result.ns.a) == (taskid, "saved")
        assert tc.queue_status() == {"scheduled": 0, "pending": 0, "succeeded": 1, "failed": 0}

    def test_recovery_task_may_be_of_the_other_kind(self, tc: TaskClient) -> None:
        assert tc.run(StringTask("1/0", recovery_task=MapTask(lambda: 7)), block=True) == 7

    def test_recovery_task_is_not_run_after_success(self, tc: TaskClient, farm: FakeFarm) -> None:
        assert tc.run(MapTask(lambda: 1, recovery_task=MapTask(lambda: 2)), block=True) == 1
        assert len(farm.tries) == 1

    def test_recovery_of_a_task_whose_engine_was_lost(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        taskid = tc.run(MapTask(lambda: 1, recovery_task=MapTask(lambda: 2)))
        farm.held = False
        farm.undo(*farm.start(), "EngineLost", "engine 0 is gone")
        assert tc.get_task_result(taskid, block=True) == 2

    def test_of_many_equal_functions_one_is_sent(self, tc: TaskClient, farm: FakeFarm) -> None:
        def double(x: int) -> int:
            return 2 * x

        ids = [tc.run(MapTask(double, (x,))) for x in range(20)]
        assert [tc.get_task_result(taskid, block=True) for taskid in ids] == list(range(0, 40, 2))
        assert len([message for message in farm.sent if isinstance(message, messages.DefineFunction)]) == 1

    def test_a_task_that_every_engine_rejects(self, tc: TaskClient, farm: FakeFarm) -> None:
        def choosy() -> None:
            raise TaskRejectError("not here")

        with pytest.raises(TaskRejectError):
            tc.run(MapTask(choosy, retries=5), block=True)
        assert farm.tries == []
        recovered = tc.run(MapTask(choosy, recovery_task=MapTask(abs, (-1,))), block=True)
        assert recovered == 1

    def test_loops_are_refused(self, tc: TaskClient) -> None:
        task = MapTask(len, ("a",))
        task.recovery_task = MapTask(len, ("b",), recovery_task=task)
        with pytest.raises(ClientError, match="form a loop"):
            tc.run(task)

    def test_depend_sees_the_properties_of_engines(self, tc: TaskClient, farm: FakeFarm) -> None:
        for number, runner in enumerate(farm.runners):
            runner._namespace.properties["colour"] = ["red", "blue"][number]
        blue = [tc.run(StringTask("a = id", "a", depend=lambda p: p["colour"] == "blue")) for _ in range(5)]
        assert [tc.get_task_result(taskid, block=True).ns.a for taskid in blue] == [1] * 5
        assert tc.mapper(depend=lambda p: p["colour"] == "red").map(abs, [-1, -2]) == [1, 2]
        assert farm.tries == [1] * 5 + [0] * 2
        with pytest.raises(TaskTimeout):
            tc.run(MapTask(abs, (-1,), depend=lambda p: p["size"] > 1), block=True)
        failure = tc.run(StringTask("a = 1", depend=lambda p: False), block=True).failure
        assert failure.type is TaskTimeout
        with pytest.raises(TypeError, match="depend must be a function"):
            MapTask(len, ("a",), depend=True)  # type: ignore[arg-type]

    def test_a_lost_engine_is_a_failure_of_a_string_task(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        taskid = tc.run(StringTask("a = 1"))
        farm.undo(*farm.start(), "EngineLost", "engine 0 is gone")
        result = tc.get_task_result(taskid)
        assert result.failure.type is EngineLost
        assert result.engineid == -1


class TestWaiting:
    def test_no_result_yet_is_none(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        taskid = tc.run(MapTask(lambda: 5))
        assert tc.get_task_result(taskid) is None
        farm.work()
        assert tc.get_task_result(taskid) == 5

    def test_block_waits_for_the_end(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        taskid = tc.run(MapTask(lambda: 5))
        threading.Timer(0.02, farm.work).start()
        assert tc.get_task_result(taskid, block=True) == 5

    def test_barrier_takes_one_id_or_many_and_hides_failures(self, tc: TaskClient) -> None:
        ids = [tc.run(MapTask(lambda: 1 / 0)), tc.run(MapTask(lambda: 1))]
        tc.barrier(ids)
        tc.barrier(ids[0])
        assert tc.queue_status(verbose=True) == {"scheduled": [], "pending": [], "succeeded": [1], "failed": [0]}

    def test_unknown_ids(self, tc: TaskClient) -> None:
        for call in (tc.get_task_result, tc.barrier):
            with pytest.raises(IndexError, match="task ID not registered: 999"):
                call(999)
        with pytest.raises(IndexError, match="No task #12345"):
            tc.abort(12345)
        with pytest.raises(TypeError, match="an integer task id expected: 'a'"):
            tc.abort("a")  # type: ignore[arg-type]

    def test_only_tasks_run(self, tc: TaskClient) -> None:
        with pytest.raises(AssertionError, match="task must be a Task object!"):
            tc.run("a = 1")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="abstract"):
            BaseTask()  # type: ignore[abstract]

    def test_with_statement_closes_the_session(self, farm: FakeFarm) -> None:
        with TaskClient(session=farm) as tc:
            tc.spin()
        assert farm.closed

    def test_spin_has_conditions_evaluated_again(self, tc: TaskClient, farm: FakeFarm) -> None:
        tc.spin()
        assert isinstance(farm.sent[-1], messages.Recheck)


class TestAbort:
    def test_waiting_task_is_never_run(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        taskid = tc.run(StringTask("a = 1"))
        tc.abort(taskid)
        farm.work()
        assert farm.tries == []
        with pytest.raises(TaskAborted, match="task 0 was aborted"):
            tc.get_task_result(taskid, block=True)
        with pytest.raises(IndexError, match="Task Already Aborted"):
            tc.abort(taskid)
        assert tc.queue_status()["failed"] == 1

    def test_running_task_ends_and_its_result_is_dropped(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        taskid = tc.run(MapTask(lambda: 5))
        farm.start()
        tc.abort(taskid)
        farm.work()
        assert farm.tries == []
        with pytest.raises(TaskAborted):
            tc.get_task_result(taskid)

    def test_completed_task(self, tc: TaskClient) -> None:
        taskid = tc.run(MapTask(lambda: 5))
        with pytest.raises(IndexError, match="Task Already Completed"):
            tc.abort(taskid)
        assert tc.get_task_result(taskid) == 5

    def test_task_that_ends_while_abort_is_under_way(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        taskid = tc.run(MapTask(lambda: 5))
        (task,) = farm.start()
        answer = farm.submitter.abort

        def abort(*args: Any) -> Any:
            farm.finish(task)
            return answer(*args)

        farm.submitter.abort = abort  # type: ignore[method-assign]
        with pytest.raises(IndexError, match="Task Already Completed"):
            tc.abort(taskid)
        assert tc.get_task_result(taskid) == 5
        assert tc.queue_status()["succeeded"] == 1

    def test_recovery_task_is_not_run_after_abort(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        taskid = tc.run(MapTask(lambda: 1 / 0, recovery_task=MapTask(lambda: 1)))
        (task,) = farm.start()
        answer = farm.submitter.abort

        def abort(*args: Any) -> Any:
            farm.finish(task)
            return answer(*args)

        farm.submitter.abort = abort  # type: ignore[method-assign]
        tc.abort(taskid)
        assert not farm.waiting
        with pytest.raises(TaskAborted, match="before its recovery task"):
            tc.get_task_result(taskid)


class TestStatusAndClear:
    def test_status_tells_scheduled_from_pending(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        ids = [tc.run(MapTask(lambda: 5)) for _ in range(3)]
        farm.start()
        verbose = tc.queue_status(verbose=True)
        assert verbose == {"scheduled": ids[1:], "pending": ids[:1], "succeeded": [], "failed": []}
        assert tc.queue_status() == {"scheduled": 2, "pending": 1, "succeeded": 0, "failed": 0}

    def test_clear_counts_and_forgets(self, tc: TaskClient) -> None:
        ids = [tc.run(MapTask(lambda: 5)) for _ in range(3)]
        assert tc.clear(ids[0]) == 1
        with pytest.raises(IndexError, match="task ID not registered: 0"):
            tc.get_task_result(ids[0])
        assert tc.clear() == 2
        assert tc.clear() == 0

    def test_clear_names_the_ids_it_does_not_know(self, tc: TaskClient, farm: FakeFarm) -> None:
        tc.run(MapTask(lambda: 5))
        farm.held = True
        tc.run(MapTask(lambda: 5))
        with pytest.raises(KeyError, match="Cleared 1 results, but no tasks found for ids: 1, 999"):
            tc.clear([0, 1, 999])


class TestMap:
    def test_map_in_order(self, tc: TaskClient) -> None:
        assert tc.map(lambda x: 2 * x, range(10)) == list(range(0, 20, 2))
        assert tc.map(lambda x, y: x + y, [1, 2], (10, 20)) == [11, 22]
        assert tc.map(len, []) == []

    def test_mapper_without_block_gives_ids(self, tc: TaskClient) -> None:
        ids = tc.mapper(block=False).map(lambda x: 2 * x, range(3))
        assert ids == [0, 1, 2]
        assert [tc.get_task_result(taskid, block=True) for taskid in ids] == [0, 2, 4]

    def test_mapper_options_reach_each_task(self, tc: TaskClient, farm: FakeFarm) -> None:
        mapper = tc.mapper(retries=1, recovery_task=MapTask(lambda: "saved"))
        assert mapper.map(lambda x: 1 / x, [1, 0]) == [1.0, "saved"]
        assert len(farm.tries) == 1 + 2 + 1

    def test_parallel_decorates(self, tc: TaskClient) -> None:
        @tc.parallel()
        def double(x: int) -> int:
            """Twice."""
            return 2 * x

        assert double([1, 2]) == [2, 4]
        assert double.__name__ == "double"
        assert double.__doc__ == "Twice."

    def test_raises_what_the_first_failing_item_raised(self, tc: TaskClient) -> None:
        def check(x: int) -> int:
            if x > 1:
                raise ValueError(f"item {x}")
            return x

        with pytest.raises(ValueError, match="item 2"):
            tc.map(check, range(5))

    def test_bad_sequences(self, tc: TaskClient) -> None:
        with pytest.raises(ValueError, match="all sequences must have equal length"):
            tc.map(max, [1, 2], [1])
        with pytest.raises(TypeError, match="at least one sequence"):
            tc.map(max)
        with pytest.raises(TypeError, match="a task function must be a FunctionType"):
            tc.map(5, [1])  # type: ignore[arg-type]

    def test_function_is_pickled_once(self, tc: TaskClient) -> None:
        first = FirstItem()
        assert tc.map(first, ["ab", "cd", "ef"]) == ["a", "c", "e"]
        assert first.pickled == 1

    def test_function_with_a_large_closure_is_shared(self, tc: TaskClient) -> None:
        table = pytest.importorskip("numpy").arange(100_000)
        assert tc.map(lambda i: int(table[i]), [5, 99_999]) == [5, 99_999]
