"""Log files that do not grow for ever."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from ipmpi import limits
from ipmpi.cli.boundedlog import BoundedFile, bound_log_files


def test_a_full_file_is_kept_and_a_new_one_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_BYTES", 1000)
    path = tmp_path / "engine.log"
    with path.open("x", encoding="utf-8") as file:
        bounded = BoundedFile(file)
        for number in range(1000):
            bounded.write(f"line {number}\n")
        bounded.flush()
        texts = [each.read_text() for each in (tmp_path / "engine.log.1", path)]
        assert "".join(texts).endswith("line 998\nline 999\n")
        assert 1000 <= len(texts[0]) < 1020
        assert len(texts[1]) < 1020
        assert len(list(tmp_path.iterdir())) == 2
        bounded._file.close()


def test_the_descriptor_is_always_that_of_the_newest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stacks of processes that crash are written to it, by number."""
    monkeypatch.setattr(limits, "LOG_BYTES", 1000)
    path = tmp_path / "engine.log"
    with path.open("x", encoding="utf-8") as file:
        bounded = BoundedFile(file)
        number = bounded.fileno()
        for _ in range(3):
            bounded.write("x" * 1000 + "\n")
            os.write(number, b"Fatal Python error\n")
            assert path.read_text() == "Fatal Python error\n"
        assert not os.get_inheritable(number)


def test_log_files_are_bounded_and_terminals_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_BYTES", 1000)
    path = tmp_path / "controller.log"
    with path.open("x", encoding="utf-8") as file:
        to_file, to_terminal = logging.StreamHandler(file), logging.StreamHandler()
        terminal = to_terminal.stream
        monkeypatch.setattr(logging.getLogger(), "handlers", [to_file, to_terminal])
        bound_log_files()
        assert isinstance(to_file.stream, BoundedFile)
        assert to_terminal.stream is terminal
        for _ in range(50):
            to_file.emit(logging.makeLogRecord({"msg": "x" * 100}))
        assert path.stat().st_size < 1200
        to_file.stream._file.close()
