from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from ipmpi.client.engines.views import EngineView
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.failures import raise_failures
from ipmpi.client.session.ownframes import all_raise_at_call, raises_at_call
from ipmpi.client.session.results import PendingResult
from ipmpi.errors import CompositeError
from ipmpi.protocol.operations import Failed

LEFT = 0 if sys.version_info >= (3, 11) else 1
"""Frames of ipmpi that stay."""


def replies(ranks: int = 64) -> list[EngineReply]:
    failed = Failed(
        "ZeroDivisionError", "x", 'Traceback (most recent call last):\n  File "<ipmpi 1>", line 1, in f\nE: x\n'
    )
    return [EngineReply(rank, False, failed, []) for rank in range(ranks)]


def frames_of(call: Callable[[], object]) -> list[str]:
    with pytest.raises(CompositeError) as info:
        call()
    found = [frame.name for frame in traceback.extract_tb(info.value.__traceback__)]
    assert found[0] == "frames_of"
    return found[1:]


def test_the_traceback_of_a_failed_call_ends_in_the_users_line() -> None:
    def by_the_user() -> None:
        raises_at_call(raise_failures)(replies(), "execute")

    assert len(frames_of(by_the_user)) == 1 + LEFT


def test_so_does_that_of_a_result_however_often_it_is_asked_for() -> None:
    future: Future[Any] = Future()
    pending: PendingResult[Any] = PendingResult(
        None, future, functools.partial(raise_failures, method="execute"), "execute"
    )
    future.set_result(replies())
    for _ in range(3):
        assert len(frames_of(pending.get_result)) == LEFT
        assert len(frames_of(pending.result)) == LEFT
        assert len(frames_of(lambda: pending.r)) == 1 + LEFT


def test_frames_of_user_code_in_between_stay() -> None:
    def callback() -> None:
        raise_failures(replies(), "execute")

    assert "callback" in frames_of(raises_at_call(callback))


def test_other_exceptions_keep_their_frames() -> None:
    @all_raise_at_call
    class Some:
        def method(self) -> None:
            raise KeyError("x")

        def __getitem__(self, key: str) -> None:
            raise_failures(replies(), key)

        def _private(self) -> None: ...

    with pytest.raises(KeyError) as info:
        Some().method()
    assert traceback.extract_tb(info.value.__traceback__)[-1].name == "method"
    assert Some.method.__wrapped__  # type: ignore[attr-defined]
    assert Some.__getitem__.__wrapped__  # type: ignore[attr-defined]
    assert not hasattr(Some._private, "__wrapped__")


def test_all_calls_of_clients_and_views_do_it() -> None:
    for name in (
        "execute",
        "run",
        "apply",
        "push",
        "pull",
        "map",
        "scatter",
        "gather",
        "__getitem__",
        "reset",
        "kill",
    ):
        assert hasattr(getattr(EngineView, name), "__wrapped__"), name
