from __future__ import annotations

import functools
import inspect
from typing import Any

import msgspec
import pytest
from executor_contract import names_given
from fake_farm import FakeFarm

from ipmpi.client import StringTask, TaskClient
from ipmpi.client.tasks.calloptions import OPTIONS
from ipmpi.protocol import messages as m

SUBMITS = inspect.signature(TaskClient.submit).parameters.values()
NAMES = sorted(p.name for p in SUBMITS if p.kind is p.KEYWORD_ONLY)
SENSIBLE: dict[str, Any] = {
    "priority": 3, "timeout": 9, "expected": 2.5, "retries": 1, "ranks": 2, "same_node": True,
    "depend": lambda properties: True, "name": "sweep-12", "detach": False,
}  # fmt: skip


def options_sent(farm: FakeFarm) -> m.TaskOptions:
    return [each.options for each in farm.sent if isinstance(each, m.SubmitTasks)][-1]


def limited(x: int, timeout: float = 1, *, priority: str = "low") -> tuple[Any, ...]:
    return x, timeout, priority


class Worker:
    def work(self, timeout: float) -> float:
        return timeout


@functools.wraps(limited)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return limited(*args, **kwargs)


class TestWhoseKeywordItIs:
    def test_an_option_and_the_functions_own_of_that_name(self, tc: TaskClient, farm: FakeFarm) -> None:
        assert tc.options(timeout=5).submit(limited, 1, timeout=3).result() == (1, 3, "low")
        assert options_sent(farm).timeout == 5
        assert tc.options().submit(limited, 1, timeout=3, priority="high").result() == (1, 3, "high")
        assert (options_sent(farm).timeout, options_sent(farm).priority) == (None, 0)

    def test_all_names_reach_the_function(self, tc: TaskClient) -> None:
        names = dict.fromkeys([*NAMES, "self", "f", "args", "ordered", "progress", "block", "targets"], 7)
        assert tc.options(retries=1).submit(names_given, 0, **names).result() == ((0,), names)
        assert tc.executor(retries=1).submit(names_given, 0, **names).result() == ((0,), names)
        assert tc.pool(retries=1).apply(names_given, (0,), names) == ((0,), names)

    @pytest.mark.parametrize("f", [limited, wrapped, functools.partial(limited, 2)])
    @pytest.mark.parametrize("given", [{"timeout": 3}, {"priority": 4}])
    def test_what_may_mean_either_is_asked_about(self, tc: TaskClient, farm: FakeFarm, f: Any, given: Any) -> None:
        (name,) = given
        args = () if isinstance(f, functools.partial) else (1,)
        text = (
            rf"has a parameter '{name}' of its own.*tc\.options\({name}=\.\.\.\)\.submit.*gives it to the function"
        )
        with pytest.raises(TypeError, match=text):
            tc.submit(f, *args, **given)
        assert not farm.sent

    def test_what_can_mean_one_thing_only_is_taken(self, tc: TaskClient, farm: FakeFarm) -> None:
        assert tc.submit(limited, 1, 2, timeout=8).result() == (1, 2, "low")  # it has its timeout by position
        assert options_sent(farm).timeout == 8
        assert tc.submit(limited, 1, retries=2).result() == (1, 1, "low")
        assert tc.submit(pow, 2, 3, timeout=8).result() == 8
        with pytest.raises(TypeError, match=r"Worker\.work has a parameter 'timeout'"):
            tc.submit(Worker().work, timeout=8)
        assert tc.submit(Worker().work, 4, timeout=8).result() == 4

    def test_the_communicator_takes_a_place(self, tc: TaskClient) -> None:
        def together(comm: Any, timeout: float) -> None: ...

        with pytest.raises(TypeError, match="parameter 'timeout'"):
            tc.submit(together, ranks=2, timeout=8)


class TestTheView:
    @pytest.mark.parametrize("name", sorted(OPTIONS))
    def test_each_option_is_sent_with_each_kind_of_call(self, tc: TaskClient, farm: FakeFarm, name: str) -> None:
        farm.held = True
        value = SENSIBLE[name]
        tc.submit(names_given, **{name: value})
        expected = options_sent(farm)
        view = tc.options(**{name: value})
        view.submit(names_given)
        assert options_sent(farm) == expected
        results = view.imap(names_given, [1])
        assert options_sent(farm) == msgspec.structs.replace(expected, is_map=True)
        results.close()

    def test_the_names_are_those_of_submit(self) -> None:
        assert set(NAMES) == OPTIONS | {"after", "follow", "cache"}

    def test_it_maps(self, tc: TaskClient, farm: FakeFarm) -> None:
        view = tc.options(priority=2).options(retries=3)
        assert view.map(pow, [2, 3], [5, 2]) == [32, 9]
        assert sorted(view.imap(abs, [-1, -2], ordered=False)) == [1, 2]
        assert (options_sent(farm).priority, options_sent(farm).retries) == (2, 3)
        with pytest.raises(ValueError, match="equal length"):
            view.map(pow, [1, 2], [3])
        assert repr(view) == "<TaskView: priority=2, retries=3>"
        assert repr(tc.options()) == "<TaskView: no options>"

    def test_it_waits_for_other_tasks(self, tc: TaskClient, farm: FakeFarm) -> None:
        farm.held = True
        parent = tc.submit(abs, -1)
        child = tc.options(after=parent, follow=parent).submit(names_given, after=1, follow=2)
        assert options_sent(farm).after == [parent.ref]
        assert options_sent(farm).follow == parent.ref
        farm.work()
        assert child.result() == ((), {"after": 1, "follow": 2})
        with pytest.raises(TypeError, match="options of submit"):
            tc.options(after=parent).map(abs, [1])

    @pytest.mark.parametrize("wrong", [{"colour": 1}, {"ranks": 0}, {"initializer": print}])
    def test_wrong_options_are_refused_at_once(self, tc: TaskClient, wrong: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match=next(iter(wrong))):
            tc.options(**wrong)


def test_a_task_follows_one_task(tc: TaskClient) -> None:
    tasks = [tc.submit(abs, -1), tc.submit(abs, -2)]
    with pytest.raises(TypeError, match=r"follow names one task, a future or an id, .* not \["):
        tc.submit(abs, -3, follow=tasks)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="follow names one task"):
        tc.run(StringTask("1", follow=[0, 1]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="follow names one task"):
        tc.options(follow=(tasks[0],)).submit(abs, -3)
