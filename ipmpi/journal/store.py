"""The file of a journal: SQLite, in write-ahead mode, with a check sum for each row.

A commit is on the disk when :meth:`Journal.commit` returns (``synchronous=FULL``), so it outlives the process and
the machine. What SQLite itself would not notice is noticed here:

* Each row has a check sum, and a row of its own holds the number of rows, the sum of their check sums, and how
  many transactions there were. So a byte that was changed, or a row that disappeared, is found on opening.
* A second file, ``PATH-head``, holds the number of the last transaction. SQLite drops the end of a write-ahead log
  from the first byte on that does not fit; a journal that is shorter than its head says has lost what was
  acknowledged. The head is written after the commit and not synced, so it is never ahead of an intact journal.

Not thread-safe. One process has a journal at a time; the lock ends with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from .. import furl
from ..errors import ControllerStartError, JournalDamaged, JournalFull
from .logahead import LogAhead
from .rows import (
    BundleRow,
    Change,
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
    Row,
    SessionRow,
    SetRow,
    Told,
    UsedRow,
)

_VERSION: Final = 3
_WITHOUT_USED: Final = 2
"""The format before tables for :class:`ReservedRow` and :class:`UsedRow` were added."""
_APPLICATION: Final = 0x69706D70
"""The application id in the file's header: "ipmp"."""
_CHECKPOINT_PAGES: Final = 4096
"""Pages of 4 KiB in the write-ahead log before they are copied to the file: a stop of some ms each 16 MiB."""
_LOG_BYTES: Final = 64 << 20
_LOCK_WAITS: Final = 2.0
_WRITE_FAILED: Final = 778
"""SQLITE_IOERR_WRITE; Python 3.10 does not tell it."""
_PROBE: Final = 64 << 10
_HEAD: Final = struct.Struct("<4sQI")
_MASK: Final = (1 << 63) - 1
_SMALL: Final = 4096
"""Bytes of a row that is copied for its check sum, which takes less time than to look at each field."""

_TABLES: Final[dict[type[Any], tuple[str, str]]] = {
    SessionRow: ("sessions", "key INTEGER, token BLOB, role TEXT"),
    SetRow: ("sets", "key INTEGER, token BLOB"),
    FunctionRow: ("functions", "key BLOB, data BLOB"),
    GroupRow: ("groups", "serial INTEGER, client INTEGER, number INTEGER, message BLOB, body BLOB"),
    EndRow: ("ends", "serial INTEGER, message BLOB, body BLOB"),
    RecordRow: ("records", "serial INTEGER, client INTEGER, number INTEGER, label TEXT, states BLOB"),
    OriginRow: ("origins", "client INTEGER, host TEXT, user TEXT, detach INTEGER, holder TEXT, engines TEXT"),
    GoneRow: ("gone", "client INTEGER"),
    BundleRow: (
        "bundles",
        "number INTEGER, client INTEGER, name TEXT, holder TEXT, host TEXT, user TEXT, submitted REAL, ended REAL",
    ),
    ReservedRow: ("reserved", "client INTEGER, engines BLOB"),
    UsedRow: ("used", "serial INTEGER, used BLOB"),
}
_INSERT: Final = {
    kind: f"INSERT INTO {table} VALUES (?, ?{', ?' * len(kind._fields)})" for kind, (table, _) in _TABLES.items()
}

_R = TypeVar(
    "_R", SessionRow, SetRow, FunctionRow, GroupRow, EndRow, RecordRow, OriginRow, GoneRow, BundleRow, ReservedRow,
    UsedRow,
)  # fmt: skip


_G = TypeVar("_G", GroupRow, EndRow)


_Places = tuple[tuple[type[Any], int, int], ...]
"""Kind, place and check sum of rows that belong together."""


class Journal:
    """The journal at ``path``, which is created if there is none.

    Args:
        path: the file; its folder is made if need be.
        uri: for tests: how SQLite shall open the file (with another VFS).

    Raises:
        SecurityError: the file, or its folder, cannot be trusted.
        FurlError: it cannot be created.
        ControllerStartError: another controller has it, or it was written by another release.
        JournalDamaged: not all that it should hold can be read.
        JournalFull: there is no room for it.
    """

    def __init__(self, path: Path, uri: str = "") -> None:
        self.path = path
        new = not path.exists()
        if new:
            furl.create_private(path)
        else:
            furl.check_private(path)
        self._database = sqlite3.connect(
            uri or path, uri=bool(uri), isolation_level=None, timeout=_LOCK_WAITS, check_same_thread=False
        )
        self._head = -1
        self._ahead = LogAhead(path.with_name(f"{path.name}-wal"))
        self._broken = ""
        self._kept: dict[tuple[str, int | bytes], _Places] = {}
        self._records_of: dict[int, dict[int, None]] = {}
        """The serials of the records of each client."""
        self._client_of: dict[int, int] = {}
        """The client of each record, by serial."""
        self._transactions = self._rows = self._sum = 0
        self._next = 1
        try:
            self._open()
            self._open_head()
        except BaseException:
            self.close()
            raise

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept, after :meth:`load`."""
        return not self._rows

    def close(self) -> None:
        """Close the files."""
        self._database.close()
        self._ahead.close()
        if self._head >= 0:
            os.close(self._head)
            self._head = -1

    # --- opening -------------------------------------------------------------------------------------------

    def _open(self) -> None:
        execute = self._database.execute
        try:
            # The lock is taken once, and needs no shared memory, which some containers do not have.
            execute("PRAGMA locking_mode=EXCLUSIVE")
            execute("PRAGMA journal_mode=WAL")
            execute("PRAGMA synchronous=FULL")
            execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
            execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
            execute("PRAGMA temp_store=MEMORY")
            execute("BEGIN EXCLUSIVE")
            tables = execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not tables:
                self._create()
            elif (found := execute("PRAGMA user_version").fetchone()[0]) == _WITHOUT_USED:
                self._create_tables(ReservedRow, UsedRow)
            elif found != _VERSION:
                raise ControllerStartError(
                    f"the journal {self.path} has format {found}, and this release reads {_VERSION}: start the "
                    "release that wrote it, or move the file away"
                )
            execute("COMMIT")
        except sqlite3.Error as error:
            raise self._explained(error, opening=True) from error

    def _create(self) -> None:
        self._database.execute(f"PRAGMA application_id={_APPLICATION}")
        self._create_tables(*_TABLES)
        self._database.execute("CREATE TABLE state (transactions INTEGER, row_count INTEGER, check_sums INTEGER)")
        self._database.execute("INSERT INTO state VALUES (0, 0, 0)")

    def _create_tables(self, *kinds: type[Any]) -> None:
        self._database.execute(f"PRAGMA user_version={_VERSION}")
        for table, columns in (_TABLES[kind] for kind in kinds):
            self._database.execute(
                f"CREATE TABLE {table} (place INTEGER PRIMARY KEY, check_sum INTEGER, {columns})"
            )

    def _open_head(self) -> None:
        path = self.path.with_name(f"{self.path.name}-head")
        if not path.exists():
            (transactions,) = self._one("SELECT transactions FROM state")
            if transactions:
                raise self._damage(f"its second file, {path.name}, is missing")
            furl.write_private(path, _head(0))
        else:
            furl.check_private(path)
        self._head = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _one(self, query: str) -> tuple[Any, ...]:
        try:
            found: tuple[Any, ...] | None = self._database.execute(query).fetchone()
        except sqlite3.Error as error:
            raise self._explained(error) from error
        if found is None:
            raise self._damage("the row with the sums is missing")
        return found

    # --- reading -------------------------------------------------------------------------------------------

    def load(self, bodies: bool = True) -> Contents:
        """Return all that is kept, after checking all of it; call it once, before the first commit.

        ``bodies``: also the payloads of tasks, which may be larger than the memory; :meth:`group` reads them.

        Raises:
            JournalDamaged: something was changed, or is missing.
        """
        self._transactions, rows, total = self._one("SELECT transactions, row_count, check_sums FROM state")
        data = os.pread(self._head, _HEAD.size + 1, 0)
        if len(data) != _HEAD.size or data != _head(last := _HEAD.unpack(data)[1]):
            raise self._damage(f"its second file, {self.path.name}-head, cannot be read")
        if last > self._transactions:
            lost = last - self._transactions
            raise self._damage(f"its last {lost} transactions are missing, of {last}")
        damage = self._one("PRAGMA integrity_check(1)")[0]
        if damage != "ok":
            raise self._damage(str(damage))
        groups = [row if bodies or not row.body else row._replace(body=None) for row in self._all(GroupRow)]
        contents = Contents(
            list(self._all(SessionRow)), list(self._all(SetRow)), list(self._all(FunctionRow)),
            groups, list(self._all(EndRow)), list(self._all(RecordRow)),
            list(self._all(OriginRow)), list(self._all(GoneRow)), list(self._all(BundleRow)),
            list(self._all(ReservedRow)), list(self._all(UsedRow)),
        )  # fmt: skip
        if (rows, total) != (self._rows, self._sum):
            raise self._damage(f"{self._rows} rows are there, and they are not the {rows} that were written")
        return contents

    def _all(self, kind: type[_R]) -> Iterator[_R]:
        table = _TABLES[kind][0]
        try:
            for place, check_sum, *fields in self._database.execute(f"SELECT * FROM {table} ORDER BY place"):
                row = kind(*fields)
                if _check_sum(place, row) != check_sum:
                    raise self._damage(f"row {place} of the table {table} was changed")
                self._keep(row, place, check_sum)
                self._next = max(self._next, place + 1)
                yield row
        except sqlite3.Error as error:
            raise self._explained(error) from error
        except (UnicodeDecodeError, OverflowError) as error:
            raise self._damage(str(error)) from error

    def ends(self, serial: int) -> list[EndRow]:
        """Return the ends of a group's tasks that were committed, in order.

        Raises:
            JournalDamaged: they cannot be read.
        """
        return list(self._read(EndRow, serial))

    def group(self, serial: int) -> GroupRow:
        """Return a group that was committed.

        Raises:
            JournalDamaged: it is not there, or cannot be read.
        """
        for row in self._read(GroupRow, serial):
            return row
        raise self._damage(f"group {serial} of tasks is missing")

    def _read(self, wanted: type[_G], serial: int) -> Iterator[_G]:
        for kind, place, check_sum in self._kept.get(("groups", serial), ()):
            if kind is wanted:
                table = _TABLES[wanted][0]
                place_, check_sum_, *fields = self._one(f"SELECT * FROM {table} WHERE place = {place}")
                row = wanted(*fields)
                if (place_, check_sum_) != (place, check_sum) or _check_sum(place, row) != check_sum:
                    raise self._damage(f"row {place} of the table {table} was changed")
                yield row

    # --- writing -------------------------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change]) -> None:
        """Make all these changes, or none: when this returns they are on the disk.

        Raises:
            JournalFull: they could not be written now; later attempts may succeed.
            JournalDamaged: the disk has failed, so nothing is written any more.
        """
        if self._broken:
            raise JournalDamaged(self._broken)
        before = self._rows, self._sum, self._next
        undo: list[Callable[[], object]] = []
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for change in changes:
                self._make(change, undo)
            self._database.execute(
                "UPDATE state SET transactions = ?, row_count = ?, check_sums = ?",
                (self._transactions + 1, self._rows, self._sum),
            )
            self._database.execute("COMMIT")
        except BaseException as error:
            for step in reversed(undo):
                step()
            self._rows, self._sum, self._next = before
            self._roll_back()
            if isinstance(error, sqlite3.Error):
                raise self._explained(error) from error
            raise
        self._transactions += 1
        self._ahead.written()
        with contextlib.suppress(OSError):  # a head that is behind is no less true
            head = _head(self._transactions)
            written = os.pwrite(self._head, head, 0)
            while written < len(head):
                written += os.pwrite(self._head, head[written:], written)

    def _roll_back(self) -> None:
        try:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._broken = f"the journal {self.path} cannot be written any more: {error}"

    def _make(self, change: Change, undo: list[Callable[[], object]]) -> None:
        if isinstance(change, DropGroup):
            self._drop(("groups", change.serial), undo)
            self._drop(("used", change.serial), undo)
        elif isinstance(change, DropRecord):
            self._drop(("records", change.serial), undo)
        elif isinstance(change, DropFunction):
            self._drop(("functions", change.key), undo)
        elif isinstance(change, DropBundle):
            self._drop(("bundles", change.number), undo)
        elif isinstance(change, DropSet):
            self._drop(("sets", change.key), undo)
        elif isinstance(change, DropSession):
            for serial in list(self._records_of.get(change.key, ())):
                self._drop(("records", serial), undo)
            self._drop(("sessions", change.key), undo)
            self._drop(("reserved", change.key), undo)
        else:
            if isinstance(change, Told):
                self._drop(_name(change), undo)
            place, self._next = self._next, self._next + 1
            check_sum = _check_sum(place, change)
            self._database.execute(_INSERT[type(change)], (place, check_sum, *change))
            self._keep(change, place, check_sum)
            undo.append(lambda: self._unkeep(change))

    def _keep(self, row: Row, place: int, check_sum: int) -> None:
        name = _name(row)
        self._kept[name] = (*self._kept.get(name, ()), (type(row), place, check_sum))
        if isinstance(row, RecordRow):
            self._keep_record(row.serial, row.client)
        self._rows += 1
        self._sum = (self._sum + check_sum * place) & _MASK

    def _unkeep(self, row: Row) -> None:
        name = _name(row)
        self._kept[name] = self._kept[name][:-1]
        if not self._kept[name]:
            del self._kept[name]
            if isinstance(row, RecordRow):
                self._unkeep_record(row.serial)

    def _keep_record(self, serial: int, client: int) -> None:
        self._records_of.setdefault(client, {})[serial] = None
        self._client_of[serial] = client

    def _unkeep_record(self, serial: int) -> int:
        """Return whose record it was."""
        client = self._client_of.pop(serial)
        theirs = self._records_of[client]
        del theirs[serial]
        if not theirs:
            del self._records_of[client]
        return client

    def _drop(self, name: tuple[str, int | bytes], undo: list[Callable[[], object]]) -> None:
        kept = self._kept.pop(name, None)
        if kept is None:
            return
        undo.append(lambda: self._kept.__setitem__(name, kept))
        if name[0] == "records" and isinstance(serial := name[1], int):
            client = self._unkeep_record(serial)
            undo.append(lambda: self._keep_record(serial, client))
        for kind, place, check_sum in kept:
            self._database.execute(f"DELETE FROM {_TABLES[kind][0]} WHERE place = ?", (place,))
            self._rows -= 1
            self._sum = (self._sum - check_sum * place) & _MASK

    # --- what went wrong -----------------------------------------------------------------------------------

    def _damage(self, what: str) -> JournalDamaged:
        return JournalDamaged(
            f"the journal {self.path} is damaged: {what}. Copy it if you want to examine it, then remove it and "
            f"{self.path.name}-head (and -wal), to start without what it held"
        )

    def _has_no_room(self) -> bool:
        """Return whether files cannot grow here: to SQLite, a quota that is used up is a disk that has failed."""
        path = self.path.with_name(f"{self.path.name}-room")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, bytes(_PROBE))
            finally:
                os.close(descriptor)
                path.unlink(missing_ok=True)
        except OSError as error:
            return error.errno in (errno.ENOSPC, errno.EDQUOT)
        return False

    def _explained(self, error: sqlite3.Error, opening: bool = False) -> Exception:
        text = str(error)
        if "full" in text:
            return JournalFull(
                f"there is no room for the journal {self.path}: the task was not accepted, submit it again when "
                "there is. What was accepted before goes on"
            )
        if "locked" in text and opening:
            return ControllerStartError(
                f"another process has the journal {self.path}: is this controller running already? Stop that one, "
                "or give --journal another file"
            )
        if "locked" in text or "readonly" in text or "unable to open" in text:
            return JournalFull(
                f"the journal {self.path} cannot be written now ({text}): the task was not accepted, submit it "
                "again later. What was accepted before goes on"
            )
        if getattr(error, "sqlite_errorcode", 0) == _WRITE_FAILED and self._has_no_room():
            return self._explained(sqlite3.OperationalError("full: over quota"))
        if "I/O" in text:
            # After a failed write or sync nobody knows what is on the disk. A second one may only seem to work.
            self._broken = (
                f"the disk with the journal {self.path} has failed ({text}): the task was not accepted. What was "
                "accepted before goes on; start the controller again when the disk works"
            )
            return JournalDamaged(self._broken)
        return self._damage(text)


def _name(row: Row) -> tuple[str, int | bytes]:
    """Return the name under which a row is dropped: ends go with their group, what is said of a client with it."""
    if isinstance(row, EndRow):
        return "groups", row.serial
    if isinstance(row, OriginRow | GoneRow):
        return "sessions", row.client
    return _TABLES[type(row)][0], row[0]


def _check_sum(place: int, row: Row) -> int:
    sizes: list[str] = []
    values: list[bytes] = []
    for value in row:
        if isinstance(value, bytes):
            sizes.append(f"bytes {len(value)}")
            values.append(value)
        elif isinstance(value, str):
            sizes.append(f"str {len(value)}")
            values.append(value.encode())
        else:
            sizes.append(f"{type(value).__name__} 0")
            values.append(b"%d" % value if isinstance(value, int) else str(value).encode())
    total = zlib.crc32(f"{type(row).__name__} {place} {sizes}".encode())
    if sum(map(len, values)) < _SMALL:
        return zlib.crc32(b"".join(values), total)
    for each in values:
        total = zlib.crc32(each, total)
    return total


def _head(transactions: int) -> bytes:
    data = struct.pack("<4sQ", b"ipmj", transactions)
    return data + struct.pack("<I", zlib.crc32(data))
