"""The folder by which engines are started again."""

from __future__ import annotations

from pathlib import Path

from ipmpi import launchfolder
from ipmpi.engine.agent.idsfile import IdsFile


def test_ids_are_found_after_each_start(tmp_path: Path) -> None:
    folder = tmp_path / "ids"
    launchfolder.begin(folder)  # the first time there is none
    for ids in ({0: 4}, {0: 5}):
        IdsFile(str(folder), 0).keep(ids)
        launchfolder.begin(folder)
        assert IdsFile(str(folder), 0).former() == ids
        assert not folder.exists()


def test_a_request_is_for_one_restart(tmp_path: Path) -> None:
    folder = tmp_path / "ids"
    ids = IdsFile(str(folder), 0)
    ids.keep({0: 0})
    assert launchfolder.asked(folder) == ""
    ids.ask("a client\n has asked")
    assert launchfolder.asked(folder) == "a client has asked"
    launchfolder.begin(folder)
    assert launchfolder.asked(folder) == ""


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "ids"
    IdsFile(str(folder), 0).keep({0: 0})
    launchfolder.begin(folder)
    IdsFile(str(folder), 0).keep({0: 0})
    launchfolder.remove(folder)
    assert list(tmp_path.iterdir()) == []
