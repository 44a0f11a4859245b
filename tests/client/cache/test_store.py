"""The file of results: bounded, shared, checked, and read only where nobody else could have written."""

from __future__ import annotations

import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ipmpi.client.cache import store as store_module
from ipmpi.client.cache.resultcache import ResultCache
from ipmpi.client.cache.store import FILE, OVERHEAD, Store
from ipmpi.errors import ClientError, SecurityError

MUCH = 1 << 30


def key(number: int) -> bytes:
    return number.to_bytes(20, "big")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "cache", MUCH)
    yield made
    made.close()


def of(store: Store, *numbers: int) -> dict[int, object]:
    found = store.find([key(number) for number in numbers]).payloads
    return {int.from_bytes(each, "big"): payload for each, payload in found.items()}


def test_what_was_added_is_found_by_another_process(tmp_path: Path) -> None:
    """Also if the first one was killed right after that."""
    folder = tmp_path / "cache"
    program = (
        "import os, sys; from pathlib import Path; from ipmpi.client.cache.store import Store\n"
        "entries = [(bytes(19) + b'\\1', b'one'), (bytes(19) + b'\\2', [b'a', b'bc'])]\n"
        f"Store(Path({str(folder)!r}), 1 << 30).add(entries)\n"
        "os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.run([sys.executable, "-c", program], env=environment, timeout=100).returncode == -9
    assert of(Store(folder, MUCH), 1, 2, 3) == {1: b"one", 2: [b"a", b"bc"]}


def test_the_first_result_of_a_key_stays(store: Store) -> None:
    store.add([(key(1), b"a")])
    store.add([(key(1), b"b"), (key(2), b"")])
    assert of(store, 1, 2) == {1: b"a", 2: b""}
    assert store.size() == (2, 1 + 1 + 1 + 2 * OVERHEAD)


def test_many_keys_are_found_at_once(store: Store) -> None:
    store.add((key(number), b"%d" % number) for number in range(0, 3_000, 2))
    assert len(of(store, *range(3_000))) == 1_500


def test_files_are_private(store: Store) -> None:
    store.add([(key(1), b"a")])
    folder = store.path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_those_that_were_not_used_for_long_leave(tmp_path: Path) -> None:
    now = 1_000_000.0
    store = Store(tmp_path / "cache", 10 * (1_000 + OVERHEAD), lambda: now)
    for number in range(9):
        now += 100
        store.add([(key(number), bytes(999))])
    now += 100
    assert len(of(store, 0, 1)) == 2  # used again, so they are not the first to leave
    for number in range(9, 14):
        now += 100
        store.add([(key(number), bytes(999))])
        assert store.size()[1] <= 10 * (1_000 + OVERHEAD)
    left = set(of(store, *range(14)))
    assert {0, 1, 13} <= left
    assert not {2, 3, 4, 5} & left


def test_what_is_too_large_is_not_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache", 10_000)
    assert store.add([(key(1), bytes(6_000)), (key(2), b"a")]) == 1
    assert of(store, 1, 2) == {2: b"a"}


def test_a_cleared_file_is_small(store: Store) -> None:
    store.add((key(number), bytes(1_000)) for number in range(2_000))
    assert store.clear() == 2_000
    assert store.size() == (0, 0)
    store.close()
    assert store.path.stat().st_size < 100_000


# --- damage -----------------------------------------------------------------------------------------------------


def damage(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def test_a_damaged_entry_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache", MUCH)
    store.add([(key(1), b"the first result"), (key(2), b"the second result")])
    store.close()
    damage(store.path, b"the first result", b"the f1rst result")
    found = store.find([key(1), key(2)])
    assert (found.payloads, found.damaged) == ({key(2): b"the second result"}, 1)
    store.add([(key(1), b"again")])
    assert of(store, 1) == {1: b"again"}


def test_an_entry_under_the_key_of_another_is_not_there(store: Store) -> None:
    store.add([(key(1), b"one"), (key(2), b"two")])
    with sqlite3.connect(store.path) as connection:
        connection.execute("DELETE FROM entries WHERE key = ?", [key(1)])
        connection.execute("UPDATE entries SET key = ? WHERE key = ?", [key(1), key(2)])
    assert store.find([key(1)]) == ({}, 1)


@pytest.mark.parametrize("step", [pytest.param(number, id=f"{number}") for number in range(8)])
def test_whatever_bytes_change_no_result_is_wrong(tmp_path: Path, step: int) -> None:
    """Every 8th byte of the file is turned around, one at a time, and a part of them is cut off."""
    expected = {number: b"result %d " % number * 20 for number in range(40)}
    first = Store(tmp_path / "cache", MUCH)
    first.add((key(number), data) for number, data in expected.items())
    first.close()
    whole = first.path.read_bytes()
    for place in range(step * 16, len(whole), 8 * 16 * (1 if os.environ.get("IPMPI_ALL_BYTES") else 5)):
        folder = tmp_path / f"{place}"
        folder.mkdir(mode=0o700)
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        file = folder / FILE
        file.touch(0o600)
        file.write_bytes(changed if place % 3 else changed[:place])
        try:
            store = Store(folder, MUCH)
            found = of(store, *expected)
            store.add([(key(99), b"new")])
        except sqlite3.Error:  # then the next use begins with a new file
            store = Store(folder, MUCH)
            found = of(store, *expected)
        assert all(expected[number] == data for number, data in found.items()), place
        store.close()


def test_a_file_of_something_else_is_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    (folder / FILE).touch(0o600)
    (folder / FILE).write_bytes(b"this is no database" * 1_000)
    cache = ResultCache(folder)
    cache.keep(1, lambda: [(key(1), b"a")])
    cache.flush()
    assert cache.find([key(1)]) == {key(1): b"a"}
    assert "was damaged (file is not a database) and is made anew" in capsys.readouterr().err


def test_a_damaged_entry_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = ResultCache(tmp_path / "cache")
    cache.keep(1, lambda: [(key(1), b"the only result")])
    cache.close()
    damage(tmp_path / "cache" / FILE, b"the only result", b"the 0nly result")
    assert cache.find([key(1)]) == {}
    assert "1 results in the cache" in (told := capsys.readouterr().err)
    assert "were damaged, and are computed again" in told


# --- several at once --------------------------------------------------------------------------------------------


def test_several_processes_write_and_read_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    program = (
        "import sys; from pathlib import Path; from ipmpi.client.cache.store import Store\n"
        f"store = Store(Path({str(folder)!r}), 1 << 30)\n"
        "for start in range(0, 600, 20):\n"
        "    keys = [number.to_bytes(20, 'big') for number in range(start, start + 20)]\n"
        "    for key, payload in store.find(keys).payloads.items():\n"
        "        assert payload == key * 3, (key, payload)\n"
        "    store.add((key, key * 3) for key in keys)\n"
        "    assert len(store.find(keys).payloads) == 20\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    started = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(4)]
    assert [each.wait(100) for each in started] == [0] * 4
    store = Store(folder, MUCH)
    assert len(of(store, *range(600))) == 600
    assert store.size() == (600, 600 * (61 + OVERHEAD))


def test_clients_that_make_the_file_at_the_same_moment_share_it(tmp_path: Path) -> None:
    clients = 6
    for attempt in range(10):
        folder, together = tmp_path / f"cache-{attempt}", threading.Barrier(clients)

        def first_result(number: int, folder: Path = folder, together: threading.Barrier = together) -> None:
            together.wait(60)
            Store(folder, MUCH).add([(key(number), b"%d" % number)])

        with ThreadPoolExecutor(clients) as threads:
            assert list(threads.map(first_result, range(clients))) == [None] * clients
        assert of(Store(folder, MUCH), *range(clients)) == {number: b"%d" % number for number in range(clients)}


def test_several_threads_use_one_cache(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path / "cache")
    wrong: list[object] = []

    def work(first: int) -> None:
        for number in range(first, first + 100):
            cache.keep(1, lambda number=number: [(key(number), b"%d" % number)])  # type: ignore[misc]
            found = cache.find([key(number - 1)])
            wrong.extend(p for k, p in found.items() if p != b"%d" % int.from_bytes(k, "big"))

    threads = [threading.Thread(target=work, args=(1 + 50 * number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    cache.flush()
    assert not wrong
    assert cache.info().entries == 350


def test_a_program_that_ends_has_written_everything(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from ipmpi.client.cache.resultcache import ResultCache\n"
        f"cache = ResultCache(Path({str(tmp_path / 'cache')!r}))\n"
        "for number in range(1000):\n"
        "    cache.keep(1, lambda number=number: [(number.to_bytes(20, 'big'), b'x')])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=100, check=True)
    assert Store(tmp_path / "cache", MUCH).size()[0] == 1_000


# --- who may have written ---------------------------------------------------------------------------------------


def planted(folder: Path) -> None:
    """A file with an entry, in a folder that has been made before."""
    store = Store(folder, MUCH)
    store.add([(key(1), pickle.dumps(1))])
    store.close()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o720])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    planted(tmp_path / "cache")
    (tmp_path / "cache").chmod(mode)
    with pytest.raises(SecurityError, match=r"others can write to .*cache.*run `chmod go-w "):
        ResultCache(tmp_path / "cache")


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o604, 0o620])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    planted(tmp_path / "cache")
    (tmp_path / "cache" / FILE).chmod(mode)
    with pytest.raises(SecurityError, match="others may read or change"):
        ResultCache(tmp_path / "cache")


def test_somebody_elses_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(tmp_path / "cache")
    mine = os.geteuid()
    monkeypatch.setattr(store_module.os, "geteuid", lambda: mine + 1)
    with pytest.raises(SecurityError, match=f"belongs to user {mine}, you are user {mine + 1}.*cache_folder="):
        ResultCache(tmp_path / "cache")


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    planted(tmp_path / "cache")
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    with pytest.raises(SecurityError, match="is not a folder"):
        ResultCache(tmp_path / "link")


def test_a_link_to_a_file_is_refused(tmp_path: Path) -> None:
    planted(tmp_path / "cache")
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "other" / FILE).symlink_to(tmp_path / "cache" / FILE)
    with pytest.raises(SecurityError, match="symbolic link"):
        ResultCache(tmp_path / "other")


# --- a disk that fails ------------------------------------------------------------------------------------------


def test_a_place_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ClientError, match=r"the folder of cached results, .*file/cache, cannot be used .*cache_folder="
    ):
        ResultCache(tmp_path / "file" / "cache")


def test_a_disk_that_fails_makes_no_call_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = ResultCache(tmp_path / "cache")
    full = sqlite3.OperationalError("database or disk is full")

    def fails(*_: object) -> None:
        raise full

    cache._store.add = fails  # type: ignore[assignment,method-assign]
    cache._store.find = fails  # type: ignore[assignment,method-assign]
    cache.keep(1, lambda: [(key(1), b"a")])
    cache.flush()
    assert cache.find([key(1)]) == {}
    told = capsys.readouterr().err
    assert "results cannot be kept in the cache in" in told
    assert "cannot be read (database or disk is full): calls are made anew" in told


def test_a_disk_that_is_slower_than_engines_fills_no_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ResultCache(tmp_path / "cache")
    goes_on = threading.Event()
    large = 200 << 20
    cache.keep(large, lambda: iter(() if goes_on.wait(60) else [(key(3), b"")]))
    cache.keep(large, lambda: [(key(1), b"a")])
    assert "is slower than the engines: some results are not kept" in capsys.readouterr().err
    goes_on.set()
    cache.flush()
    cache.keep(large, lambda: [(key(2), b"b")])
    cache.flush()
    assert set(cache.find([key(1), key(2)])) == {key(2)}


def test_on_a_network_file_system_there_is_no_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "network_type", lambda _folder, _mounts: "nfs4")
    store = Store(tmp_path / "cache", MUCH)
    store.add([(key(1), b"a")])
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert of(store, 1) == {1: b"a"}
