"""The file of a journal: what was committed is there again, or the file says what is wrong with it."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipmpi import furl
from ipmpi.errors import ControllerStartError, JournalDamaged, JournalFull, SecurityError
from ipmpi.journal import logahead
from ipmpi.journal.rows import (
    BundleRow,
    Contents,
    DropBundle,
    DropFunction,
    DropGroup,
    DropRecord,
    DropSession,
    DropSet,
    EndRow,
    FunctionRow,
    GoneRow,
    GroupRow,
    OriginRow,
    RecordRow,
    ReservedRow,
    SessionRow,
    SetRow,
    UsedRow,
)
from ipmpi.journal.store import Journal
from tests.journal.memory_store import MemoryStore
from tests.traced import bytes_kept

CUT_STEP = int(os.environ.get("IPMPI_CUT_STEP", "61"))
FLIPS = int(os.environ.get("IPMPI_BIT_FLIPS", "150"))
"""The long form cuts at every byte (1), and flips 10,000 bits."""

LOG_HEADER, FRAME = 32, 24 + 4096

pytestmark = pytest.mark.timeout(60 + 8000 // CUT_STEP + FLIPS)

GROUP = GroupRow(2**60, 1, 7, b"message", b"body")
END = EndRow(2**60, b"end", b"\0\xff")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    found = Journal(path)
    found.load()
    yield found
    found.close()


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[Callable[[], Journal | MemoryStore]]:
    """Opens the journal, the first time and again."""
    memory = MemoryStore()
    opened: list[Journal] = []

    def again() -> Journal | MemoryStore:
        if request.param == "memory":
            return memory
        for each in opened:
            each.close()
        opened.append(Journal(path))
        return opened[-1]

    yield again
    for each in opened:
        each.close()


def full() -> Contents:
    return Contents(
        [SessionRow(1, b"t" * 16, "tc"), SessionRow(2, b"u" * 16, "mec")], [SetRow(3, b"s" * 16)],
        [FunctionRow(b"k" * 16, bytes(1000))], [GROUP, GroupRow(2**60 + 1, 1, 8, b"m", b"")],
        [END, EndRow(2**60 + 1, b"x", b""), EndRow(2**60, b"later", b"z")],
        [RecordRow(5, 1, 3, "f é", b"\5\6")], [OriginRow(1, "laptop", "mé", 1, "tc", "0,3")], [GoneRow(2)],
        [BundleRow(2**60, 1, "sweep é", "tc", "laptop", "mé", 1.5e9 + 1 / 3, 0.0)],
        [ReservedRow(1, b"engines"), ReservedRow(2, b"\0")], [UsedRow(2**60, b"used"), UsedRow(2**60 + 1, b"")],
    )  # fmt: skip


def rows(contents: Contents) -> list[object]:
    return [
        *contents.sessions, *contents.sets, *contents.functions, *contents.groups, *contents.ends,
        *contents.records, *contents.origins, *contents.gone, *contents.bundles,
        *contents.reserved, *contents.used,
    ]  # fmt: skip


# --- the contract ----------------------------------------------------------------------------------------------


def test_what_was_committed_is_there_again(store: Callable[[], Journal]) -> None:
    first = store()
    assert rows(first.load()) == []
    first.commit(rows(full()))  # type: ignore[arg-type]
    assert first.ends(2**60) == [END, EndRow(2**60, b"later", b"z")]
    assert first.ends(4) == []
    second = store()
    assert second.load() == full()
    assert second.ends(2**60) == [END, EndRow(2**60, b"later", b"z")]


def test_groups_are_read_one_by_one(store: Callable[[], Journal]) -> None:
    """Their payloads need not be in memory."""
    first = store()
    first.load()
    first.commit(rows(full()))  # type: ignore[arg-type]
    assert first.group(2**60) == GROUP
    second = store()
    assert second.load(bodies=False).groups == [GROUP._replace(body=None), GroupRow(2**60 + 1, 1, 8, b"m", b"")]
    assert second.group(2**60) == GROUP
    second.commit([DropGroup(2**60)])
    with pytest.raises(JournalDamaged, match=f"group {2**60} of tasks is missing"):
        second.group(2**60)


def test_a_group_that_was_changed_meanwhile_is_not_read(journal: Journal) -> None:
    journal.commit([GROUP])
    journal._database.execute("UPDATE groups SET body = x'00'")
    with pytest.raises(JournalDamaged, match="row 1 of the table groups was changed"):
        journal.group(GROUP.serial)


def test_what_is_dropped_is_gone_with_what_belongs_to_it(store: Callable[[], Journal]) -> None:
    first = store()
    first.load()
    first.commit(rows(full()))  # type: ignore[arg-type]
    first.commit([DropGroup(2**60), DropSet(3), DropFunction(b"k" * 16), DropRecord(99)])
    first.commit([DropSession(1), DropBundle(2**60)])
    left = store().load()
    kept = full()
    assert left.sessions == kept.sessions[1:]
    assert (left.sets, left.functions, left.records, left.origins, left.bundles) == ([], [], [], [], [])
    assert left.gone == kept.gone
    assert left.groups == kept.groups[1:]
    assert left.ends == kept.ends[1:2]
    assert left.reserved == kept.reserved[1:]
    assert left.used == kept.used[1:]


def test_records_that_were_dropped_do_not_fill_the_memory(path: Path) -> None:
    """Of each client only the last ones are kept, and it may submit tasks one by one for months."""
    journal = Journal(path)
    journal.load()

    def submit(first: int, last: int) -> None:
        for start in range(first, last, 500):
            journal.commit(
                [
                    change
                    for serial in range(start, start + 500)
                    for change in (RecordRow(serial, 1, serial, "f", b"\x04"), DropRecord(serial - 10))
                ]
            )

    submit(1_000, 3_000)
    assert bytes_kept(lambda: submit(3_000, 13_000)) < 100_000
    journal.commit([DropSession(1)])
    journal.close()
    again = Journal(path)
    assert again.load().records == []
    again.close()


def test_a_row_can_come_back_in_the_transaction_that_drops_it(store: Callable[[], Journal]) -> None:
    first = store()
    first.load()
    row = FunctionRow(b"k" * 16, b"data")
    first.commit([row])
    first.commit([DropFunction(row.key), row])
    assert store().load().functions == [row]


# --- the file --------------------------------------------------------------------------------------------------


def test_only_its_owner_can_read_it(journal: Journal, path: Path) -> None:
    journal.commit([GROUP])
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == dict.fromkeys(["journal", "journal-head", "journal-wal"], 0o600)


def test_a_file_that_others_can_read_is_refused(path: Path) -> None:
    Journal(path).close()
    path.chmod(0o644)
    with pytest.raises(SecurityError, match="others may read or change"):
        Journal(path)


def test_a_link_is_refused(path: Path, tmp_path: Path) -> None:
    Journal(tmp_path / "other").close()
    path.symlink_to(tmp_path / "other")
    with pytest.raises(SecurityError, match="not a file"):
        Journal(path)


def test_a_second_controller_is_refused(journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.commit([GROUP])
    monkeypatch.setattr("ipmpi.journal.store._LOCK_WAITS", 0.1)
    with pytest.raises(ControllerStartError, match="another process has the journal"):
        Journal(path)
    journal.commit([END])


def test_controllers_that_begin_a_journal_at_once_share_one_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one makes the file at the very moment at which the first is about to."""
    monkeypatch.setattr("ipmpi.journal.store._LOCK_WAITS", 0.1)
    others: list[Journal] = []
    real = furl._open_folder

    def overtaken(folder: Path) -> int:
        if not others:
            others.append(None)  # type: ignore[arg-type]
            others[0] = Journal(path)
        return real(folder)

    monkeypatch.setattr(furl, "_open_folder", overtaken)
    with pytest.raises(ControllerStartError, match="another process has the journal"):
        Journal(path)
    other = others[0]
    other.load()
    other.commit([GROUP])
    other.close()
    again = Journal(path)
    assert again.load().groups == [GROUP]
    again.close()


def test_another_format_is_refused(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(ControllerStartError, match=r"has format 99, and this release reads \d"):
        Journal(path)


def test_a_journal_of_the_format_before_is_gone_on_with(path: Path) -> None:
    """It had no reservations and no retries."""
    first = Journal(path)
    first.load()
    first.commit([GROUP, END])
    first.close()
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE reserved")
        database.execute("DROP TABLE used")
        database.execute("PRAGMA user_version=2")
    database.close()
    again = Journal(path)
    assert again.load() == Contents(groups=[GROUP], ends=[END])
    again.commit([UsedRow(GROUP.serial, b"used")])
    again.close()
    last = Journal(path)
    assert last.load().used == [UsedRow(GROUP.serial, b"used")]
    last.close()


def test_what_is_told_anew_takes_the_place_of_what_was_told(store: Callable[[], Journal]) -> None:
    first = store()
    first.load()
    first.commit([GROUP, UsedRow(GROUP.serial, b"1"), ReservedRow(5, b"2")])
    first.commit([UsedRow(GROUP.serial, b"3"), UsedRow(GROUP.serial, b"4"), ReservedRow(5, b"5")])
    left = store().load()
    assert (left.used, left.reserved) == ([UsedRow(GROUP.serial, b"4")], [ReservedRow(5, b"5")])


# --- a full or failing disk ------------------------------------------------------------------------------------


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(journal: Journal, path: Path) -> None:
    """A limit of SQLite's own stands for the end of the disk."""
    journal.commit([GROUP])
    pages = journal._database.execute("PRAGMA page_count").fetchone()[0]
    journal._database.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(JournalFull, match="there is no room for the journal"):
        journal.commit([DropGroup(GROUP.serial), FunctionRow(b"k", bytes(100_000))])
    assert journal.ends(GROUP.serial) == []
    journal._database.execute("PRAGMA max_page_count=1000000")
    journal.commit([END, FunctionRow(b"k", bytes(100_000))])
    journal.close()
    again = Journal(path)
    assert again.load() == Contents(functions=[FunctionRow(b"k", bytes(100_000))], groups=[GROUP], ends=[END])
    again.close()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from ipmpi.errors import JournalDamaged, JournalFull
from ipmpi.journal.rows import GroupRow
from ipmpi.journal.store import Journal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]))
journal.load()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
acknowledged = 0
try:
    for number in range(200):
        journal.commit([GroupRow(number, 1, number, b"m", bytes(1000))])
        acknowledged += 1
except (JournalFull, JournalDamaged) as error:
    print(type(error).__name__, acknowledged, flush=True)
    for _ in range(3):
        try:
            journal.commit([GroupRow(1000, 1, 1000, b"m", b"")])
        except (JournalFull, JournalDamaged):
            pass
        else:
            acknowledged += 1
print("end", acknowledged)
"""


@pytest.mark.parametrize("limit", [100_000, 150_001, 212_121])
def test_a_write_that_the_kernel_refuses_acknowledges_nothing(path: Path, limit: int) -> None:
    """The kernel refuses what would make a file larger than a limit, in the middle of a page if need be."""
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(limit)], capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in run.stdout.splitlines()]
    assert lines[0][0] in ("JournalFull", "JournalDamaged")
    acknowledged = int(lines[-1][1])
    assert 0 < acknowledged < 200
    journal = Journal(path)
    assert len(journal.load().groups) == acknowledged
    journal.close()


# --- damage ----------------------------------------------------------------------------------------------------


def written(path: Path, transactions: int = 6) -> Contents:
    """Write a journal, and leave the files as a killed process does."""
    journal = Journal(path)
    journal.load()
    journal.commit(rows(full()))  # type: ignore[arg-type]
    for number in range(transactions):
        journal.commit([GroupRow(number, 1, 100 + number, b"message", bytes(50)), EndRow(number, b"end", b"r")])
    kept = [journal.path.with_name(name) for name in ("journal", "journal-wal", "journal-head")]
    copies = [(each, each.read_bytes()) for each in kept]
    journal.close()
    for each, data in copies:
        each.write_bytes(data)
        each.chmod(0o600)
    check = Journal(path)
    contents = check.load()
    check.close()
    for each, data in copies:
        each.write_bytes(data)
        each.chmod(0o600)
    return contents


def opened(path: Path) -> Contents:
    journal = Journal(path)
    try:
        return journal.load()
    finally:
        journal.close()


def copied(path: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for each in path.parent.glob("journal*"):
        if each.is_file():
            shutil.copy2(each, folder / each.name)
    return folder / "journal"


def end_of_frames(log: bytes) -> int:
    """Return where the last frame of a write-ahead log ends; zeros follow, see :mod:`ipmpi.journal.logahead`."""
    end = LOG_HEADER
    while log[end + 8 : end + 16] == log[16:24]:  # the salt
        end += FRAME
    assert not any(log[end:])
    return end


def test_cut_at_every_byte_of_its_last_transactions(path: Path, tmp_path: Path) -> None:
    contents = written(path)
    log = path.with_name("journal-wal")
    size = end_of_frames(log.read_bytes())
    assert size < log.stat().st_size
    last = 2 * FRAME  # frames of the last transaction, and of the one before
    outcomes = set()
    for length in [*range(size - last, size, CUT_STEP), size - 1, size, size + 1, size + FRAME]:
        copy = copied(path, tmp_path / "copy")
        os.truncate(copy.with_name("journal-wal"), length)
        try:
            found = opened(copy)
        except JournalDamaged as error:
            outcomes.add("said" if "transactions are missing" in str(error) else str(error))
        else:
            assert found == contents, f"cut at {length}: silently wrong"
            outcomes.add("whole")
    assert outcomes == {"said", "whole"}


def test_bits_that_were_flipped(path: Path, tmp_path: Path) -> None:
    contents = written(path)
    chance = random.Random(5)
    outcomes = {"whole": 0, "said": 0}
    files = [path, path.with_name("journal-wal"), path.with_name("journal-head")]
    for number in range(FLIPS):
        copy = copied(path, tmp_path / "copy")
        victim = copy.with_name(files[number % 3].name)
        data = bytearray(victim.read_bytes())
        size = len(data) if number % 3 != 1 or number % 10 == 1 else end_of_frames(data)  # few in the zeros
        bit = chance.randrange(8 * size)
        data[bit // 8] ^= 1 << bit % 8
        victim.write_bytes(data)
        try:
            found = opened(copy)
        except (JournalDamaged, ControllerStartError):
            outcomes["said"] += 1
        else:
            assert found == contents, f"bit {bit} of {victim.name}: silently wrong"
            outcomes["whole"] += 1
    assert outcomes["said"] > 0


def test_small_commits_do_not_make_the_log_longer(journal: Journal, path: Path) -> None:
    """That would be written by the file system, too."""
    log = path.with_name("journal-wal")
    journal.commit([GROUP])
    lengths = set()
    for _ in range(100):
        journal.commit([END])
        lengths.add(log.stat().st_size)
    assert len(lengths) == 1


def test_large_commits_are_not_written_twice(journal: Journal, path: Path) -> None:
    log = path.with_name("journal-wal")
    journal.commit([GROUP])
    before = log.stat().st_size
    journal.commit([GROUP._replace(serial=99, body=bytes(2 * logahead.STEP))])
    assert before < log.stat().st_size < end_of_frames(log.read_bytes()) + FRAME


@pytest.mark.parametrize("room", [0, 5000])
def test_a_log_that_has_no_room_to_be_longer_is_as_long_as_its_contents(
    path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves the room to others."""
    right, tried = os.pwrite, []

    def short(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) < logahead.STEP:
            return right(descriptor, data, offset)
        tried.append(offset)
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return right(descriptor, data[:room], offset)

    monkeypatch.setattr(os, "pwrite", short)
    contents = written(path)
    log = path.with_name("journal-wal").read_bytes()
    assert end_of_frames(log) == len(log)
    assert len(tried) == 1
    assert opened(path) == contents


@pytest.mark.parametrize("name", ["journal-wal", "journal-head"])
def test_a_file_that_disappeared(path: Path, tmp_path: Path, name: str) -> None:
    written(path)
    copy = copied(path, tmp_path / "copy")
    copy.with_name(name).unlink()
    with pytest.raises(JournalDamaged, match="then remove it and journal-head"):
        opened(copy)


def test_rows_that_were_exchanged(path: Path) -> None:
    written(path)
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM ends WHERE place = (SELECT max(place) FROM ends)")
    database.close()
    with pytest.raises(JournalDamaged, match="rows are there, and they are not the"):
        opened(path)


def test_a_row_that_was_changed(path: Path) -> None:
    written(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE groups SET client = 2 WHERE client = 1")
    database.close()
    with pytest.raises(JournalDamaged, match="of the table groups was changed"):
        opened(path)


def test_a_failing_disk_is_not_written_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    journal.commit([GROUP])

    class Failing:
        in_transaction = False

        def execute(self, *_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    real = journal._database
    monkeypatch.setattr(journal, "_database", Failing())
    with pytest.raises(JournalDamaged, match=r"the disk with the journal .* has failed"):
        journal.commit([END])
    monkeypatch.setattr(journal, "_database", real)
    with pytest.raises(JournalDamaged, match="has failed"):
        journal.commit([END])
    journal.close()
    assert opened(path).groups == [GROUP]
    assert opened(path).ends == []


def test_killed_at_any_moment(path: Path) -> None:
    """A real process commits as fast as it can, says so, and is killed."""
    program = """
import sys
from pathlib import Path
from ipmpi.journal.rows import GroupRow
from ipmpi.journal.store import Journal
journal = Journal(Path(sys.argv[1]))
number = len(journal.load().groups)
while True:
    journal.commit([GroupRow(number, 1, number, b"m", bytes(3000))])
    number += 1
    print(number, flush=True)
"""
    said = 0
    for turn in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(20 + 13 * turn):
                said = int(process.stdout.readline())
            process.kill()
            rest = process.stdout.read().split()
        said = int(rest[-1]) if rest else said
        assert said <= len(opened(path).groups) <= said + 1
