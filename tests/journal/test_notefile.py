"""A file of notes: what was written is there for the next process, up to the first that is damaged."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ipmpi.errors import SecurityError
from ipmpi.journal.files import files, history
from ipmpi.journal.notefile import NoteFile

NOTES = [b"first", b"", bytes(range(256)) * 40, b"last"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def written(path: Path, *more: bytes) -> NoteFile:
    file = NoteFile(path)
    file.replace(NOTES[:1])
    file.append(NOTES[1:])
    if more:
        file.append(more)
    file.close()
    return file


def read(path: Path) -> list[bytes]:
    return list(NoteFile(path).read())


def test_what_was_written_is_read_in_its_order(path: Path) -> None:
    assert read(path) == []
    file = written(path)
    assert read(path) == NOTES
    assert file.size == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_notes_outlive_a_process_that_is_killed(path: Path) -> None:
    source = (
        "import os, pathlib, sys\nfrom ipmpi.journal.notefile import NoteFile\n"
        "file = NoteFile(pathlib.Path(sys.argv[1]))\n"
        "file.replace([b'one'])\nfile.append([b'two'])\nos.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", source, str(path)], check=False).returncode == -9
    assert read(path) == [b"one", b"two"]


def test_wherever_it_is_cut_what_is_before_is_read(path: Path) -> None:
    written(path)
    whole = path.read_bytes()
    for length in [*range(60), *range(len(whole) - 60, len(whole))]:
        path.write_bytes(whole[:length])
        found = read(path)
        assert found == NOTES[: len(found)]
        assert len(found) < len(NOTES)


def test_a_bit_that_was_changed_is_noticed(path: Path) -> None:
    written(path)
    whole = path.read_bytes()
    chance = random.Random(1)
    for _ in range(300):
        bit = chance.randrange(8 * len(whole))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        found = read(path)
        assert found == NOTES[: len(found)]
        assert len(found) < len(NOTES)


def test_another_format_is_not_read(path: Path) -> None:
    written(path)
    path.write_bytes(path.read_bytes().replace(b"ipmpi notes 1", b"ipmpi notes 2"))
    assert read(path) == []


def test_all_are_replaced_in_one_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(path)
    calls: list[int] = []
    real = os.write

    def fails(descriptor: int, data: Any) -> int:
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fails)
        file = NoteFile(path)
        with pytest.raises(OSError, match="No space"):
            file.replace([b"new", b"more"])
    assert read(path) == NOTES, "those that were there"
    assert [each.name for each in path.parent.iterdir()] == ["notes"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.append([b"x"])
    file.replace([b"new"])
    assert read(path) == [b"new"]


def test_a_file_that_others_could_have_written_is_refused(path: Path) -> None:
    written(path)
    path.chmod(0o666)
    with pytest.raises(SecurityError, match="notes"):
        read(path)


def test_nobody_elses_file_is_written(path: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"")
    path.with_name("notes-new").symlink_to(theirs)
    written(path)
    assert theirs.read_bytes() == b""
    assert read(path) == NOTES


def test_it_is_one_of_the_files_of_a_journal(path: Path) -> None:
    assert history(path) in files(path)
    assert history(path).with_name("notes-history-new") in files(path)
