"""What the controller does not do for a command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.in_process import in_process


def test_commands_ask_the_farm_and_the_journal_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """They change the queues only: all else is asked when other messages come, or when its time is there."""
    asked = Counter[str]()

    def noted(name: str, usual: Callable[[float], Any], now: float) -> Any:
        asked[name] += 1
        return usual(now)

    with in_process() as cluster:
        cluster.start_engines(2)
        mec = cluster.mec()
        mec.execute("x = 1")
        journal = cluster.service.journal
        for name in ("flush", "next_deadline"):
            monkeypatch.setattr(journal, name, partial(noted, name, getattr(journal, name)))
        for number in range(20):
            mec.execute(f"print({number})", targets=number % 2)
        assert asked.total() <= 4  # something may have come by time
        mec.get_ids()
        assert asked.total() >= 2
