"""The life of a client's session: what is wrong with a call, with the session, with the thread it is used in."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ipmpi import errors
from ipmpi.client import MultiEngineClient, StringTask, TaskClient
from ipmpi.client.pools import joblib_backend
from ipmpi.client.session.session import Session
from ipmpi.protocol import messages as m
from ipmpi.transport.dial.dialled import DialledSession
from tests.in_process import FIRST, SECOND, InProcess, first, in_process, second, wait_until
from tests.security.wire import register


@pytest.fixture(scope="module")
def cluster() -> Iterator[InProcess]:
    with in_process(2) as running:
        yield running


@pytest.fixture
def mec(cluster: InProcess) -> Iterator[MultiEngineClient]:
    with cluster.mec() as client:
        yield client


@pytest.fixture
def tc(cluster: InProcess) -> Iterator[TaskClient]:
    with cluster.tc() as client:
        yield client


def in_time(call: Callable[[], Any], seconds: float = 10) -> Any:
    """What a call gives or raises; it may not hang."""
    outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result(seconds)


# --- what cannot be sent ----------------------------------------------------------------------------------------


BAD = [
    lambda session: session.request(lambda i: m.QueueStatus(i, [2**64])),
    lambda session: session.request(lambda i: m.QueueStatus(i, [0.5])),
    lambda session: session.request(lambda i: m.QueueStatus(i, list(range(700_000)))),
    lambda session: session.request(lambda i: m.Kill(i, ["\ud800"], True)),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_cannot_be_sent_raises_where_it_is_asked_for_and_nothing_is_lost(
    number: int, mec: MultiEngineClient
) -> None:
    pending = mec.execute("import time; time.sleep(0.05); a = 5", block=False)
    with pytest.raises(errors.ClientError, match="this call was not sent"):
        BAD[number](mec._calls.session)
    pending.get_result(timeout=10)
    assert in_time(lambda: mec.pull("a")) == [5, 5]


def test_targets_of_any_size(mec: MultiEngineClient) -> None:
    for targets in (2**64, range(700_000)):
        with pytest.raises((errors.KernelError, ValueError, IndexError)):
            in_time(lambda targets=targets: mec.execute("1", targets=targets))  # type: ignore[misc]
    assert in_time(mec.get_ids) == [0, 1]


def test_options_of_tasks_of_any_size(tc: TaskClient) -> None:
    for options in ({"retries": 2**64}, {"ranks": 2**64}, {"expected": sys.float_info.max}):
        with pytest.raises((errors.KernelError, ValueError, TypeError)):
            in_time(lambda options=options: tc.submit(abs, -1, **options).result())  # type: ignore[misc]
    assert in_time(lambda: tc.submit(abs, -1).result()) == 1


# --- a thread that dies -----------------------------------------------------------------------------------------


class BrokenPoller:
    def poll(self, *_: object) -> list[Any]:
        raise OSError(9, "the poller is gone")

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_all_calls_of_a_session_whose_thread_has_died_raise_at_once_and_say_why(cluster: InProcess) -> None:
    session = cluster.session("mec")
    mec = MultiEngineClient(session=session)
    tasks = cluster.session("tc")
    tc = TaskClient(session=tasks)
    pending = mec.execute("import time; time.sleep(1)", block=False)
    future = tc.submit(time.sleep, 1)
    for each in (session, tasks):
        poller, each._loop._poller = each._loop._poller, BrokenPoller()
        each._loop._ring()
        each._thread.join(10)
        poller.close()
        assert not each._thread.is_alive()
    says = "was not foreseen .OSError: .*the poller is gone"
    calls: list[Callable[[], Any]] = [
        pending.get_result, future.result, mec.get_ids, lambda: mec.execute("1"),
        lambda: mec.execute("1", block=False).r, mec.queue_status, tc.queue_status, tc.get_ids,
        lambda: tc.submit(abs, 1).result(), lambda: tc.map(abs, [1]), lambda: list(tc.imap(abs, [1])),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(errors.InternalError, match=says):
            in_time(call)
    in_time(mec.close)


def test_a_session_that_fails_before_it_is_open_says_so(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: DialledSession) -> None:
        raise RuntimeError("no way")

    for name in ("open", "_start_dial", "_handshake", "_connected"):
        with monkeypatch.context() as patch:
            patch.setattr(DialledSession, name, lambda *_: broken(_[0]))
            with pytest.raises(errors.InternalError, match="no way"):
                in_time(Session(cluster.furls["mec"]).open)


def test_an_answer_that_cannot_be_understood_fails_its_call_and_no_other(
    cluster: InProcess, mec: MultiEngineClient
) -> None:
    engine, number = register(cluster.furls["engine"])
    with engine:
        odd = mec.execute("1", targets=number, block=False)
        other = mec.execute("1", targets=number, block=False)
        for outcome in (b"\xc1", b"\x81\xa4type\xa4what"):
            dispatch = engine.hear(m.Dispatch)
            engine.say(m.Result(dispatch.id, [0], True, outcome))
        for pending in (odd, other):
            with pytest.raises(errors.CompositeError) as info:
                pending.get_result(timeout=10)
            assert f"engine {number} cannot be decoded" in str(info.value)
        assert in_time(lambda: mec.execute("1", targets=0))
        engine.say(m.Goodbye("the test is over"))
    wait_until(lambda: cluster.registered() == 2, "the end of the odd engine")


# --- clients that nobody refers to ------------------------------------------------------------------------------


def session_threads() -> int:
    return sum(thread.name == "ipmpi-client" for thread in threading.enumerate())


@pytest.fixture
def furls(cluster: InProcess) -> tuple[str, str]:
    return str(cluster.furls["mec"]), str(cluster.furls["tc"])


def test_clients_that_are_not_closed_leave_nothing(furls: tuple[str, str], cluster: InProcess) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def clients() -> int:
        return len(cluster.service.cluster_info()["clients"])

    # Those of earlier tests: the controller keeps what a client has left that broke, for a while.
    open_files, threads, earlier = descriptors(), session_threads(), clients()
    for _ in range(20):
        mec: Any = MultiEngineClient(furls[0])
        tc: Any = TaskClient(furls[1])
        assert mec.get_ids() == [0, 1]
        assert tc.submit(abs, -3).result() == 3
    del mec, tc
    gc.collect()
    wait_until(lambda: clients() <= earlier and session_threads() <= threads, "the end of forgotten clients")
    wait_until(lambda: descriptors() <= open_files, "the end of their descriptors")


def test_what_is_under_way_ends_before_a_forgotten_client_does(furls: tuple[str, str]) -> None:
    before = session_threads()
    future = TaskClient(furls[1]).submit(lambda: (__import__("time").sleep(0.2), 7)[1])
    pending = MultiEngineClient(furls[0]).execute("import time; time.sleep(0.2); 5", block=False)
    view = MultiEngineClient(furls[0])[0]
    numbers = TaskClient(furls[1]).imap(abs, range(-2000, 0))
    gc.collect()
    assert in_time(future.result) == 7
    assert len(in_time(pending.get_result)) == 2
    assert in_time(lambda numbers=numbers: sum(numbers)) == 2_001_000
    assert view.execute("1")
    del future, pending, view, numbers
    gc.collect()
    wait_until(lambda: session_threads() == before, "the end of forgotten clients")


# --- callbacks --------------------------------------------------------------------------------------------------


FIRST_CODE = "from tests.in_process import first; first()"
SECOND_CODE = "from tests.in_process import second; second()"


@pytest.fixture
def gates() -> Iterator[None]:
    """What :func:`waits` has begun lasts until the test is over."""
    FIRST.close()
    SECOND.close()
    yield
    FIRST.open()
    SECOND.open()


def waits(mec: MultiEngineClient, tc: TaskClient) -> dict[str, Callable[[], Any]]:
    """Everything that waits for the controller, while the second gate is closed."""
    unfinished = tc.submit(second)
    pending = mec.execute(SECOND_CODE, block=False)
    taskid = tc.run(StringTask(SECOND_CODE))
    items = tc.imap(second, [1, 2])
    pool = tc.pool()
    applied, mapped = pool.apply_async(second), pool.imap(second, [1] * 3)
    executor = tc.executor()
    called = executor.submit(second)
    return {
        "result": unfinished.result, "exception": unfinished.exception, "gather": lambda: tc.gather([unfinished]),
        "wait": lambda: concurrent.futures.wait([unfinished]),
        "as_completed": lambda: list(concurrent.futures.as_completed([unfinished])),
        "wait for a command": lambda: concurrent.futures.wait([pending]),
        "barrier": lambda: tc.barrier(taskid), "get_task_result": lambda: tc.get_task_result(taskid, block=True),
        "run": lambda: tc.run(StringTask("1"), block=True), "map": lambda: tc.map(abs, [1]),
        "imap": lambda: next(items), "queue_status of tasks": tc.queue_status, "spin": tc.spin,
        "get_ids of tasks": tc.get_ids, "abort": lambda: tc.abort(taskid),
        "execute": lambda: mec.execute("1"), "get_ids": mec.get_ids, "queue_status": mec.queue_status,
        "push": lambda: mec.push({"a": 1}), "pull": lambda: mec.pull("a"), "r": lambda: pending.r,
        "get_result": pending.get_result, "result of a command": pending.result, "wait of a command": pending.wait,
        "get": applied.get, "pool.imap": lambda: next(mapped), "pool.apply": lambda: pool.apply(abs, (1,)),
        "pool.map": lambda: pool.map(abs, [1]), "executor": called.result,
        "executor.map": lambda: list(executor.map(abs, [1])), "shutdown": executor.shutdown,
    }  # fmt: skip


def call_all(calls: dict[str, Callable[[], Any]]) -> dict[str, BaseException | None]:
    """What each of them raises."""
    told: dict[str, BaseException | None] = {}
    for name, call in calls.items():
        try:
            call()
        except BaseException as error:
            told[name] = error
        else:
            told[name] = None
    return told


@pytest.mark.usefixtures("gates")
@pytest.mark.parametrize("kind", ["task", "command"])
def test_what_waits_in_a_callback_raises_at_once_and_says_how_to_go_on(
    kind: str, mec: MultiEngineClient, tc: TaskClient
) -> None:
    begun: Any = tc.submit(first) if kind == "task" else mec.execute(FIRST_CODE, block=False)
    # Else what comes later might be before it on an engine.
    wait_until(lambda: FIRST.arrived == (1 if kind == "task" else 2), "the first gate")
    calls = waits(mec, tc)
    told: concurrent.futures.Future[dict[str, BaseException | None]] = concurrent.futures.Future()
    begun.add_done_callback(lambda _: told.set_result(call_all(calls)))
    FIRST.open()
    for name, error in told.result(10).items():
        assert type(error) is errors.ClientError, (name, error)
        assert "a callback of a future cannot wait" in str(error)
        assert "add_done_callback" in str(error)
    SECOND.open()
    assert in_time(lambda: tc.submit(abs, -1).result()) == 1, "others are not harmed"
    assert in_time(mec.get_ids) == [0, 1]


def test_what_does_not_wait_can_be_called_in_a_callback(tc: TaskClient) -> None:
    values: list[Any] = []
    done = threading.Event()

    def second(future: Any) -> None:
        values.append(future.result())
        values.append(future.done())
        done.set()

    tc.submit(abs, -5).add_done_callback(
        lambda first: tc.submit(abs, -first.result() - 1).add_done_callback(second)
    )
    assert done.wait(10)
    assert values == [6, True]


def test_sys_exit_in_a_callback_ends_no_client(
    mec: MultiEngineClient, tc: TaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    for future in (tc.submit(abs, -5), mec.execute("1", block=False)):
        concurrent.futures.wait([future])
        tc.submit(time.sleep, 0).add_done_callback(lambda _: sys.exit(3))
    mec.execute("1", block=False).add_done_callback(lambda _: sys.exit(3))
    assert in_time(lambda: tc.submit(abs, -5).result()) == 5
    assert in_time(mec.get_ids) == [0, 1]
    assert "SystemExit(3)" in caplog.text


# --- forked processes -------------------------------------------------------------------------------------------


def in_fork(call: Callable[[], Any]) -> str:
    """What a call raises in a forked process; 'hangs' if it is not over in 10 s."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(10)
            try:
                said = repr(call())
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(write, said.encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said or "hangs"


@pytest.mark.usefixtures("gates")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking with threads: that is what this is about
def test_a_forked_process_is_told_to_make_a_client_of_its_own(
    mec: MultiEngineClient, tc: TaskClient, furls: tuple[str, str]
) -> None:
    calls = waits(mec, tc)
    calls["submit"] = lambda: tc.submit(abs, 1)
    calls["imap anew"] = lambda: tc.imap(abs, [1])
    calls["block=False"] = lambda: mec.execute("1", block=False)
    calls["run anew"] = lambda: tc.run(StringTask("1"))
    for name, call in calls.items():
        said = in_fork(call)
        assert said.startswith("ClientError: this client was made by a parent of this process"), (name, said)
        assert "Make a new client here" in said
    SECOND.open()
    assert in_fork(lambda: MultiEngineClient(furls[0]).get_ids()) == "[0, 1]"
    assert in_fork(lambda: TaskClient(furls[1]).submit(abs, -4).result()) == "4"
    assert in_fork(lambda: (mec.close(), tc.close())) == "(None, None)"
    assert in_time(mec.get_ids) == [0, 1], "the parent's client is as it was"
    assert in_time(lambda: tc.submit(abs, -1).result()) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_joblib_makes_a_client_of_its_own_in_a_forked_process(
    furls: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joblib_backend, "TaskCaller", lambda: TaskClient(furls[1]))
    connection = joblib_backend._Connection(None)
    client = connection.client()
    assert client.get_ids() == [0, 1]
    assert in_fork(lambda: connection.client().get_ids()) == "[0, 1]"
    assert in_fork(lambda: connection.client() is connection.client()) == "True"
    assert connection.client() is client
    given = joblib_backend._Connection(client)
    assert "Make a new client here" in in_fork(lambda: given.client().get_ids())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_callback_may_fork(tc: TaskClient, furls: tuple[str, str]) -> None:
    said: list[str] = []
    done = threading.Event()

    def callback(_: object) -> None:
        said.append(in_fork(lambda: MultiEngineClient(furls[0]).get_ids()))
        done.set()

    tc.submit(abs, -1).add_done_callback(callback)
    assert done.wait(10)
    assert said == ["[0, 1]"]


# --- the end of a program ---------------------------------------------------------------------------------------

PROGRAM = """
import sys, time
from ipmpi.client import MultiEngineClient, StringTask, TaskClient
mec, tc = MultiEngineClient(sys.argv[1]), TaskClient(sys.argv[2])
pool = tc.pool()
pool.map_async(time.sleep, [2] * 6, callback=print)
pool.apply_async(time.sleep, [2], error_callback=print)
tc.submit(time.sleep, 2).add_done_callback(lambda f: f.result())
mec.execute("import time; time.sleep(2)", block=False).add_done_callback(lambda f: f.result())
tc.imap(time.sleep, [2] * 3)
"""


def test_a_program_that_ends_with_calls_under_way_ends_silently(furls: tuple[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *furls], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
