"""What a user reads at the prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ipmpi import errors
from ipmpi.client import TaskClient
from ipmpi.client.pools.executor import Executor
from tests.in_process import FIRST, InProcess, first, in_process, wait_until


@pytest.fixture(scope="module")
def cluster() -> Iterator[InProcess]:
    with in_process(2) as running:
        yield running


def test_a_task_client_and_an_executor_say_what_they_are(cluster: InProcess) -> None:
    tc = cluster.tc()
    assert repr(tc) == "<TaskClient engines: 0-1, open tasks: 0>"
    FIRST.close()
    task = tc.submit(first)
    assert repr(tc) == "<TaskClient engines: 0-1, open tasks: 1>"
    assert repr(Executor(client=tc, priority=2)) == f"<Executor on {tc!r}: priority=2>"
    FIRST.open()
    task.result(timeout=10)
    wait_until(lambda: "tasks: 0" in repr(tc), "its end")
    tc.close()
    assert repr(tc) == "<TaskClient (over: the client was closed. Make a new client to go on), open tasks: 0>"
    assert repr(Executor(client=tc)) == f"<Executor on {tc!r}>"


def test_a_clients_end_is_one_line_of_the_controllers_log(cluster: InProcess) -> None:
    tc = cluster.tc()
    before = len(cluster.lines)
    tc.close()
    wait_until(lambda: len(cluster.lines) > before, "a line")
    assert cluster.do(lambda: len(cluster.lines)) == before + 1
    assert cluster.lines[-1].endswith("is gone: it said goodbye: the client was closed")


@pytest.mark.parametrize(
    ("call", "kinds", "text"),
    [
        (lambda mec: mec.execute("1", targets=1.5), (TypeError, ValueError), "targets must be .*: 1.5"),
        (lambda mec: mec.execute("1", block=2), (TypeError, ValueError), "block must be True or False: 2"),
        (lambda mec: mec.scatter("q", 3), (TypeError,), "must be something with items .*: 3. push"),
        (lambda mec: mec.scatter("q", np.array(3)), (TypeError,), "must be something with items"),
    ],
)
def test_what_was_wrong_is_quoted(
    cluster: InProcess, call: Callable[[Any], object], kinds: tuple[type[Exception], ...], text: str
) -> None:
    mec = cluster.mec()
    for kind in kinds:
        with pytest.raises(kind, match=text):
            call(mec)


@pytest.mark.parametrize(
    ("options", "is_value"),
    [
        ({"retries": -1}, True), ({"retries": 2**70}, True), ({"retries": "1"}, False), ({"timeout": 0}, True),
        ({"timeout": "1"}, False), ({"expected": -1.0}, True), ({"expected": []}, False), ({"ranks": 0}, True),
    ],
)  # fmt: skip
def test_a_wrong_type_is_a_type_error_and_a_wrong_value_a_value_error(
    cluster: InProcess, options: dict[str, Any], is_value: bool
) -> None:
    tc = cluster.tc()
    with pytest.raises(ValueError if is_value else TypeError, match="must be"):
        tc.submit(abs, -1, **{name: value for name, value in options.items()})


def test_who_has_lost_the_controller_reads_how_to_start_one() -> None:
    with in_process(1) as cluster:
        tc = TaskClient(session=cluster.session("tc"))
        cluster.do(lambda: cluster.service.sessions.dismiss("the controller was stopped"))
        with pytest.raises(
            errors.ConnectionError, match=r"the controller was stopped\. .*ipcluster -n 4 starts one"
        ):
            tc.get_ids()
