"""``restart``, ``snapshot`` and ``restore``: what they ask for, and what they tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi.engine.rank.snapshotfiles import SnapshotFiles
from ipmpi.errors import ClientError, CompositeError, ConnectionError, EngineLost
from ipmpi.protocol import messages as m, operations as o

if TYPE_CHECKING:
    from conftest import FakeSession

    from ipmpi.client import MultiEngineClient


@pytest.fixture
def folder(session: FakeSession, tmp_path: Path) -> str:
    """Where the snapshots are; the engines are given a place for them."""
    for namespace in session.engines.values():
        assert namespace is not None
        namespace.snapshots = SnapshotFiles()
    return str(tmp_path)


def test_a_snapshot_tells_what_it_has_and_what_not(mec: MultiEngineClient, folder: str) -> None:
    mec.execute("a = 1")
    mec.execute("g = (i for i in [])", targets=[1, 2])
    snapshot: Any = mec.snapshot(folder=folder)
    assert (snapshot.engines, snapshot.names, snapshot.folder) == ([0, 1, 2, 3], ["a"], folder)
    assert snapshot.left_out == {"g": dict.fromkeys((1, 2), "a generator object cannot be pickled")}
    assert str(snapshot) == (
        f"snapshot of engines 0-3: 1 name, {snapshot.bytes} bytes in {folder}; not saved: g on [1-2] (a generator "
        "object cannot be pickled)"
    )
    mec.execute("a = 2")
    restored = mec.restore(folder=folder)
    assert (restored.engines, restored.names, restored.left_out) == ([0, 1, 2, 3], ["a"], snapshot.left_out)
    assert mec["a"] == [1] * 4
    assert str(restored).startswith("1 name restored from the snapshot of 2")


def test_the_last_one_that_all_engines_have_is_restored(mec: MultiEngineClient, folder: str) -> None:
    """One that an engine could not write is none."""
    mec.push({"a": 1})
    mec.snapshot(folder=folder)
    mec.push({"a": 2})
    last: Any = mec.snapshot(folder=folder)
    assert [path.name for path in Path(folder).iterdir()] == [last.key], "older ones are removed"
    mec.push({"a": 3})
    mec.snapshot(folder=folder, targets=[0, 1])
    assert len(list(Path(folder).iterdir())) == 2, "the other engines have theirs"
    with pytest.raises(ClientError, match=r"have no snapshot in common: mec\.snapshot\(\) takes one"):
        mec.restore(folder=folder)
    mec.restore(folder=folder, targets=[2, 3])
    mec.restore(folder=folder, targets=[0, 1])
    assert mec["a"] == [3, 3, 2, 2]


def test_an_older_one_stays_until_a_new_one_is_complete(
    mec: MultiEngineClient, session: FakeSession, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mec.push({"a": 1})
    mec.snapshot(folder=folder)
    mec.push({"a": 2})

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    namespace = session.engines[3]
    assert namespace is not None
    with monkeypatch.context() as patched:
        patched.setattr(namespace.snapshots, "save", full)
        with pytest.raises(CompositeError, match="one or more exceptions from call to method: snapshot"):
            mec.snapshot(folder=folder)
    mec.restore(folder=folder)
    assert mec["a"] == [1] * 4


def test_before_the_walltime(mec: MultiEngineClient, session: FakeSession, folder: str) -> None:
    assert mec.snapshot("a", before_walltime=90, folder=folder) is None
    operation = session.sent[-1].operation
    assert isinstance(operation, o.BeforeWalltime)
    assert (operation.seconds, operation.name) == (90.0, "snapshot")
    assert operation.snapshot is not None
    assert (operation.snapshot.folder, operation.snapshot.names) == (folder, ["a"])
    assert session.sent[-1].method == "before_walltime", "by which agents know it"


def test_a_restart_waits_for_the_engines_and_restores_them(
    mec: MultiEngineClient, session: FakeSession, folder: str
) -> None:
    session.answers[m.Restart] = [0, 1, 2, 3]
    mec.push({"a": 1})
    mec.snapshot(folder=folder)
    mec.push({"a": 2})
    restarted = mec.restart(folder=folder)
    assert (restarted.engines, mec["a"]) == ([0, 1, 2, 3], [1] * 4)
    assert restarted.restored is not None
    assert str(restarted).startswith("engines 0-3 restarted in 0.")
    assert "; 1 name restored from the snapshot of 2" in str(restarted)
    assert str(mec.restart(folder=folder, restore=False)).endswith(" s; nothing is restored")
    assert session.requests[-1] == m.Restart(session.requests[-1].id, None)


@pytest.mark.parametrize("wrong", ["10", 0, -1, float("nan")])
def test_a_wrong_time_limit_is_refused_before_anything_is_sent(
    mec: MultiEngineClient, session: FakeSession, wrong: Any
) -> None:
    mec.timeout = wrong
    with pytest.raises((TypeError, ValueError), match="timeout must be a number of seconds above 0, or None"):
        mec.execute("a = 1")
    assert not session.sent


def test_a_view_keeps_its_time_limit(mec: MultiEngineClient) -> None:
    view = mec.with_options(timeout=30)
    assert (view.timeout, view.with_options(block=False).timeout, mec.timeout) == (30.0, 30.0, None)


def test_engines_that_do_not_come_again_are_named(mec: MultiEngineClient, session: FakeSession) -> None:
    session.answers[m.Restart] = [0, 1, 2, 3]
    session.presence.update((), [1, 3])
    with pytest.raises(EngineLost) as caught:
        mec.restart(timeout=0.01)
    assert str(caught.value).startswith("engines 1, 3 did not come again within 0.01 s of the restart.")
    session.failure = ConnectionError("the cluster has ended")
    with pytest.raises(ConnectionError, match="the cluster has ended"):
        mec.restart(timeout=0.01)
