"""What is added to log files, as it comes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipmpi.cli.growing import GrowingFiles


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.log"
    path.write_text("old\n")
    return path


def add(path: Path, data: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(data)


def test_only_what_is_new_is_given(log: Path, tmp_path: Path) -> None:
    files = GrowingFiles([log])
    assert files.read(log) == ""
    add(log, b"new\n")
    assert files.read(log) == "new\n"
    later = tmp_path / "later.log"
    later.write_text("all of it")
    assert files.read(later) == "all of it"


def test_a_file_that_vanishes_is_no_error_and_is_read_anew_when_it_comes_back(log: Path) -> None:
    files = GrowingFiles([log, log.with_name("never")])
    log.unlink()
    assert files.read(log) == ""
    assert files.read(log.with_name("never")) == ""
    other = log.with_name("other")
    other.write_text("a longer beginning")
    other.rename(log)
    assert files.read(log) == "a longer beginning"


def test_a_file_that_was_cut_off_is_read_from_its_beginning(log: Path) -> None:
    files = GrowingFiles([log])
    os.truncate(log, 0)
    add(log, b"x\n")
    assert files.read(log) == "x\n"


def test_a_character_that_is_written_in_two_pieces_is_one(log: Path) -> None:
    files = GrowingFiles([log])
    data, pieces = "Grüße €".encode(), []
    for number in range(len(data)):
        add(log, data[number : number + 1])
        piece = files.read(log)
        assert "\ufffd" not in piece
        pieces.append(piece)
    assert "".join(pieces) == "Grüße €"
