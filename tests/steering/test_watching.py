"""What ranks answer when a client wants to watch a value."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ipmpi.errors import ClientError
from ipmpi.steering.watching import Watch, Watching


class Odd:
    """A value that has a size, and raises what it likes."""

    size = 2

    def __float__(self) -> float:
        raise RuntimeError("on another device")


@pytest.mark.parametrize(
    ("value", "reduce", "words"),
    [
        (10**400, "", "v is not a number that can be watched: int too large"),
        (Odd(), "", "v is not a number that can be watched: on another device"),
        (Odd(), "max", "v is not a number that can be watched: object cannot be"),
        (np.zeros((2, 3)), "", r"v is an array of shape \(2, 3\): watch one number of it, as with reduce='max'"),
        ([1, 2], "", "v is not a number that can be watched"),
        ("hello", "", "v is not a number that can be watched"),
    ],
    ids=["huge", "odd", "odd to reduce", "array", "list", "text"],
)
def test_a_rank_whose_value_cannot_be_watched_answers_all_others(value: Any, reduce: str, words: str) -> None:
    """Whatever its value raises: the others wait for its answer."""
    told: list[str] = []
    comm = SimpleNamespace(allgather=lambda text: [told.append(text) or text, ""])
    watching = Watching({"v": value}, {"v"}, lambda: 0, comm, None, True, told.append)
    with pytest.raises(ClientError, match=rf"rank 0 says: {words}.*\(rank 1 has it: publish it on all ranks"):
        watching.begin(Watch(1, "v", 1, reduce))
    assert len(told) == 1
