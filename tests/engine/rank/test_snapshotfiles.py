"""Files with snapshots: whole or not there, and nobody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipmpi import serialize
from ipmpi.engine.rank.snapshotfiles import SnapshotFiles
from ipmpi.engine.session.snapshots import SnapshotPlace, content_of
from ipmpi.errors import KernelError

CONTENT = content_of({"a": 1, "b": bytearray(100_000)}, None)
FILES = SnapshotFiles()


@pytest.fixture
def place(tmp_path: Path) -> SnapshotPlace:
    return SnapshotPlace(str(tmp_path / "new" / "folder"), "cluster")


def test_what_is_saved_is_loaded(place: SnapshotPlace) -> None:
    about = FILES.save(place, "k", 7, CONTENT)
    size = sum(memoryview(each).nbytes for each in CONTENT.segments)
    assert about == {"folder": place.folder, "bytes": size}
    loaded = FILES.load(place, "k", 7)
    assert (loaded.names, loaded.left_out) == (["a", "b"], {})
    assert serialize.loads(loaded.segments) == {"a": 1, "b": bytearray(100_000)}
    ((key, when),) = FILES.saved(place, 7)
    assert (key, when) == ("k", pytest.approx(Path(place.folder, "k", "7.snapshot").stat().st_mtime))
    assert FILES.saved(place, 8) == []


def test_only_their_owner_can_read_them(place: SnapshotPlace) -> None:
    before = os.umask(0)
    try:
        FILES.save(place, "k", 7, CONTENT)
    finally:
        os.umask(before)
    path = Path(place.folder, "k", "7.snapshot")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_one_to_which_others_can_write_is_not_loaded(place: SnapshotPlace) -> None:
    """It is a pickle: who writes it runs code in the engine."""
    FILES.save(place, "k", 7, CONTENT)
    path = Path(place.folder, "k", "7.snapshot")
    for mode in (0o602, 0o620):
        path.chmod(mode)
        with pytest.raises(KernelError, match="others can write to it: it is not loaded"):
            FILES.load(place, "k", 7)
    if os.geteuid() == 0:
        path.chmod(0o600)
        os.chown(path, 12345, -1)
        with pytest.raises(KernelError, match=r"7\.snapshot belongs to somebody else"):
            FILES.load(place, "k", 7)


@pytest.mark.parametrize(
    "damage", [b"", b"{}\n", b"no JSON\n", None], ids=["empty", "another", "no JSON", "short"]
)
def test_a_damaged_one_is_named(place: SnapshotPlace, damage: bytes | None) -> None:
    FILES.save(place, "k", 7, CONTENT)
    path = Path(place.folder, "k", "7.snapshot")
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    with pytest.raises(KernelError, match=r"7\.snapshot is no snapshot of this release of ipmpi, or is damaged"):
        FILES.load(place, "k", 7)


def test_an_old_one_stays_when_a_new_one_cannot_be_written(place: SnapshotPlace) -> None:
    FILES.save(place, "k", 7, CONTENT)
    broken = CONTENT._replace(segments=["no bytes"])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        FILES.save(place, "k", 7, broken)
    assert [path.name for path in Path(place.folder, "k").iterdir()] == ["7.snapshot"]
    assert FILES.load(place, "k", 7).names == ["a", "b"]


def test_what_others_have_put_at_its_name_is_not_written_to(place: SnapshotPlace, tmp_path: Path) -> None:
    """As a link to a file of this user, in a folder that others can write to."""
    mine = tmp_path / "mine"
    mine.write_text("precious")
    folder = Path(place.folder, "k")
    folder.mkdir(parents=True)
    for name in (f"7.{os.getpid()}", "7.snapshot"):
        (folder / name).symlink_to(mine)
    FILES.save(place, "k", 7, CONTENT)
    assert mine.read_text() == "precious"
    assert FILES.load(place, "k", 7).names == ["a", "b"]


def test_those_of_other_engines_stay(place: SnapshotPlace) -> None:
    for key in ("k", "l"):
        for engine in (7, 8):
            FILES.save(place, key, engine, CONTENT)
    FILES.drop_others(place, "l", 7)
    assert [key for key, _ in FILES.saved(place, 7)] == ["l"]
    assert sorted(key for key, _ in FILES.saved(place, 8)) == ["k", "l"]
    FILES.drop_others(place, "l", 8)
    assert [path.name for path in Path(place.folder).iterdir()] == ["l"]


def test_without_a_folder_they_are_in_the_users_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    assert FILES.save(SnapshotPlace("", "c0ffee"), "k", 1, CONTENT)["folder"] == f"{tmp_path}/snapshots/c0ffee"


@pytest.mark.parametrize("key", ["", ".", "..", "a/b"])
def test_a_key_leads_nowhere_else(place: SnapshotPlace, key: str) -> None:
    with pytest.raises(ValueError, match="is no key of a snapshot"):
        FILES.save(place, key, 7, CONTENT)
