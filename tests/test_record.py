"""The record of what was changed in a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipmpi.errors import ClientError
from ipmpi.record import Change, Record


def change(tick: int, ranks: list[int], operation: bytes = b"o") -> Change:
    return Change(tick, tick, "set", operation, [b"body"], ranks)


def test_what_all_ranks_have_done_is_there_once() -> None:
    first = Record("app.py", 2, [change(3, [0]), change(3, [0]), change(5, [0])])
    second = Record("app.py", 2, [change(3, [1]), change(3, [1]), change(4, [1], b"only here")], False)
    whole = Record.of_all([first, second])
    assert [(each.tick, each.ranks) for each in whole.changes] == [(3, [0, 1]), (3, [0, 1]), (4, [1]), (5, [0])]
    assert not whole.is_complete
    assert [each.tick for each in whole.of_rank(0)] == [3, 3, 5]
    assert [each.operation for each in whole.of_rank(1)] == [b"o", b"o", b"only here"]
    assert repr(whole) == "<record of app.py, 2 ranks: 4 changes>"


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.record"
    Record("app.py", 2, [change(3, [0, 1])]).save(path)
    again = Record.load(path)
    assert (again.program, again.ranks, again.changes) == ("app.py", 2, [change(3, [0, 1])])
    path.write_bytes(b"something else")
    with pytest.raises(ClientError, match="this is no record of a program"):
        Record.load(path)
