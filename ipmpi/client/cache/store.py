"""The file of results, ``results.sqlite`` in a folder of the user.

Several processes may use a file at once. Each entry has a check sum over its key and its data: one that was
damaged is removed, and is not there any more. If SQLite itself cannot read the file, it is removed as a whole.

Entries are pickles, which run code when they are opened. So the folder has to belong to the user and nobody else
may write to it, and nobody else may read the file.

Thread-safe; a process that was forked needs a store of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sqlite3
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ... import furl
from ...environment.filesystems import mounts, network_type
from ...errors import SecurityError
from ...locks import locked
from ...protocol.frames import Buffer

FILE: Final = "results.sqlite"
OVERHEAD: Final = 128
"""Bytes that an entry takes besides its data."""
_VERSION: Final = 1
_APPLICATION: Final = 0x69706D72
"""The application id in the file's header: "ipmr"."""
_LOCK_WAITS: Final = 10.0
_AT_ONCE: Final = 500
"""Keys in one question."""
_TOUCHED: Final = 60
"""Seconds in which an entry that is used again is not marked again, so that reading rarely writes."""
_KEPT: Final = 0.9
"""The part of the bound that is left when entries had to leave: they leave rarely, and many at a time."""
_MOST: Final = 900_000_000
"""Bytes of an entry: SQLite takes up to 10**9."""

Payload = bytes | list[Buffer]

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, used INTEGER, size INTEGER, sum BLOB, data BLOB)",
    "CREATE INDEX IF NOT EXISTS by_use ON entries (used, size)",
    "CREATE TABLE IF NOT EXISTS total (one INTEGER PRIMARY KEY, bytes INTEGER, entries INTEGER)",
    "INSERT OR IGNORE INTO total VALUES (1, 0, 0)",
    "CREATE TRIGGER IF NOT EXISTS came AFTER INSERT ON entries BEGIN "
    "UPDATE total SET bytes = bytes + new.size, entries = entries + 1; END",
    "CREATE TRIGGER IF NOT EXISTS went AFTER DELETE ON entries BEGIN "
    "UPDATE total SET bytes = bytes - old.size, entries = entries - 1; END",
)


class Found(NamedTuple):
    """What a store has of some keys; ``damaged``: how many entries were removed because they were damaged."""

    payloads: dict[bytes, Payload]
    damaged: int


class Store:
    """The results in ``folder``, which is made if need be.

    All methods raise ``sqlite3.Error`` or OSError if the file cannot be used.

    Args:
        folder: where the file is.
        most: the bytes that its entries may have; those that were not used for the longest time leave.
        clock: the time in seconds.

    Attributes:
        lost: why the file was removed and made anew; "" if it was not.

    Raises:
        SecurityError: others could read or exchange the file.
        FurlError: it is no file, or cannot be created.
    """

    def __init__(self, folder: Path, most: int, clock: Callable[[], float] = time.time) -> None:
        self.path = folder / FILE
        self.most = most
        self.lost = ""
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with self._lock:
            self._open()

    # --- entries ---------------------------------------------------------------------------------------------

    def find(self, keys: Sequence[bytes]) -> Found:
        """Return the payloads of those of the keys that are there, and mark them as used."""
        found: dict[bytes, Payload] = {}
        damaged: list[bytes] = []
        touched: list[bytes] = []
        now = int(self._clock())
        with self._using() as connection:
            for some in _portions(keys):
                marks = ",".join("?" * len(some))
                rows = connection.execute(f"SELECT key, used, sum, data FROM entries WHERE key IN ({marks})", some)
                for key, used, check, data in rows:
                    payload = _unpacked(key, check, data)
                    if payload is None:
                        damaged.append(key)
                        continue
                    found[key] = payload
                    if not now - _TOUCHED < used <= now:
                        touched.append(key)
            if damaged or touched:
                self._mark(connection, now, touched, damaged)
        return Found(found, len(damaged))

    def _mark(
        self, connection: sqlite3.Connection, now: int, touched: Sequence[bytes], damaged: Sequence[bytes]
    ) -> None:
        # Whoever reads need not wait long for others who write: what is not marked leaves a little early.
        with contextlib.suppress(sqlite3.OperationalError), _transaction(connection):
            connection.executemany("UPDATE entries SET used = ? WHERE key = ?", [(now, key) for key in touched])
            connection.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in damaged])

    def add(self, entries: Iterable[tuple[bytes, Payload]]) -> int:
        """Keep results; those that are there already stay as they are.

        Returns:
            How many are too large to be kept.
        """
        now = int(self._clock())
        rows, too_large = [], 0
        most = min(_MOST, self.most // 2)
        for key, payload in entries:
            data = _packed(payload)
            if len(data) > most:
                too_large += 1
            else:
                rows.append((key, now, len(data) + OVERHEAD, _check_sum(key, data), data))
        with self._using() as connection, _transaction(connection):
            connection.executemany("INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?)", rows)
            self._shrink(connection)
        return too_large

    def _shrink(self, connection: sqlite3.Connection) -> None:
        (size,) = connection.execute("SELECT bytes FROM total").fetchone()
        if size <= self.most:
            return
        excess = size - int(_KEPT * self.most)
        leave = []
        for row, freed in connection.execute("SELECT rowid, size FROM entries ORDER BY used, rowid"):
            leave.append((row,))
            excess -= freed
            if excess <= 0:
                break
        connection.executemany("DELETE FROM entries WHERE rowid = ?", leave)
        if excess > 0:  # the sum was wrong
            connection.execute("UPDATE total SET bytes = (SELECT coalesce(sum(size), 0) FROM entries)")

    def remove(self, keys: Sequence[bytes]) -> None:
        """Forget these results."""
        with self._using() as connection, _transaction(connection):
            connection.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])

    def clear(self) -> int:
        """Forget all results; return how many there were."""
        with self._using() as connection:
            with _transaction(connection):
                (number,) = connection.execute("SELECT entries FROM total").fetchone()
                connection.execute("DELETE FROM entries")
            connection.execute("VACUUM")
        return int(number)

    def size(self) -> tuple[int, int]:
        """Return how many results there are, and their bytes."""
        with self._using() as connection:
            size, number = connection.execute("SELECT bytes, entries FROM total").fetchone()
        return int(number), int(size)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._close()

    # --- the file --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time. A file that cannot be read is made anew, for the next use."""
        with self._lock:
            if self._connection is None:
                self._open()
            assert self._connection is not None
            try:
                yield self._connection
            except _FAILURES as error:
                if not _is_damage(error):
                    raise
                with locked(self.path.parent):
                    self._start_anew(error)
                raise sqlite3.DatabaseError(str(error)) from error

    def _open(self) -> None:
        folder = self.path.parent
        _check_folder(folder)
        with locked(folder):  # another client may be about to make the file, or to make it anew
            furl.create_private(self.path)  # never in the place of one that another client may have opened
            furl.check_private(self.path)
            try:
                self._connect(folder)
            except _FAILURES as error:
                if not _is_damage(error):
                    self._close()
                    raise
                self._start_anew(error)
                furl.create_private(self.path)
                self._connect(folder)

    def _connect(self, folder: Path) -> None:
        connection = sqlite3.connect(
            self.path, isolation_level=None, timeout=_LOCK_WAITS, check_same_thread=False, cached_statements=32
        )
        self._connection = connection
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application and (application, version) != (_APPLICATION, _VERSION):
            raise _OtherFile("it was written by another release or program")
        # A write-ahead log needs memory that processes share, which those of two machines do not.
        connection.execute(f"PRAGMA journal_mode={'DELETE' if network_type(folder, mounts()) else 'WAL'}")
        connection.execute("PRAGMA synchronous=NORMAL")  # what a power failure takes is computed again
        if not application:
            with _transaction(connection):
                for statement in _TABLES:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={_APPLICATION}")
                connection.execute(f"PRAGMA user_version={_VERSION}")
        connection.execute("SELECT bytes, entries FROM total").fetchone()

    def _start_anew(self, error: Exception) -> None:
        """Remove the file, its log first: a new file must never get the log of an old one."""
        self._close()
        self.lost = str(error)
        for suffix in ("-wal", "-shm", "-journal", ""):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.path}{suffix}")

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


class _OtherFile(sqlite3.DatabaseError):
    """The file is not one of this release."""


_FAILURES: Final = (sqlite3.Error, ValueError, TypeError)
"""What comes of a file that was damaged: its texts may be none, and values may be missing."""

_PASSES: Final = (
    "locked",
    "locking protocol",
    "is full",
    "disk i/o error",
    "readonly",
    "unable to open",
    "memory",
)


def _is_damage(error: Exception) -> bool:
    """Whether the file will never be readable; a full disk or a lock of another process passes."""
    text = str(error).lower()
    return not (isinstance(error, sqlite3.OperationalError) and any(words in text for words in _PASSES))


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _check_folder(folder: Path) -> None:
    """Make a folder that only its user can enter; raise SecurityError if others could exchange files in it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = os.stat(folder, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        raise SecurityError(f"{folder}, the folder of cached results, is not a folder: give the path of one")
    if status.st_uid != os.geteuid():
        raise SecurityError(
            f"{folder}, the folder of cached results, belongs to user {status.st_uid}, you are user "
            f"{os.geteuid()}: what lies there could run code as you. Give cache_folder= a folder of your own"
        )
    if status.st_mode & 0o022:
        raise SecurityError(
            f"others can write to {folder}, the folder of cached results, and what lies there could run code as "
            f"you: run `chmod go-w {folder}`, or give cache_folder= another folder"
        )


def _portions(keys: Sequence[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(keys)
    while some := list(itertools.islice(remaining, _AT_ONCE)):
        yield some


# --- payloads as bytes -----------------------------------------------------------------------------------------

_WHOLE: Final = b"\0"


def _packed(payload: Payload) -> bytes:
    if isinstance(payload, bytes):
        return _WHOLE + payload
    sizes = [memoryview(segment).nbytes for segment in payload]
    return b"".join([b"\1", struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes), *payload])


def _unpacked(key: bytes, check: object, data: object) -> Payload | None:
    """Return the payload; None if anything of it is damaged."""
    if not isinstance(data, bytes) or not isinstance(key, bytes) or check != _check_sum(key, data):
        return None
    if data[:1] == _WHOLE:
        return data[1:]
    (number,) = struct.unpack_from("<I", data, 1)
    sizes = struct.unpack_from(f"<{number}Q", data, 5)
    start = 5 + 8 * number
    segments: list[Buffer] = []
    for size in sizes:
        segments.append(data[start : start + size])
        start += size
    return segments


def _check_sum(key: bytes, data: bytes) -> bytes:
    whole = hashlib.blake2b(key, digest_size=16)
    whole.update(data)
    return whole.digest()
