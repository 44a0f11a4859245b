"""The life of a client's session: what is wrong with a call, with the session, with the thread it is used in."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ipmpi import errors
from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.client.session import Session
from ipmpi.protocol import messages as m
from ipmpi.transport.dialled import DialledSession
from tests.in_process import InProcess, in_process, wait_until
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
    with pytest.raises(errors.ClientError, match="cannot be sent, and was not"):
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
            with pytest.raises(errors.CompositeError, match=f"engine {number} cannot be understood"):
                pending.get_result(timeout=10)
        assert in_time(lambda: mec.execute("1", targets=0))
    wait_until(lambda: cluster.registered() == 2, "the end of the odd engine")
