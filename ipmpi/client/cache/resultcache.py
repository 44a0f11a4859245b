"""The results that a client keeps and finds again: the store, a thread that writes to it, and notices.

The cache never makes a call fail: what cannot be read is computed, what cannot be written is not kept, and a
notice says so.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ...errors import ClientError, FurlError, KernelError
from ...quantities import sized
from ..session.notices import say
from ..session.waiting import T
from .store import Payload, Store

Entries = Iterable[tuple[bytes, Payload]]

BYTES: Final = 2 << 30
"""What the entries of a folder may have, unless the user says otherwise."""

_WAITING: Final = 256 << 20
"""Bytes that wait to be written. If the disk is slower than the engines, further results are not kept."""

_lock = threading.Lock()
_unwritten: dict[Path, dict[bytes, Payload]] = {}
"""By folder: single results that are not in its file yet, which all clients of this process find."""

_TROUBLE: Final = (sqlite3.Error, OSError, KernelError)


class CacheInfo(NamedTuple):
    """What a client's cache has, and what was found in it.

    Attributes:
        hits: results of this client that were found.
        misses: calls of this client whose results were not there.
        entries: results in the folder, of all programs.
        size: their bytes.
        most: the bytes that they may have.
        folder: where they are.
    """

    hits: int
    misses: int
    entries: int
    size: int
    most: int
    folder: Path


class ResultCache:
    """The results in a folder. All methods may be called from any thread; :meth:`keep` never waits for the disk.

    Args:
        folder: where they are.
        most: the bytes that all of them may have.

    Raises:
        SecurityError: others could read or exchange the results.
        ClientError: the folder cannot be used.
    """

    def __init__(self, folder: Path, most: int = BYTES) -> None:
        try:
            self._store = Store(folder, most)
        except (OSError, sqlite3.Error, FurlError) as error:
            raise ClientError(
                f"the folder of cached results, {folder}, cannot be used ({error}): give the client another one "
                "by cache_folder=, or leave cache=True out"
            ) from error
        self._folder = folder
        self._hits = self._misses = 0
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Callable[[], Entries]]] = deque()
        with _lock:
            self._unwritten = _unwritten.setdefault(folder, {})
        self._size = 0
        self._is_writing = False
        self._tell_lost()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Payload]:
        """Return the payloads of those of the keys that are there."""
        unwritten = self._unwritten
        early = {key: payload for key in keys if (payload := unwritten.get(key)) is not None} if unwritten else {}
        try:
            found = self._store.find([key for key in keys if key not in early] if early else keys)
        except _TROUBLE as error:
            self._tell_lost()
            say(f"the cache in {self._folder} cannot be read ({error}): calls are made anew")
            return early
        if found.damaged:
            say(
                f"{found.damaged} results in the cache in {self._folder} were damaged, and are computed again: "
                "look at the disk if this repeats itself"
            )
        return {**found.payloads, **early}

    def count(self, hits: int, misses: int) -> None:
        """Count calls whose results were found, or not."""
        with self._changed:
            self._hits += hits
            self._misses += misses

    def keep_one(self, key: bytes, payload: Payload, is_kept: Callable[[Payload], bool]) -> None:
        """Write a result, soon, unless ``is_kept`` says in the thread that writes that it is not kept after all.

        Clients of this process find it at once.
        """

        def entries() -> Entries:
            if is_kept(payload):
                yield key, payload
            else:
                self._unwritten.pop(key, None)

        size = len(payload) if isinstance(payload, bytes) else sum(memoryview(each).nbytes for each in payload)
        self._unwritten[key] = payload
        if not self.keep(size, entries):
            self._unwritten.pop(key, None)

    def keep(self, size: int, entries: Callable[[], Entries]) -> bool:
        """Write results, soon and in another thread.

        Args:
            size: their bytes.
            entries: returns them; called in that thread.

        Returns:
            Whether they will be written; False if the disk is too slow.
        """
        with self._changed:
            if self._size + size > _WAITING and self._size:
                too_slow = True
            else:
                too_slow = False
                self._waiting.append((size, entries))
                self._size += size
                starts, self._is_writing = not self._is_writing, True
        if too_slow:
            say(f"the cache in {self._folder} is slower than the engines: some results are not kept")
        elif starts:
            # Not a daemon: at its end, the program waits until everything is written.
            try:
                threading.Thread(target=self._write, name="ipmpi-cache", daemon=False).start()
            except RuntimeError:  # the program is at its end, and starts no more threads
                self._write()
        return not too_slow

    def _write(self) -> None:
        while True:
            with self._changed:
                some = list(self._waiting)
                self._waiting.clear()
                if not some:
                    self._is_writing = False
                    self._changed.notify_all()
                    return
            written = [entry for _, entries in some for entry in entries()]
            self._write_some(written)
            for key, _ in written:
                self._unwritten.pop(key, None)
            with self._changed:
                self._size -= sum(size for size, _ in some)

    def _write_some(self, entries: Sequence[tuple[bytes, Payload]]) -> None:
        try:
            too_large = self._store.add(entries)
        except _TROUBLE as error:
            self._tell_lost()
            say(f"results cannot be kept in the cache in {self._folder} ({error}); the calls are not affected")
            return
        if too_large:
            most = sized(self._store.most)
            say(f"{too_large} results are larger than half of cache_bytes ({most}), and are not kept")

    def flush(self) -> None:
        """Wait until everything is written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_writing)

    def remove(self, keys: Sequence[bytes]) -> None:
        """Forget these results."""
        for key in keys:
            self._unwritten.pop(key, None)
        try:
            self._store.remove(keys)
        except _TROUBLE as error:
            say(f"the cache in {self._folder} cannot be changed ({error})")

    def clear(self) -> int:
        """Forget all results in the folder; return how many there were."""
        self.flush()
        return self._used(self._store.clear)

    def info(self) -> CacheInfo:
        """Return what there is, and what was found."""
        self.flush()
        number, size = self._used(self._store.size)
        return CacheInfo(self._hits, self._misses, number, size, self._store.most, self._folder)

    def _used(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except _TROUBLE as error:
            self._tell_lost()
            raise ClientError(f"the cache in {self._folder} cannot be used ({error})") from error

    def close(self) -> None:
        """Wait until everything is written, and close the file."""
        self.flush()
        self._store.close()

    def _tell_lost(self) -> None:
        lost, self._store.lost = self._store.lost, ""
        if lost:
            say(f"the cache {self._store.path} was damaged ({lost}) and is made anew: all calls are made again")
