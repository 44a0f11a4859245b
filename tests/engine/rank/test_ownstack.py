"""A rank lets its agent read its memory where the system asks for that, and answers a signal with its stack."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ipmpi.engine.rank.ownstack import SIGNAL, StackSignal, allow_tracing_by

_PR_SET_PTRACER = 0x59616D61


class Library:
    """The C library, with a prctl that remembers what it was asked for."""

    asked: list[tuple[int, ...]]

    def __init__(self, answer: int = 0) -> None:
        self.asked = []
        self._answer = answer

    def prctl(self, *arguments: int) -> int:
        self.asked.append(arguments)
        return self._answer


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    return library


def scope(folder: Path, value: str) -> Path:
    path = folder / "ptrace_scope"
    path.write_text(value)
    return path


def test_the_agent_and_its_children_may_read_where_only_descendants_may(tmp_path: Path, library: Library) -> None:
    assert allow_tracing_by(4711, scope(tmp_path, "1\n"))
    assert library.asked == [(_PR_SET_PTRACER, 4711, 0, 0, 0)]


@pytest.mark.parametrize("value", ["0\n", "2\n", "3\n", ""])
def test_nothing_is_done_where_it_is_not_needed_or_would_not_help(
    tmp_path: Path, library: Library, value: str
) -> None:
    assert not allow_tracing_by(4711, scope(tmp_path, value))
    assert not allow_tracing_by(4711, tmp_path / "a system without Yama")
    assert not allow_tracing_by(0, scope(tmp_path, "1\n"))
    assert library.asked == []


def test_a_refusal_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library(-1))
    assert not allow_tracing_by(4711, scope(tmp_path, "1\n"))


def test_the_signal_is_answered_by_the_stack_of_the_main_thread_and_a_full_pipe_blocks_nobody() -> None:
    asked: Any = StackSignal()
    read = os.dup(asked.read_end)
    asked.handed_over()
    try:
        assert asked.number == SIGNAL
        signal.raise_signal(SIGNAL)
        told = os.read(read, 65536).decode()
        assert told.startswith("Stack (most recent call first):\n")
        assert "in test_the_signal_is_answered" in told.splitlines()[1]
        for _ in range(100):  # more than a pipe holds
            signal.raise_signal(SIGNAL)
        assert len(os.read(read, 1 << 20)) <= 65536
    finally:
        asked.close()
        os.close(read)
