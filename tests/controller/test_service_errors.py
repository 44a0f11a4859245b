"""What nobody foresaw, in a controller: whom it concerns hears of it, and nobody else."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ipmpi import errors, limits
from ipmpi.client import MultiEngineClient
from ipmpi.controller.farm.farm import Farm
from ipmpi.controller.farm.sets import rounded_up
from ipmpi.controller.service import ControllerService
from ipmpi.engine.agent.agent import Agent
from ipmpi.protocol import messages as m, packed
from ipmpi.tls import Identity, context
from ipmpi.transport.dial.listen import Listener
from tests.in_process import InProcess, in_process, wait_until
from tests.security.wire import Member, register


@pytest.fixture
def cluster() -> Iterator[InProcess]:
    with in_process(2) as running:
        yield running


def fails_once(call: Callable[..., Any], when: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
    """The same, but the first call raises."""
    left = [1]

    def failing(*args: Any, **kwargs: Any) -> Any:
        if left and when(*args):
            left.clear()
            raise ZeroDivisionError("an unforeseen one")
        return call(*args, **kwargs)

    return failing


def logs(cluster: InProcess, text: str) -> bool:
    return any(text in line for line in cluster.lines)


def lost(error: errors.CompositeError) -> str:
    """Why the only engine of a call was lost."""
    ((kind, value, _),) = error.elist
    assert kind is errors.EngineLost
    return str(value)


def test_an_error_while_a_message_is_handled_ends_that_session_and_both_ends_say_why(
    cluster: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = cluster.mec(), cluster.mec()
    pending = other.execute("import time; time.sleep(0.1); a = 1", block=False)
    requests = cluster.service._requests
    requests[m.QueueStatus] = fails_once(requests[m.QueueStatus])
    with pytest.raises(errors.ConnectionError, match=r"the controller ended the session: .*an unforeseen one"):
        one.queue_status()
    with pytest.raises(errors.ConnectionError, match="an unforeseen one"):
        one.get_ids()
    assert "ZeroDivisionError: an unforeseen one" in caplog.text
    assert "Traceback" in caplog.text
    wait_until(
        lambda: logs(cluster, "is gone: an error in ipmpi while this peer was dealt with"), "a line in the log"
    )
    pending.get_result(timeout=10)
    assert len(other.queue_status()) == 2
    assert cluster.service.cluster_info()["clients"] == ["mec"]


def test_an_effect_that_cannot_be_carried_out_ends_the_session_that_it_was_for(cluster: InProcess) -> None:
    one, other = cluster.mec(), cluster.mec()
    assert one.get_ids() == other.get_ids() == [0, 1]
    key = min(cluster.service.sessions.by_key[k].key for k in cluster.service.sessions.by_key if k > 2)
    send = cluster.service._send
    cluster.service._send = fails_once(send, lambda to, *_: to == key)  # type: ignore[method-assign]
    with pytest.raises(errors.ConnectionError, match="an unforeseen one"):
        one.execute("1")
    assert other.execute("1")


@pytest.mark.parametrize("part", ["farm", "router", "deadlines"])
def test_what_is_to_be_done_is_looked_for_again(part: str, cluster: InProcess) -> None:
    name = "due" if part == "deadlines" else "flush"
    thinker = getattr(cluster.service, part)
    mec, tc = cluster.mec(), cluster.tc()
    setattr(thinker, name, fails_once(getattr(thinker, name)))
    assert mec.execute("1")
    assert tc.map(abs, [-1, -2]) == [1, 2]


def test_an_error_at_the_end_of_a_lease_does_not_keep_what_the_client_had(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a timer: nobody is there any more to be told."""
    for name in ("LEASE_AFTER_CLOSE", "LEASE_WITH_WORK", "LEASE_AFTER_SILENCE", "LEASE_LOOK"):
        monkeypatch.setattr(limits, name, 0.05)
    monkeypatch.setattr(Farm, "client_lost", lambda *_: 1 / 0)
    gone = Member(cluster.furls["mec"])
    gone.ping()
    gone.close()
    wait_until(lambda: logs(cluster, "did not come back"), "the end of the lease")
    assert cluster.is_alive
    assert cluster.mec().execute("1")


def test_an_engine_set_goes_on_after_an_error_of_the_controller(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    mec, tc = cluster.mec(), cluster.tc()
    mec.push({"a": 5})
    monkeypatch.setattr(ControllerService, "_answer", fails_once(ControllerService._answer))
    with pytest.raises(errors.CompositeError) as raised:
        mec.execute("a += 1", targets=0)
    assert "an unforeseen one" in lost(raised.value)
    wait_until(lambda: cluster.registered() == 2, "the engine's return")
    assert mec.get_ids() == [0, 1], "with its id"
    assert mec.pull("a", targets=0) in (6, [6]), "and its names"
    assert tc.map(abs, range(-50, 0)) == list(range(50, 0, -1))
    assert all(engine.is_alive for engine in cluster.engines)


def test_an_error_of_an_agent_about_a_rank_is_the_end_of_that_engine_and_says_why(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    mec = cluster.mec()
    number = mec.get_ids()[0]
    monkeypatch.setattr(Agent, "rank_answered", fails_once(Agent.rank_answered))
    with pytest.raises(errors.CompositeError) as raised:
        mec.execute("a = 1", targets=number)
    unforeseen = "an error in ipmpi while this rank was dealt with that was not foreseen"
    assert f"{unforeseen} (ZeroDivisionError: an unforeseen one)" in lost(raised.value)
    assert mec.get_ids() == [1]
    assert mec.execute("a = 1")


# --- numbers and times ------------------------------------------------------------------------------------------


def test_times_of_any_size_can_be_computed_with() -> None:
    for seconds in (None, 0, 5e-324, 0.5, 1.0, 1e9, limits.LONGEST, 1e300, sys.float_info.max):
        assert 0 <= rounded_up(seconds) < math.inf
    for exponent in range(31):
        assert 2**exponent <= rounded_up(2**exponent) <= 2**exponent * 33 / 32
        assert rounded_up(2**exponent + 0.5) >= 2**exponent + 0.5


@pytest.mark.parametrize("name", ["timeout", "expected"])
@pytest.mark.parametrize("seconds", [sys.float_info.max, math.inf, math.nan, -1.0, limits.LONGEST * 1.01])
def test_impossible_times_of_tasks_are_refused(name: str, seconds: float, cluster: InProcess) -> None:
    with Member(cluster.furls["tc"]) as client:
        options: Any = {name: seconds}
        client.say(m.SubmitTasks(1, m.TaskOptions(b"op", "f", **options), packed.pack([1]), [1]), body=[b"x"])
        refused = client.hear(m.Refused)
        assert "a century" in refused.text
        client.say(m.Goodbye("the test is over"))
    assert cluster.is_alive


def test_a_job_that_ends_next_month_is_no_trouble_for_a_controller_that_nobody_is_connected_to() -> None:
    """Its timer is the only one then, and poll() takes 24 days at most."""
    with in_process() as cluster:
        for seconds in (30 * 86_400.0, 1e300):
            engine, _ = register(cluster.furls["engine"])
            engine.say(m.JobEnds(seconds))
            engine.ping()
            engine.say(m.Goodbye("the test is over"))
            engine.close()
        wait_until(lambda: not cluster.service.sessions.by_key, "the engines' end")
        where = cluster.do(threading.current_thread)
        assert where is cluster.thread


# --- an OpenSSL with known holes --------------------------------------------------------------------------------


def test_an_unsuitable_openssl_is_found_when_a_controller_starts_and_when_a_client_connects(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    furl = str(cluster.furls["mec"])
    with monkeypatch.context() as patch:
        patch.setattr(context, "_maintained", lambda version: False)
        with pytest.raises(errors.SecurityError, match="this OpenSSL has known holes"):
            MultiEngineClient(furl)
        with pytest.raises(errors.SecurityError, match="pip install --upgrade"):
            Listener(cluster.loop, ("127.0.0.1", 0), Identity.create(time.time()), {}, lambda *_: None, print)
    assert MultiEngineClient(furl).get_ids() == [0, 1]
