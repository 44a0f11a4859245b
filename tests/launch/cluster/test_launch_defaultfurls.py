"""The furl files for those who name no cluster."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipmpi import furl
from ipmpi.furl import Furl, default_furl_file
from ipmpi.launch.cluster import defaultfurls, records
from ipmpi.launch.cluster.records import ClusterRecord

ROLES = ("engine", "mec", "tc", "monitor")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def write(path: Path, role: str) -> str:
    furl.save(path, Furl.create(b"x" * 32, (("127.0.0.1", 1),), role))
    return path.read_text()


def cluster(name: str, *roles: str, unnamed: bool = True) -> tuple[ClusterRecord, dict[str, str]]:
    files = records.furl_files(name)
    own = {role: write(files[role], role) for role in roles or ROLES}
    record = ClusterRecord(name, "local", 2, unnamed=unnamed, furl_files={role: str(files[role]) for role in own})
    records.save(record)
    return record, own


def found() -> dict[str, str]:
    return {role: default_furl_file(role).read_text() for role in ROLES if default_furl_file(role).exists()}


def end(record: ClusterRecord) -> None:
    defaultfurls.release(record.name)
    records.forget(record.name, record.pid)


def test_the_newest_cluster_is_found_and_then_the_older_one() -> None:
    first, files = cluster("default")
    defaultfurls.publish(first)
    assert found() == files
    second, newer = cluster("default-2")
    defaultfurls.publish(second)
    assert found() == newer
    for role in ROLES:
        assert furl.load_furl_or_file("", role) == Furl.parse(newer[role])
    end(second)
    assert found() == files
    end(first)
    assert found() == {}
    assert list(furl.security_dir().iterdir()) == []


def test_the_end_of_an_older_cluster_changes_nothing() -> None:
    first, _ = cluster("default")
    defaultfurls.publish(first)
    second, newer = cluster("default-2")
    defaultfurls.publish(second)
    end(first)
    assert found() == newer


@pytest.mark.parametrize("ending", ["", "default"])
def test_the_files_of_a_cluster_that_was_killed_are_not_left(ending: str) -> None:
    """It could not release them; the next command that looks at clusters does, or the end of another one."""
    first, files = cluster("default")
    defaultfurls.publish(first)
    second, _ = cluster("default-2")
    defaultfurls.publish(second)
    records.forget(second.name, second.pid)
    if ending:
        end(first)
        assert found() == {}
    else:
        defaultfurls.release()
        assert found() == files


def test_what_was_there_before_comes_back() -> None:
    copied = {role: write(default_furl_file(role), role) for role in ("mec", "tc")}
    first, files = cluster("default")
    defaultfurls.publish(first)
    assert found() == files
    second, _ = cluster("default-2")
    defaultfurls.publish(second)
    end(second)
    end(first)
    assert found() == copied


def test_what_came_later_by_other_ways_stays() -> None:
    first, _ = cluster("default")
    defaultfurls.publish(first)
    copied = write(default_furl_file("mec"), "mec")
    end(first)
    assert found()["mec"] == copied


def test_furls_of_two_clusters_are_never_beside_each_other() -> None:
    first, _ = cluster("default")
    defaultfurls.publish(first)
    far, files = cluster("default-2", "mec", "tc")  # reached through ssh: engines are not for this machine
    defaultfurls.publish(far)
    assert found() == files


def test_a_named_cluster_does_not_come_after_one_without() -> None:
    cluster("big", unnamed=False)
    first, _ = cluster("default")
    defaultfurls.publish(first)
    end(first)
    assert found() == {}


def test_a_controller_by_hand_gives_back_what_it_has_replaced() -> None:
    first, files = cluster("default")
    defaultfurls.publish(first)
    defaultfurls.set_aside()
    own = {default_furl_file(role): write(default_furl_file(role), role).encode() for role in ROLES}
    defaultfurls.give_back(own)
    assert found() == files
    end(first)
    assert found() == {}


def test_another_controller_by_hand_is_not_taken_away() -> None:
    earlier = {role: write(default_furl_file(role), role) for role in ROLES}
    defaultfurls.set_aside()
    own = {default_furl_file(role): write(default_furl_file(role), role).encode() for role in ROLES}
    newer = write(default_furl_file("tc"), "tc")
    defaultfurls.give_back(own)
    assert found()["tc"] == newer
    write(default_furl_file("tc"), "tc")
    default_furl_file("tc").write_bytes(own[default_furl_file("tc")])
    defaultfurls.give_back(own)
    assert found() == earlier


def test_a_link_that_somebody_put_there_is_kept_and_not_followed(home: Path) -> None:
    outside = home / "outside"
    outside.write_text("mine")
    default_furl_file("mec").parent.mkdir()
    os.symlink(outside, default_furl_file("mec"))
    first, files = cluster("default")
    defaultfurls.publish(first)
    assert found() == files
    end(first)
    assert outside.read_text() == "mine"
    assert default_furl_file("mec").is_symlink()
