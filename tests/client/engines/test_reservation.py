from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi import errors
from ipmpi.client import MultiEngineClient
from ipmpi.protocol import messages as m

if TYPE_CHECKING:
    from conftest import FakeSession


def test_engines_are_reserved_in_the_statement_and_released_after_it(
    mec: MultiEngineClient, session: FakeSession
) -> None:
    session.answers = {m.Reserve: [0, 1], m.Release: [0, 1]}
    with mec.reserve([0, 1]) as reservation:
        assert reservation.engines == [0, 1]
        assert isinstance(session.requests[-1], m.Reserve)
        assert session.requests[-1].targets == [0, 1]
    assert session.requests[-1] == m.Release(session.requests[-1].id, [0, 1])
    assert reservation.engines == []
    session.answers[m.Reserve] = [0, 1, 2, 3]
    with pytest.raises(ZeroDivisionError), mec.reserve("all"):
        raise ZeroDivisionError
    assert session.requests[-2].targets is None
    assert session.requests[-1].targets == [0, 1, 2, 3]
    with mec[0:2].reserve():
        assert session.requests[-1].targets == [0, 1]


def test_when_the_session_ends_meanwhile(
    mec: MultiEngineClient, session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.answers = {m.Reserve: [0]}

    def broken(factory: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(errors.ConnectionError("gone"))
        return future

    with mec.reserve(0):
        monkeypatch.setattr(session, "request", broken)
    with pytest.raises(errors.ConnectionError, match="gone"), mec.reserve(0):
        pass
