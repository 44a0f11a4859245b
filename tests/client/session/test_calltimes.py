"""When a call began and ended."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from ipmpi import errors
from ipmpi.client import MultiEngineClient
from ipmpi.client.session.calls import Calls
from ipmpi.client.session.calltimes import CallTimes
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.partial import CommandFuture, Partial, SoFar
from ipmpi.client.session.results import PendingResult
from ipmpi.protocol.operations import Nothing

if TYPE_CHECKING:
    from conftest import FakeSession


def test_times_of_a_call_that_is_not_done_go_on() -> None:
    before = datetime.now(timezone.utc)
    times = CallTimes()
    assert before - timedelta(milliseconds=1) <= times.started <= datetime.now(timezone.utc)
    assert times.completed is times.wall_time is None
    first = times.elapsed
    while times.elapsed == first:
        pass
    assert times.elapsed > first >= 0


def test_times_of_a_call_that_is_done_stay() -> None:
    times = CallTimes()
    times.complete()
    length = times.wall_time
    times.complete()
    assert length is not None
    assert times.elapsed == times.wall_time == length >= 0
    assert times.completed is not None
    assert abs((times.completed - times.started).total_seconds() - length) < 1e-5


def test_a_pending_result_tells_its_times(mec: MultiEngineClient, session: FakeSession) -> None:
    session.held = True
    result = mec.execute("1", block=False)
    assert result.completed is result.wall_time is None
    assert not result.done()
    session.release()
    assert result.completed is not None
    assert result.started <= result.completed <= datetime.now(timezone.utc)
    assert result.wall_time == result.elapsed == result.elapsed
    assert not result.called  # nothing of this retrieves it


def test_a_failed_call_has_ended_too(mec: MultiEngineClient) -> None:
    result = mec.execute("1/0", block=False)
    assert result.wall_time == result.elapsed
    with pytest.raises(errors.CompositeError):
        result.get_result()


def test_progress_counts_engines_that_have_replied() -> None:
    so_far = SoFar([0, 1, 2])
    future = CommandFuture([so_far])
    result = PendingResult(None, future, list, "execute", partial=Partial(future, "execute", None))
    assert result.progress == 0
    so_far.add([EngineReply(engine, True, Nothing(), [], None) for engine in (0, 2)], [0, 1, 2])
    assert result.progress == 2
    assert result.completed is None


def test_a_wait_that_was_interrupted_leaves_the_time_of_the_call(session: FakeSession) -> None:
    """The result is made when the wait ends, and tells when the call began."""
    partial = Partial(CommandFuture([SoFar([0])]), "execute", None)
    result = PendingResult(Calls(session), CommandFuture([]), list, "execute", partial=partial)  # type: ignore[arg-type]
    assert result.started == partial.times.started
