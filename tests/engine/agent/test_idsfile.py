"""The ids of a set are kept for the one that is started in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipmpi.engine.agent.idsfile import BEFORE, IdsFile


def test_the_next_set_finds_the_ids_where_the_job_script_puts_them(tmp_path: Path) -> None:
    folder = tmp_path / "ipengine-12-ids"
    IdsFile(str(folder), 0).keep({0: 4, 1: 7})
    folder.rename(f"{folder}{BEFORE}")
    assert IdsFile(str(folder), 0).former() == {0: 4, 1: 7}
    assert IdsFile(str(folder), 1).former() == {}, "another part of the set"


def test_nothing_is_left_when_the_set_was_told_to_end(tmp_path: Path) -> None:
    ids = IdsFile(str(tmp_path / "ids"), 0)
    ids.remove()
    ids.keep({0: 0})
    ids.keep({0: 1})
    ids.remove()
    assert list((tmp_path / "ids").iterdir()) == []


@pytest.mark.parametrize("text", ["", "4", "[1]", '{"a": 1}', '{"0": null}'])
def test_a_file_that_says_nothing_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "ids.before").mkdir()
    (tmp_path / "ids.before" / "0").write_text(text)
    assert IdsFile(str(tmp_path / "ids"), 0).former() == {}


def test_without_a_folder_nothing_is_kept() -> None:
    ids = IdsFile("", 0)
    ids.keep({0: 1})
    ids.remove()
    assert ids.former() == {}
